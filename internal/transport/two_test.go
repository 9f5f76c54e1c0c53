package transport_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// memTUN is a tun.Device whose host side is two functions: in gives the device a
// packet, out is called with each that it delivers.
type memTUN struct {
	mtu    int
	in     chan []byte
	out    func([]byte)
	events chan tun.Event
	closed chan struct{}
	once   sync.Once
}

func newMemTUN(mtu int, out func([]byte)) *memTUN {
	return &memTUN{mtu: mtu, in: make(chan []byte, 16), out: out, events: make(chan tun.Event), closed: make(chan struct{})}
}

func (t *memTUN) File() *os.File           { return nil }
func (t *memTUN) MTU() (int, error)        { return t.mtu, nil }
func (t *memTUN) Name() (string, error)    { return "mem", nil }
func (t *memTUN) Events() <-chan tun.Event { return t.events }
func (t *memTUN) BatchSize() int           { return 64 }
func (t *memTUN) Close() error {
	t.once.Do(func() { close(t.closed); close(t.events) })
	return nil
}

func (t *memTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := 0
	for n < len(bufs) {
		if n == 0 {
			select {
			case p := <-t.in:
				sizes[n] = copy(bufs[n][offset:], p)
			case <-t.closed:
				return 0, os.ErrClosed
			}
		} else {
			select {
			case p := <-t.in:
				sizes[n] = copy(bufs[n][offset:], p)
			default:
				return n, nil
			}
		}
		n++
	}
	return n, nil
}

func (t *memTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		t.out(b[offset:])
	}
	return len(bufs), nil
}

func (t *memTUN) send(p []byte) {
	select {
	case t.in <- p:
	case <-t.closed:
	}
}

// packet is an IPv6 packet of no particular protocol.
func packet(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 40+len(payload))
	p[0], p[6], p[7] = 6<<4, 253, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	copy(p[40:], payload)
	return p
}

// node is a whole tunnel in this process.
type node struct {
	t    testing.TB
	key  key.Private
	addr netip.Addr
	tun  *memTUN
	bind *transport.Bind
	tnl  *tunnel.Tunnel

	mu  sync.Mutex
	got func(src netip.Addr, payload []byte)
}

func newNode(t testing.TB, mtu int, opt transport.Options) *node {
	t.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() && os.Getenv("TRANSPORT_LOG") != "" {
		opt.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", k.Public().Short())
	}
	n := &node{t: t, key: k, addr: k.Public().Address6(), bind: transport.NewBind(opt)}
	n.tun = newMemTUN(mtu, func(p []byte) {
		n.mu.Lock()
		f := n.got
		n.mu.Unlock()
		if f != nil {
			f(netip.AddrFrom16([16]byte(p[8:24])), p[40:])
		}
	})
	n.tnl, err = tunnel.New(n.tun, n.bind, tunnel.Config{PrivateKey: k, Log: opt.Log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.tnl.Close() })
	return n
}

func (n *node) public() key.Public { return n.key.Public() }

func (n *node) onPacket(f func(src netip.Addr, payload []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = f
}

// echo makes n send every packet back.
func (n *node) echo() {
	n.onPacket(func(src netip.Addr, payload []byte) {
		n.tun.send(packet(n.addr, src, payload))
	})
}

func (n *node) peers(ps ...tunnel.Peer) {
	n.t.Helper()
	if err := n.tnl.SetPeers(ps); err != nil {
		n.t.Fatal(err)
	}
}

// peer is how others configure n.
func (n *node) peer(endpoint string) tunnel.Peer {
	return tunnel.Peer{
		PublicKey: n.public(), Endpoint: endpoint,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(n.addr, 128)},
	}
}

func (n *node) udpAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), n.tnl.ListenPort())
}

// serve makes n accept streams on a TCP port of its own.
func (n *node) serve(t testing.TB) net.Addr {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.serveOn(t, ln)
	return ln.Addr()
}

func (n *node) serveOn(t testing.TB, ln net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.bind.ServeStreams(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve streams: %v", err)
		}
	})
}

func dialTo(a net.Addr) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, a.Network(), a.String())
	}
}

