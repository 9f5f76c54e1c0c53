package transport_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/transport"
)

// town is a laptop with two ways to a gateway: a NAT's UDP and a stream.
type town struct {
	laptop, gw *node
	nat        *nat
	g          *transport.Gateway

	mu    sync.Mutex
	conns []net.Conn
}

func newTown(t testing.TB, mtu int) *town { return newBadTown(t, mtu, nil) }

// newBadTown has a NAT that loses datagrams from the start.
func newBadTown(t testing.TB, mtu int, lose func(toServer bool, size int) bool) *town {
	t.Helper()
	w := &town{laptop: newNode(t, mtu, transport.Options{}), gw: newNode(t, mtu, transport.Options{})}
	w.nat = newNAT(t, w.gw.udpAddr())
	w.nat.lose(lose)
	dial := dialTo(w.gw.serve(t))
	w.g = w.laptop.gateway(t, w.gw, func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		if err == nil {
			w.mu.Lock()
			w.conns = append(w.conns, c)
			w.mu.Unlock()
		}
		return c, err
	}, w.nat.addr())
	return w
}

// cutStreams ends all streams that there are.
func (w *town) cutStreams() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// tooLong is a stall that no busy machine explains. What the stalls are on an idle
// one is printed; WireGuard itself waits 5 s when a handshake is lost.
const tooLong = 8 * time.Second

// during keeps a conversation going while f runs, and returns its longest stall.
func (w *town) during(t *testing.T, f func()) time.Duration {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	w.gw.echo()
	talk := newFlow(w.laptop, w.gw.addr, 1000)
	for seq, last := uint32(0), false; !last; seq++ {
		select {
		case <-done:
			last = true
		default:
		}
		talk.mustExchange(t, seq, seq+1)
	}
	return talk.stall
}

func everything(bool, int) bool { return true }

// The story that all this is for: UDP dies, without a word, and the stream takes
// over; UDP comes back and is taken back.
func TestUDPDiesAndComesBack(t *testing.T) {
	for name, lose := range map[string]func(bool, int) bool{
		"both ways":    everything,
		"to gateway":   func(toServer bool, _ int) bool { return toServer },
		"from gateway": func(toServer bool, _ int) bool { return !toServer },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTown(t, 1280)
			stall := w.during(t, func() {
				wantKind(t, w.g, transport.UDP, 10*time.Second)
				time.Sleep(time.Second)
				start := time.Now()
				w.nat.lose(lose)
				wantKind(t, w.g, transport.APIServer, 3*time.Second)
				t.Logf("moved to the stream after %v", time.Since(start))
				time.Sleep(time.Second)
				start = time.Now()
				w.nat.lose(nil)
				wantKind(t, w.g, transport.UDP, 15*time.Second)
				t.Logf("moved back after %v", time.Since(start))
				time.Sleep(1500 * time.Millisecond)
			})
			if stall > tooLong {
				t.Errorf("longest stall %v", stall)
			}
			t.Logf("longest stall %v", stall)
			wantEndpoint(t, w.laptop, w.g.Endpoint())
		})
	}
}

func TestStreamStandsByWhileUDPCarries(t *testing.T) {
	w := newTown(t, 1280)
	stall := w.during(t, func() {
		wantKind(t, w.g, transport.UDP, 10*time.Second)
		standsBy := func(redials int) {
			t.Helper()
			for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				st := w.g.Status()
				if st.Active.Kind == transport.UDP && len(st.Paths) == 2 && st.Paths[1].Live && st.Paths[1].Redials >= redials {
					return
				}
				if time.Since(start) > 10*time.Second {
					t.Fatalf("status = %+v", st)
				}
			}
		}
		standsBy(0)
		w.cutStreams()
		standsBy(1)
	})
	t.Logf("longest stall %v", stall)
	if stall > tooLong {
		t.Errorf("the end of a stream that carried nothing stalled UDP for %v", stall)
	}
}

func TestNATRebinds(t *testing.T) {
	w := newTown(t, 1280)
	stall := w.during(t, func() {
		wantKind(t, w.g, transport.UDP, 10*time.Second)
		for range 3 {
			w.nat.rebind()
			time.Sleep(300 * time.Millisecond)
		}
		if st := w.g.Status(); st.Active.Kind != transport.UDP || st.Observed.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("status = %+v", st)
		}
	})
	t.Logf("longest stall %v", stall)
}

