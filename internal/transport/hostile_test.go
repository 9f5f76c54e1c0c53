package transport_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/transport"
)

var hello = []byte{'p', 'o', 'd', 'n', 'e', 't', 0, 1}

// visit opens a stream by hand.
func visit(t testing.TB, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, hello) {
		t.Fatalf("greeted with %q, %v", got, err)
	}
	if _, err := io.ReadFull(c, make([]byte, 14)); err != nil { // an acknowledgement of nothing
		t.Fatal(err)
	}
	return c
}

// wantEnd checks that c is closed within d, without a byte more.
func wantEnd(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	n, err := c.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); n > 0 || err == nil || ok && ne.Timeout() {
		t.Errorf("read %d bytes, %v; want the stream closed within %v", n, err, d)
	}
}

// lines counts what is logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(with string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.SplitSeq(l.b.String(), "\n") {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

func TestGarbageClosesTheStreamAtOnce(t *testing.T) {
	var log lines
	gw := newNode(t, 1420, transport.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	a := gw.serve(t)
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
		"SSH-2.0-OpenSSH_9.2\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\x00",
		"podneT",
	} {
		c, err := net.Dial(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(garbage))
		wantEnd(t, c, time.Second)
		c.Close()
	}
	for _, garbage := range [][]byte{{0, 0}, {0, 4, 1, 2, 3, 4}, bytes.Repeat([]byte{0xff}, 70000)} {
		c := visit(t, a)
		c.Write(garbage)
		wantEnd(t, c, time.Second)
	}
	for start := time.Now(); log.count("stream closed") < 8 && time.Since(start) < 3*time.Second; {
		time.Sleep(5 * time.Millisecond) // the last line may be on its way
	}
	if n := log.count("stream closed"); n != 8 {
		t.Errorf("%d lines for 8 streams", n)
	}
	if n := log.count("level=INFO") + log.count("level=WARN") + log.count("level=ERROR"); n != 0 {
		t.Errorf("%d lines above debug", n)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	gw := newNode(t, 1420, transport.Options{MaxStreams: 3})
	a := gw.serve(t)
	var in []net.Conn
	for range 3 {
		in = append(in, visit(t, a))
	}
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantEnd(t, c, time.Second)
	in[0].Close()
	time.Sleep(50 * time.Millisecond)
	visit(t, a) // the place is free again
}

func TestEndOfServiceClosesStreams(t *testing.T) {
	b := transport.NewBind(transport.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.ServeStreams(ctx, ln) }()
	c := visit(t, ln.Addr())
	silent, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantEnd(t, c, time.Second)
	wantEnd(t, silent, time.Second)
	ln.Close()
	if err := b.ServeStreams(context.Background(), ln); err == nil {
		t.Error("a closed listener was served")
	}
}

// Strangers who can speak the stream protocol but have no key fill 200 streams
// with what looks like WireGuard. Somebody with a key works on.
func TestTwoHundredStreams(t *testing.T) {
	laptop, gw := newNode(t, 1420, transport.Options{}), newNode(t, 1420, transport.Options{})
	a := gw.serve(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	var sent atomic.Uint64
	for i := range 200 {
		c := visit(t, a)
		wait.Go(func() {
			rnd := rand.NewChaCha8([32]byte{byte(i)})
			m := make([]byte, 2+148)
			for ctx.Err() == nil {
				rnd.Read(m)
				size := []int{148, 92, 64, 112}[i%4]
				binary.BigEndian.PutUint16(m, uint16(size))
				copy(m[2:], []byte{byte(1 + i%4), 0, 0, 0})
				if _, err := c.Write(m[:2+size]); err != nil {
					t.Errorf("stream %d was closed: %v", i, err)
					return
				}
				sent.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	laptop.gateway(t, gw, dialTo(a))
	gw.echo()
	f := newFlow(laptop, gw.addr, 1000)
	// Among so many initiations the first handshake may need a cookie, for
	// which WireGuard takes its 5 s.
	f.mustExchange(t, 0, 1)
	f.stall = 0
	for start, seq := time.Now(), uint32(1); time.Since(start) < 2*time.Second; seq++ {
		f.mustExchange(t, seq, seq+1)
	}
	if f.stall > 3*time.Second {
		t.Errorf("longest stall %v", f.stall)
	}
	t.Logf("longest stall %v among %d messages of strangers", f.stall, sent.Load())
}

// Real peers, many at once, each on a stream of its own; they share nothing.
func TestManyLaptops(t *testing.T) {
	gw := newNode(t, 1420, transport.Options{})
	a := gw.serve(t)
	gw.echo()
	const n = 20
	laptops := make([]*node, n)
	for i := range laptops {
		laptops[i] = newNode(t, 1420, transport.Options{})
	}
	setAll(t, gw, laptops)
	var wait sync.WaitGroup
	for _, l := range laptops {
		l.reach(t, gw, dialTo(a))
		wait.Go(func() {
			f := newFlow(l, gw.addr, 500)
			for seq := range uint32(50) {
				if err := f.exchange(seq, 8*time.Second); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	ps, err := gw.tnl.Stats()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range ps {
		host, _, err := net.SplitHostPort(p.Endpoint)
		if err != nil || seen[host] {
			t.Errorf("endpoint %q of %s is not its own", p.Endpoint, p.PublicKey.Short())
		}
		seen[host] = true
	}
}

// A laptop that has gone to sleep with a download running must not hold up the
// others for longer than a moment.
func TestStalledLaptopDoesNotStallOthers(t *testing.T) {
	gw := newNode(t, 16384, transport.Options{})
	a := gw.serve(t)
	sleeper, awake := newNode(t, 16384, transport.Options{}), newNode(t, 16384, transport.Options{})
	setAll(t, gw, []*node{sleeper, awake})
	stalled := make(chan struct{})
	for _, l := range []*node{sleeper, awake} {
		dial := dialTo(a)
		if l == sleeper {
			dial = func(ctx context.Context) (net.Conn, error) {
				c, err := dialTo(a)(ctx)
				return &sleepyConn{Conn: c, asleep: stalled, closed: make(chan struct{})}, err
			}
		}
		l.reach(t, gw, dial)
	}
	gw.echo()
	newFlow(sleeper, gw.addr, 100).mustExchange(t, 0, 1)
	f := newFlow(awake, gw.addr, 100)
	f.mustExchange(t, 0, 100)
	close(stalled)

	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		for ctx.Err() == nil {
			gw.tun.send(packet(gw.addr, sleeper.addr, make([]byte, 16000)))
		}
	})
	f.stall = 0
	for start, seq := time.Now(), uint32(100); time.Since(start) < 5*time.Second; seq++ {
		f.mustExchange(t, seq, seq+1)
	}
	if f.stall > 3*time.Second {
		t.Errorf("the other laptop stood still for %v", f.stall)
	}
	t.Logf("longest stall of the other laptop %v", f.stall)
}

// sleepyConn reads nothing any more once asleep is closed.
type sleepyConn struct {
	net.Conn
	asleep <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *sleepyConn) Read(p []byte) (int, error) {
	select {
	case <-c.asleep:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

func (c *sleepyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// The gateway says nothing to who has no key: not by UDP either.
func TestGarbageDatagramsAreNotAnswered(t *testing.T) {
	laptop, gw := newNode(t, 1420, transport.Options{}), newNode(t, 1420, transport.Options{})
	g := laptop.gateway(t, gw, nil, gw.udpAddr())
	gw.echo()
	f := newFlow(laptop, gw.addr, 1000)
	f.mustExchange(t, 0, 10)
	c, err := net.Dial("udp4", gw.udpAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rnd := rand.NewChaCha8([32]byte{})
	for i := range 5000 {
		m := make([]byte, 1+i%1600)
		rnd.Read(m)
		if i%2 == 0 && len(m) > 4 {
			copy(m, []byte{byte(1 + i%5), 0, 0, 0})
		}
		c.Write(m)
		if i%500 == 0 {
			f.mustExchange(t, uint32(100+i), uint32(101+i))
		}
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := c.Read(make([]byte, 2000)); err == nil {
		t.Errorf("garbage was answered with %d bytes", n)
	}
	wantEndpoint(t, laptop, g.Endpoint())
}