// probeKey is the key of n's and g's probes.
func (n *node) probeKey(g *node) probe.Key {
	n.t.Helper()
	k, err := probe.NewKey(n.key, g.public())
	if err != nil {
		n.t.Fatal(err)
	}
	return k
}

// answer makes g answer the probes of laptops, and of no others.
func (g *node) answer(laptops ...*node) {
	var keys []probe.Key
	for _, l := range laptops {
		keys = append(keys, g.probeKey(l))
	}
	g.bind.Answer(keys)
}

// dialer opens the stream of the apiserver path.
type dialer = func(context.Context) (net.Conn, error)

// reach gives n a Gateway that leads to g, and to which g's side still has to be
// told of n.
func (n *node) reach(t testing.TB, g *node, stream dialer, udp ...netip.AddrPort) *transport.Gateway {
	gw := n.bind.NewGateway(transport.GatewayConfig{Key: n.probeKey(g), Stream: stream})
	t.Cleanup(func() { gw.Close() })
	gw.SetUDP(udp)
	n.peers(g.peer(gw.Endpoint()))
	return gw
}

// gateway gives n a Gateway that leads to g, and makes n g's only laptop.
func (n *node) gateway(t testing.TB, g *node, stream dialer, udp ...netip.AddrPort) *transport.Gateway {
	g.answer(n)
	g.peers(n.peer(""))
	return n.reach(t, g, stream, udp...)
}

// wantKind waits until the active path of g is of kind k.
func wantKind(t testing.TB, g *transport.Gateway, k transport.Kind, limit time.Duration) transport.PathStatus {
	t.Helper()
	for start := time.Now(); ; {
		st := g.Status()
		if st.Active.Kind == k {
			return st.Active
		}
		left := limit - time.Since(start)
		if left <= 0 {
			t.Fatalf("the path is %q, not %q, after %v: %+v", st.Active.Kind, k, limit, st.Paths)
		}
		select {
		case <-g.Changed():
		case <-time.After(min(left, 50*time.Millisecond)):
		}
	}
}

// flow is a conversation inside the tunnel that numbers its messages, repeats
// what is not answered and so ends only when all have arrived.
type flow struct {
	n     *node
	to    netip.Addr
	size  int
	acked chan uint32
	stall time.Duration // the longest time to an answer
}

func newFlow(n *node, to netip.Addr, size int) *flow {
	f := &flow{n: n, to: to, size: size, acked: make(chan uint32, 1024)}
	n.onPacket(func(_ netip.Addr, p []byte) {
		select {
		case f.acked <- binary.BigEndian.Uint32(p):
		default:
		}
	})
	return f
}

// exchange has message seq answered within limit.
func (f *flow) exchange(seq uint32, limit time.Duration) error {
	p := make([]byte, f.size)
	for i := range p {
		p[i] = byte(i) + byte(seq)
	}
	binary.BigEndian.PutUint32(p, seq)
	start := time.Now()
	for again := 5 * time.Millisecond; ; again = min(2*again, 100*time.Millisecond) {
		f.n.tun.send(packet(f.n.addr, f.to, p))
		wait := time.After(again)
	answers:
		for {
			select {
			case got := <-f.acked:
				if got == seq {
					f.stall = max(f.stall, time.Since(start))
					return nil
				}
			case <-wait:
				break answers
			}
		}
		if d := time.Since(start); d > limit {
			return fmt.Errorf("message %d not answered within %v", seq, d)
		}
	}
}

func (f *flow) mustExchange(t testing.TB, from, to uint32) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := f.exchange(i, 8*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

func mustHandshake(t testing.TB, n *node, with key.Public) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	if err := n.tnl.WaitHandshake(ctx, with); err != nil {
		t.Fatal(err)
	}
}

// setAll makes the laptops n's peers.
func setAll(t testing.TB, n *node, laptops []*node) {
	t.Helper()
	n.answer(laptops...)
	var ps []tunnel.Peer
	for _, l := range laptops {
		ps = append(ps, l.peer(""))
	}
	n.peers(ps...)
}