// above loses datagrams that are longer than limit, like a link that tells
// nobody.
func above(limit int) func(bool, int) bool {
	return func(_ bool, size int) bool { return size > limit }
}

// The path takes 1280 bytes, UDP and IP headers included, and no router says so.
// What WireGuard makes of an inner packet of 1280 is longer than that.
func TestPathOf1280(t *testing.T) {
	w := newBadTown(t, 1280, above(1232))
	st := wantKind(t, w.g, transport.UDP, 10*time.Second)
	if st.Datagram != paths.MinDatagram {
		t.Errorf("datagrams of %d bytes, want %d", st.Datagram, paths.MinDatagram)
	}
	w.gw.echo()
	newFlow(w.laptop, w.gw.addr, 1240).mustExchange(t, 0, 500)
	if st := w.g.Status().Active; st.Kind != transport.UDP || st.Redials != 0 {
		t.Errorf("status = %+v", st)
	}
}

// The black hole opens in the middle of a session, first for what a TUN of 1420
// makes.
func TestPathShrinksAndGrows(t *testing.T) {
	w := newTown(t, 1420)
	stall := w.during(t, func() {
		for start := time.Now(); w.g.Status().Active.Datagram != paths.MaxDatagram; time.Sleep(20 * time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Errorf("status = %+v", w.g.Status())
				return
			}
		}
		w.nat.lose(above(1300))
		for start := time.Now(); w.g.Status().Active.Datagram != paths.MinDatagram; time.Sleep(20 * time.Millisecond) {
			if time.Since(start) > 15*time.Second {
				t.Errorf("status = %+v", w.g.Status())
				return
			}
		}
	})
	// A conversation of short messages did not notice.
	if stall > tooLong {
		t.Errorf("longest stall %v", stall)
	}
	newFlow(w.laptop, w.gw.addr, 1380).mustExchange(t, 0, 100)
}

// A Gateway to another pod may have the address of the one before.
func TestTwoGatewaysAtOneAddress(t *testing.T) {
	laptop, old, young := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
	nat := newNAT(t, old.udpAddr())
	first := laptop.gateway(t, old, nil, nat.addr())
	old.echo()
	newFlow(laptop, old.addr, 500).mustExchange(t, 0, 10)

	nat.aim(young.udpAddr())
	second := laptop.gateway(t, young, nil, nat.addr())
	young.echo()
	f := newFlow(laptop, young.addr, 500)
	f.mustExchange(t, 0, 10)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	f.mustExchange(t, 10, 100)
	st := second.Status()
	if st.Active.Kind != transport.UDP || st.Active.RxBytes < 100*500 {
		t.Errorf("status = %+v", st)
	}
}

func TestDrainingIsToldAtOnce(t *testing.T) {
	w := newTown(t, 1280)
	wantKind(t, w.g, transport.UDP, 10*time.Second)
	time.Sleep(time.Second) // all is quiet
	w.gw.bind.Drain()
	for start := time.Now(); !w.g.Status().Draining; {
		select {
		case <-w.g.Changed():
		case <-time.After(time.Second):
		}
		if d := time.Since(start); d > 300*time.Millisecond {
			t.Fatalf("not told within %v", d)
		}
	}
}

// The gateway pings a laptop that has no address of it: the way is found all the
// same, because the gateway's address is where the ping comes from.
func TestPunchedPathIsFound(t *testing.T) {
	laptop, gw := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
	g := laptop.gateway(t, gw, dialTo(gw.serve(t)))
	wantKind(t, g, transport.APIServer, 5*time.Second)
	id := laptop.probeKey(gw).ID()
	if at, kind := gw.bind.LastProbe(id); time.Since(at) > time.Second || kind != transport.APIServer {
		t.Errorf("last probe by %q at %v", kind, at)
	}
	gw.bind.Punch(id, []netip.AddrPort{laptop.udpAddr(), netip.MustParseAddrPort("127.0.0.1:9")})
	st := wantKind(t, g, transport.UDP, 3*time.Second)
	if st.Remote != gw.udpAddr().String() {
		t.Errorf("status = %+v", st)
	}
	gw.echo()
	newFlow(laptop, gw.addr, 1000).mustExchange(t, 0, 100)
	if _, kind := gw.bind.LastProbe(id); kind != transport.UDP {
		t.Errorf("last probe by %q", kind)
	}
	// The address was not ours to name, but is now.
	g.SetUDP([]netip.AddrPort{gw.udpAddr()})
	g.SetUDP(nil)
	wantKind(t, g, transport.APIServer, 3*time.Second)
}

