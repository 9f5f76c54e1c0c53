package transport

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// hop is a relay between two TCP connections, as the API server and the kubelet
// are, with a wire behind it. The zero hop is as fast as the computer.
type hop struct {
	mbit  float64 // each way; 0: any
	delay time.Duration
}

// listen relays what comes to the address it returns on to the address to.
func (h hop) listen(t testing.TB, to string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wait.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				t.Errorf("relay to %s: %v", to, err)
				in.Close()
				return
			}
			context.AfterFunc(ctx, func() { in.Close(); out.Close() })
			wait.Go(func() { h.copy(out, in); out.Close() })
			wait.Go(func() { h.copy(in, out); in.Close() })
		}
	})
	t.Cleanup(func() { cancel(); ln.Close(); wait.Wait() })
	return ln.Addr().String()
}

// copy is one direction: 4 MiB of buffer, a sender with a rate, a wire with a
// length.
func (h hop) copy(to io.Writer, from io.Reader) {
	if h == (hop{}) {
		// As client-go, the API server and the kubelet: 32 KiB at a time.
		io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
		return
	}
	type chunk struct {
		b   []byte
		due time.Time
	}
	const size = 4 << 10
	buffer, wire := make(chan chunk, 1024), make(chan chunk, 4096)
	go func() {
		defer close(buffer)
		for {
			b := make([]byte, size)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			buffer <- chunk{b: b[:n]}
		}
	}()
	go func() {
		defer close(wire)
		free := time.Now()
		for c := range buffer {
			if now := time.Now(); now.Sub(free) > 5*time.Millisecond {
				free = now // not merely a sleep that was too long
			}
			if h.mbit > 0 {
				free = free.Add(time.Duration(float64(len(c.b)) * 8e3 / h.mbit))
				time.Sleep(time.Until(free))
			}
			wire <- chunk{c.b, free.Add(h.delay)}
		}
	}()
	var err error
	for c := range wire {
		if err == nil {
			time.Sleep(time.Until(c.due))
			_, err = to.Write(c.b)
		}
	}
}

// relayed is a stream's two ends with relays between them: laptop, wire, API
// server, kubelet, gateway.
func relayed(t testing.TB, wire hop) (laptop, gateway net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := hop{}.listen(t, ln.Addr().String()) // kubelet
	addr = hop{}.listen(t, addr)                // API server
	if wire != (hop{}) {
		addr = wire.listen(t, addr)
	}
	near, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far.(*net.TCPConn).SetReadBuffer(acceptedBuffer)
	return near, far
}

// start runs a carrier on nc until the test is over and calls f, from one
// goroutine, with every message that arrives.
func start(t testing.TB, nc net.Conn, f func(m []byte)) *carrier {
	var rx, tx atomic.Uint64
	c := newCarrier(NewBind(Options{}), nc, &rx, &tx)
	c.ep = &streamEndpoint{c: c}
	var wait sync.WaitGroup
	wait.Go(func() { c.run() })
	closed := make(chan struct{})
	wait.Go(func() {
		bufs, sizes, eps := make([][]byte, 64), make([]int, 64), make([]conn.Endpoint, 64)
		for i := range bufs {
			bufs[i] = make([]byte, maxFrame)
		}
		for {
			n, err := c.b.receiveStreams(closed, bufs, sizes, eps)
			if err != nil {
				return
			}
			for i := range n {
				f(bufs[i][:sizes[i]])
			}
		}
	})
	t.Cleanup(func() { c.close(errDown); close(closed); wait.Wait() })
	return c
}

// download sends bulk from the gateway to the laptop for d and a small datagram
// every 20 ms beside it. It returns bits per second and how long the small ones
// took one way, sorted.
func download(t testing.TB, laptop, gateway net.Conn, d time.Duration) (rate float64, took []time.Duration) {
	var got atomic.Int64
	var mu sync.Mutex
	begin := time.Now()
	start(t, laptop, func(m []byte) {
		got.Add(int64(len(m)))
		if len(m) == 40 {
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begin)-time.Duration(binary.BigEndian.Uint64(m[32:])))
		}
	})
	c := start(t, gateway, func([]byte) {})
	for known := false; !known; time.Sleep(time.Millisecond) {
		c.flow.mu.Lock()
		known = c.flow.out.Room() < math.MaxInt
		c.flow.mu.Unlock()
	}
	batch := [][]byte{message(16416, 2), message(16416, 3), message(16416, 4), message(16416, 5)}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { // in one goroutine, as the device
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case at := <-tick.C:
				m := message(40, 1)
				binary.BigEndian.PutUint64(m[32:], uint64(at.Sub(begin)))
				c.send([][]byte{m}, stop)
			case <-stop:
				return
			default:
				c.send(batch, stop)
			}
		}
	})
	time.Sleep(d)
	rate = float64(got.Load()) * 8 / time.Since(begin).Seconds()
	close(stop)
	wait.Wait()
	mu.Lock()
	defer mu.Unlock()
	took = slices.Clone(took)
	slices.Sort(took)
	return rate, took
}

func TestSmallDatagramsDoNotWaitBehindADownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		laptop, api := net.Pipe()
		kubelet, gateway := net.Pipe()
		wire := hop{50, 10 * time.Millisecond}
		var wait sync.WaitGroup
		t.Cleanup(wait.Wait)
		wait.Go(func() { wire.copy(api, kubelet); api.Close() })
		wait.Go(func() { wire.copy(kubelet, api); kubelet.Close() })
		rate, took := download(t, laptop, gateway, 10*time.Second)
		if rate < 0.95*50e6 {
			t.Errorf("%.1f Mbit/s of 50", rate/1e6)
		}
		// 10 ms of wire, 25 ms of queue on the way, and before that a batch.
		if p := took[len(took)*9/10]; p > 60*time.Millisecond {
			t.Errorf("a tenth of the small datagrams took more than %v", p)
		}
	})
}

// BenchmarkRelay is a download through the Kubernetes API for some seconds with
// small datagrams beside it, and how long these take one way. The wire is at the
// laptop's end; all other hops are as fast as this computer.
func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name string
		wire hop
	}{
		{"loopback", hop{}},
		{"500Mbit-20ms", hop{500, 10 * time.Millisecond}},
		{"50Mbit-20ms", hop{50, 10 * time.Millisecond}},
		{"50Mbit-150ms", hop{50, 75 * time.Millisecond}},
		{"5Mbit-20ms", hop{5, 10 * time.Millisecond}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				laptop, gateway := relayed(b, c.wire)
				rate, took := download(b, laptop, gateway, 8*time.Second)
				b.ReportMetric(rate/1e6, "Mbit/s")
				if n := len(took); n > 0 {
					b.ReportMetric(float64(took[n/2].Microseconds())/1000, "p50-ms")
					b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "p99-ms")
				}
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
