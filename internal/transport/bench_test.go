package transport_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
)

// data is a batch of datagrams that look like WireGuard's.
func data(n, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
		bufs[i][0] = 4
	}
	return bufs
}

// count runs the receive functions of b, as the device would, and counts bytes.
func count(b conn.Bind, fns []conn.ReceiveFunc, bytes *atomic.Int64) {
	for _, fn := range fns {
		go func() {
			bufs, sizes, eps := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			for {
				n, err := fn(bufs, sizes, eps)
				if err != nil {
					return
				}
				sum := 0
				for _, s := range sizes[:n] {
					sum += s
				}
				bytes.Add(int64(sum))
			}
		}()
	}
}

// pump sends b.N batches and keeps at most ahead of them on the way.
func pump(b *testing.B, batch [][]byte, ahead int, got *atomic.Int64, send func([][]byte) error) {
	size := int64(len(batch) * len(batch[0]))
	b.SetBytes(size)
	b.ReportAllocs()
	var sent, lost int64
	for b.Loop() {
		if err := send(batch); err != nil {
			b.Fatal(err)
		}
		sent += size
		for start := time.Now(); sent-lost-got.Load() > size*int64(ahead); {
			if time.Since(start) > 50*time.Millisecond {
				lost = sent - got.Load()
			}
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(lost)/float64(sent)*100, "%lost")
}

func benchmarkUDP(b *testing.B, from, to conn.Bind, size int) {
	_, _, err := from.Open(0)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	fns, port, err := to.Open(0)
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	var got atomic.Int64
	count(to, fns, &got)
	ep, err := from.ParseEndpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		b.Fatal(err)
	}
	pump(b, data(44, size), 2, &got, func(bufs [][]byte) error { return from.Send(bufs, ep) })
}

func BenchmarkUDP(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		benchmarkUDP(b, transport.NewBind(transport.Options{}), transport.NewBind(transport.Options{}), 1452)
	})
	b.Run("wireguard-go", func(b *testing.B) {
		benchmarkUDP(b, conn.NewStdNetBind(), conn.NewStdNetBind(), 1452)
	})
}

func BenchmarkStream(b *testing.B) {
	for _, mtu := range []int{1452, 16416} {
		b.Run(map[int]string{1452: "mtu=1420", 16416: "mtu=16384"}[mtu], func(b *testing.B) {
			from, to := transport.NewBind(transport.Options{}), transport.NewBind(transport.Options{})
			if _, _, err := from.Open(0); err != nil {
				b.Fatal(err)
			}
			defer from.Close()
			fns, _, err := to.Open(0)
			if err != nil {
				b.Fatal(err)
			}
			defer to.Close()
			var got atomic.Int64
			count(to, fns, &got)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { to.ServeStreams(ctx, ln); close(done) }()
			defer func() { cancel(); <-done }()
			k := probeKey(b)
			to.Answer([]probe.Key{k})
			g := from.NewGateway(transport.GatewayConfig{Key: k, Stream: dialTo(ln.Addr())})
			defer g.Close()
			if err := g.Wait(ctx); err != nil {
				b.Fatal(err)
			}
			pump(b, data(44, mtu), 8, &got, func(bufs [][]byte) error { return from.Send(bufs, g) })
		})
	}
}

// probeKey is some key.
func probeKey(t testing.TB) probe.Key {
	var ks [2]key.Private
	for i := range ks {
		var err error
		if ks[i], err = key.NewPrivate(); err != nil {
			t.Fatal(err)
		}
	}
	k, err := probe.NewKey(ks[0], ks[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// BenchmarkTunnel is two whole devices, crypto and all. Its extra metrics are
// the round trip of a small packet beside the bulk, and the heap at the end.
func BenchmarkTunnel(b *testing.B) {
	for _, c := range []struct {
		name   string
		mtu    int
		stream bool
	}{{"udp", 1420, false}, {"stream", 16384, true}} {
		b.Run(c.name, func(b *testing.B) {
			laptop, gw := newNode(b, c.mtu, transport.Options{}), newNode(b, c.mtu, transport.Options{})
			if c.stream {
				laptop.gateway(b, gw, dialTo(gw.serve(b)))
			} else {
				laptop.gateway(b, gw, nil, gw.udpAddr())
			}
			var got atomic.Int64
			gw.onPacket(func(src netip.Addr, p []byte) {
				got.Add(int64(len(p)))
				if len(p) == 8 {
					gw.tun.send(packet(gw.addr, src, slices.Clone(p)))
				}
			})
			var rtts []time.Duration
			back := make(chan time.Duration, 1)
			begin := time.Now()
			laptop.onPacket(func(_ netip.Addr, p []byte) {
				select {
				case back <- time.Since(begin) - time.Duration(binary.BigEndian.Uint64(p)):
				default:
				}
			})
			ping := func() {
				p := binary.BigEndian.AppendUint64(nil, uint64(time.Since(begin)))
				laptop.tun.send(packet(laptop.addr, gw.addr, p))
			}
			ping()
			<-back
			bulk := packet(laptop.addr, gw.addr, make([]byte, c.mtu-40))
			b.SetBytes(int64(len(bulk)))
			n, waiting := 0, false
			var sent int64
			for b.Loop() {
				laptop.tun.send(bulk)
				sent += int64(len(bulk) - 40)
				// 8 MiB on the way: a few TCP flows' windows.
				for start := time.Now(); sent-got.Load() > 8<<20; runtime.Gosched() {
					if time.Since(start) > 50*time.Millisecond {
						sent = got.Load()
					}
				}
				if n++; n%500 == 0 && !waiting {
					ping()
					waiting = true
				}
				select {
				case d := <-back:
					rtts = append(rtts, d)
					waiting = false
				default:
				}
			}
			if len(rtts) > 0 {
				slices.Sort(rtts)
				b.ReportMetric(float64(rtts[len(rtts)/2].Microseconds()), "rtt-p50-us")
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapInuse>>20), "heap-MiB")
		})
	}
}

// BenchmarkRoundTrip is one small packet there and back, with nothing else
// under way.
func BenchmarkRoundTrip(b *testing.B) {
	for _, stream := range []bool{false, true} {
		b.Run(map[bool]string{false: "udp", true: "stream"}[stream], func(b *testing.B) {
			laptop, gw := newNode(b, 1420, transport.Options{}), newNode(b, 1420, transport.Options{})
			if stream {
				laptop.gateway(b, gw, dialTo(gw.serve(b)))
			} else {
				laptop.gateway(b, gw, nil, gw.udpAddr())
			}
			gw.echo()
			f := newFlow(laptop, gw.addr, 64)
			seq := uint32(0)
			f.mustExchange(b, 0, 1)
			for b.Loop() {
				seq++
				if err := f.exchange(seq, time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