// A peer that is not admitted any more gets no answers, and finds out.
func TestForgottenProberFindsOut(t *testing.T) {
	w := newTown(t, 1280)
	wantKind(t, w.g, transport.UDP, 10*time.Second)
	w.gw.answer()
	wantKind(t, w.g, "", 5*time.Second)
	if at, _ := w.gw.bind.LastProbe(w.laptop.probeKey(w.gw).ID()); !at.IsZero() {
		t.Error("the gateway remembers")
	}
	w.gw.answer(w.laptop)
	wantKind(t, w.g, transport.UDP, 10*time.Second)
}

// A download only, with the stream dead in the middle of it and nobody reading:
// senders that wait for it are set free when UDP takes over.
func TestMoveFreesThoseWhoWait(t *testing.T) {
	laptop, gw := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
	asleep := make(chan struct{})
	dial := dialTo(gw.serve(t))
	nat := newNAT(t, gw.udpAddr())
	nat.lose(everything)
	g := laptop.gateway(t, gw, func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return &stuckConn{Conn: c, stuck: asleep, closed: make(chan struct{})}, err
	}, nat.addr())
	wantKind(t, g, transport.APIServer, 5*time.Second)
	gw.echo()
	f := newFlow(laptop, gw.addr, 1000)
	f.mustExchange(t, 0, 10)
	close(asleep)
	nat.lose(nil)
	start := time.Now()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { // an upload that fills the stream
		for {
			select {
			case <-stop:
				return
			default:
				laptop.tun.send(packet(laptop.addr, gw.addr, make([]byte, 1200)))
			}
		}
	})
	wantKind(t, g, transport.UDP, 10*time.Second)
	t.Logf("moved after %v", time.Since(start))
	start = time.Now()
	close(stop)
	wait.Wait()
	f.mustExchange(t, 10, 11)
	if d := time.Since(start); d > time.Second {
		t.Errorf("the first message by UDP took %v", d)
	}
}

// stuckConn writes nothing any more, and waits, once stuck is closed.
type stuckConn struct {
	net.Conn
	stuck  <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *stuckConn) Write(p []byte) (int, error) {
	select {
	case <-c.stuck:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(p)
	}
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Loss is no death. (internal/paths simulates hours of it.)
func TestLossDoesNotMove(t *testing.T) {
	w := newTown(t, 1280)
	wantKind(t, w.g, transport.UDP, 10*time.Second)
	time.Sleep(time.Second)
	since := w.g.Status().Active.Since
	var n atomic.Uint32
	w.nat.lose(func(bool, int) bool { return n.Add(1)%25 == 0 })
	w.during(t, func() {
		for start := time.Now(); time.Since(start) < 4*time.Second; time.Sleep(50 * time.Millisecond) {
			if st := w.g.Status().Active; st.Kind != transport.UDP || st.Since != since {
				t.Errorf("moved: %+v", w.g.Status())
				return
			}
		}
	})
}

// Close does not wait for what the network may never do.
func TestCloseWithEverythingDead(t *testing.T) {
	w := newTown(t, 1280)
	wantKind(t, w.g, transport.UDP, 10*time.Second)
	w.nat.lose(everything)
	w.cutStreams()
	start := time.Now()
	if err := w.g.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	if _, err := w.laptop.bind.ParseEndpoint(w.g.Endpoint()); err == nil {
		t.Error("still an endpoint")
	}
	if st := w.g.Status(); st.Active.Kind != "" {
		t.Errorf("status = %+v", st)
	}
	w.g.SetUDP([]netip.AddrPort{w.nat.addr()})
	w.g.Rouse()
}

func TestOnlyOneKind(t *testing.T) {
	laptop, gw := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
	gw.answer(laptop)
	for _, only := range []transport.Kind{transport.UDP, transport.APIServer} {
		g := laptop.bind.NewGateway(transport.GatewayConfig{Key: laptop.probeKey(gw), Only: only, Stream: dialTo(gw.serve(t))})
		g.SetUDP([]netip.AddrPort{gw.udpAddr()})
		wantKind(t, g, only, 5*time.Second)
		if st := g.Status(); len(st.Paths) != 1 {
			t.Errorf("only %s: %+v", only, st)
		}
		g.Close()
	}
}
