package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/remap"
)

// mapped makes a Map of "REAL VIRTUAL" texts.
func mapped(t *testing.T, texts ...string) remap.Map {
	t.Helper()
	var pairs []remap.Pair
	for _, s := range texts {
		real, virtual, _ := strings.Cut(s, " ")
		p, err := remap.ParsePair(real, virtual)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
	}
	m, err := remap.Parse(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// usual maps the pods of these tests, and what the policy denies.
func usual(t *testing.T) remap.Map {
	return mapped(t, "10.244.0.0/16 100.64.0.0/16", "fd00:10:244::/64 fdaa:bb::/64")
}

func bothOf(m remap.Map) map[netip.Addr]remap.Map {
	return map[netip.Addr]remap.Map{laptop4: m, laptop6: m}
}

// asked is a policy that remembers what it was asked about and said yes to.
type asked struct {
	allows func(netip.Addr) bool

	mu  sync.Mutex
	yes map[netip.AddrPort]bool
	all map[netip.Addr]bool
}

func newAsked(allows func(netip.Addr) bool) *asked {
	return &asked{allows: allows, yes: map[netip.AddrPort]bool{}, all: map[netip.Addr]bool{}}
}

func (p *asked) Allow(_ netip.Addr, _ forward.Proto, dst netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[dst.Addr()] = true
	if !p.allows(dst.Addr()) {
		return false
	}
	p.yes[dst] = true
	return true
}

func (p *asked) allowed(a netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.yes[a]
}

// A pod at a virtual address looks as it does at its real one.
func TestVirtualAddresses(t *testing.T) {
	for _, c := range []struct {
		name         string
		m            remap.Map
		pod, virtual netip.Addr
	}{
		{"IPv4", usual(t), pod4, netip.MustParseAddr("100.64.0.17")},
		{"IPv6", usual(t), pod6, netip.MustParseAddr("fdaa:bb::17")},
		{"reserved", mapped(t, "10.244.0.0/16 240.7.0.0/16"), pod4, netip.MustParseAddr("240.7.0.17")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.f.SetMaps(bothOf(c.m))
			const size = 3 << 20
			open := listen(t, c.pod, func(s *net.TCPConn) {
				_, _ = io.Copy(s, s)
				_ = s.CloseWrite()
			})
			conn := w.dial(t, at(c.virtual, open))
			if got := conn.RemoteAddr().String(); got != at(c.virtual, open).String() {
				t.Errorf("the laptop speaks to %s", got)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = io.Copy(conn, stream(1, size))
				_ = conn.CloseWrite()
			})
			if got := digest(t, conn); got != digest(t, stream(1, size)) {
				t.Error("it came back changed")
			}
			wg.Wait()

			server, socket := udpEcho(t, c.pod)
			u, err := w.laptop.DialUDP(at(c.virtual, server))
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			for _, n := range []int{0, 1, 1392, 1500, 9000, 60000} { // the last three in fragments
				if err := echoOf(u, n); err != nil {
					t.Errorf("a datagram of %d bytes: %v", n, err)
				}
			}
			_ = socket.Close()
			// The laptop's stack believes only an error that quotes what it sent.
			if err := echoOf(u, 10); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a closed port of UDP: %v", err)
			}
			for what, to := range map[string]struct {
				at   netip.AddrPort
				want error
			}{
				"a closed port":             {netip.AddrPortFrom(c.virtual, closedPort(t)), syscall.ECONNREFUSED},
				"what the policy denies":    {at(netip.MustParseAddr("100.64.9.9"), open), syscall.EHOSTUNREACH},
				"the reserved one likewise": {at(netip.MustParseAddr("240.7.9.9"), open), syscall.EHOSTUNREACH},
			} {
				virtual := to.at.Addr()
				if _, is := c.m.Real(virtual); !is {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				_, err := w.laptop.DialTCP(ctx, to.at)
				cancel()
				if !errors.Is(err, to.want) {
					t.Errorf("%s: %v, want %v", what, err, to.want)
				}
			}
			// By its real address a pod can be reached as well.
			if err := echoOf(w.dial(t, open), 10); err != nil {
				t.Errorf("by its real address: %v", err)
			}
		})
	}
}

// The policy never hears of virtual addresses, and the peer never of real ones.
func TestNobodyMistakesVirtualForReal(t *testing.T) {
	p := newAsked(func(netip.Addr) bool { return false })
	w := newTap(t, p)
	w.f.SetMaps(bothOf(usual(t)))
	for _, a := range []struct{ peer, pod netip.Addr }{
		{laptop4, netip.MustParseAddr("100.64.0.17")}, {laptop6, netip.MustParseAddr("fdaa:bb::17")},
	} {
		src, dst := netip.AddrPortFrom(a.peer, 4000), netip.AddrPortFrom(a.pod, 80)
		for _, b := range [][]byte{synPacket(src, dst), udpPacket(src, dst, "hello"), echoPacket(a.peer, a.pod, 7, 1, "ping")} {
			w.send(b)
			w.wantUnreachable(b, 13, 1)
		}
	}
	if len(p.all) != 2 || !p.all[pod4] || !p.all[pod6] {
		t.Errorf("the policy was asked about %v", p.all)
	}
}

// What the kernel says about the real target, the peer hears about the virtual one.
func TestUnreachableVirtualTargets(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := newTap(t, &policy{})
	w.f.SetMaps(bothOf(mapped(t, "10.1.0.0/24 100.70.1.0/24")))
	for addr, code := range map[string]byte{
		"100.70.1.1": 1,  // host unreachable
		"100.70.1.2": 13, // prohibited
		"100.70.1.3": 0,  // no route
	} {
		src, dst := netip.AddrPortFrom(laptop4, 4000), netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		for _, b := range [][]byte{synPacket(src, dst), udpPacket(src, dst, "hello"), echoPacket(src.Addr(), dst.Addr(), 7, 1, "ping")} {
			w.send(b)
			w.wantUnreachable(b, code, 0)
		}
	}
}

func TestPingVirtual(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := newTap(t, &policy{})
	w.f.SetMaps(bothOf(usual(t)))
	for _, a := range []struct{ peer, pod netip.Addr }{
		{laptop4, netip.MustParseAddr("100.64.0.17")}, {laptop6, netip.MustParseAddr("fdaa:bb::17")},
	} {
		b := echoPacket(a.peer, a.pod, 77, 3, "are you there?")
		w.send(b)
		e := w.read()
		c := e.Payload()
		want := map[bool]byte{false: 0, true: 129}[e.Is6()]
		if e.Src != a.pod || e.Dst != a.peer || c[0] != want || string(c[4:]) != string(b[len(b)-18:]) {
			t.Errorf("echo reply %v to %v: % x", e.Src, e.Dst, c)
		}
	}
}

// Each peer has its own addresses: one and the same leads two peers to two pods.
func TestMapsArePerPeer(t *testing.T) {
	other := netip.MustParseAddr("198.18.0.10")
	seen := make(chan string, 2)
	w := newTap(t, newAsked(func(a netip.Addr) bool {
		seen <- a.String()
		return false
	}))
	w.f.SetMaps(map[netip.Addr]remap.Map{
		laptop4: mapped(t, "10.244.0.0/16 100.64.0.0/16"), other: mapped(t, "10.96.0.0/16 100.64.0.0/16"),
	})
	to := netip.MustParseAddrPort("100.64.0.17:80")
	for peer, want := range map[netip.Addr]string{laptop4: "10.244.0.17", other: "10.96.0.17", netip.MustParseAddr("198.18.0.11"): "100.64.0.17"} {
		b := udpPacket(netip.AddrPortFrom(peer, 4000), to, "hello")
		w.send(b)
		w.wantUnreachable(b, 13, 1)
		if got := <-seen; got != want {
			t.Errorf("%s is led to %s, want %s", peer, got, want)
		}
	}
}

// recording is an exit that tells where it was asked to go.
type recording struct {
	exit
	mu sync.Mutex
	to []netip.AddrPort
}

func (e *recording) note(to netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.to = append(e.to, to)
}

func (e *recording) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	e.note(to)
	return e.exit.DialTCP(ctx, to)
}

func (e *recording) DialUDP(ctx context.Context, to netip.AddrPort) (forward.Datagrams, error) {
	e.note(to)
	return e.exit.DialUDP(ctx, to)
}

// An exit knows real addresses only.
func TestVirtualAddressesThroughAnExit(t *testing.T) {
	w := newWorld(t)
	e := &recording{}
	w.leave(e)
	w.f.SetMaps(bothOf(mapped(t, "203.0.113.0/24 100.64.7.0/24")))
	virtual := netip.MustParseAddr("100.64.7.17") // of elsewhere
	open := listen(t, pod4, echo)
	if err := echoOf(w.dial(t, at(virtual, open)), 100); err != nil {
		t.Error(err)
	}
	server, _ := udpEcho(t, pod4)
	u, err := w.laptop.DialUDP(at(virtual, server))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := echoOf(u, 1200); err != nil {
		t.Error(err)
	}
	refused, err := w.laptop.DialUDP(netip.AddrPortFrom(virtual, closedPort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	if err := echoOf(refused, 10); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port of UDP: %v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.to) != 3 || slices.ContainsFunc(e.to, func(a netip.AddrPort) bool { return a.Addr() != elsewhere }) {
		t.Errorf("the exit was asked for %v", e.to)
	}
}

// A map that changes ends what would lead elsewhere, and nothing else.
func TestMapsChangeUnderOpenFlows(t *testing.T) {
	w := newWorld(t)
	tcp := listen(t, pod4, echo)
	udp, _ := udpEcho(t, pod4)
	virtual := netip.MustParseAddr("100.64.0.17")
	pods := usual(t)
	more := mapped(t, "10.96.0.0/16 172.16.0.0/16", "10.244.0.0/16 100.64.0.0/16")
	for _, c := range []struct {
		name          string
		to            netip.Addr
		before, after remap.Map
		ends          bool
	}{
		{"the laptop goes virtual: flows to real addresses", pod4, remap.Map{}, pods, false},
		{"the same map again", virtual, pods, usual(t), false},
		{"one pair more", virtual, pods, more, false},
		{"another prefix stands for the pods", virtual, pods, mapped(t, "10.244.0.0/16 100.65.0.0/16"), true},
		{"the prefix stands for others", virtual, pods, mapped(t, "10.96.0.0/16 100.64.0.0/16"), true},
		{"the laptop goes direct", virtual, pods, remap.Map{}, true},
	} {
		w.f.SetMaps(bothOf(c.before))
		conn := w.dial(t, at(c.to, tcp))
		u, err := w.laptop.DialUDP(at(c.to, udp))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(echoOf(conn, 10), echoOf(u, 10)); err != nil {
			t.Fatalf("%s: before: %v", c.name, err)
		}
		w.f.SetMaps(bothOf(c.after))
		_, _ = conn.Write([]byte("x"))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = io.ReadFull(conn, make([]byte, 1))
		if ended := errors.Is(err, syscall.ECONNRESET); ended != c.ends || !ended && err != nil {
			t.Errorf("%s: TCP: %v", c.name, err)
		}
		if left := w.f.Stats().OpenUDP; (left == 0) != c.ends {
			t.Errorf("%s: %d flows of UDP are left", c.name, left)
		}
		_ = u.Close()
		w.f.ClosePeer(laptop4)
	}
}

// Recheck asks about the real address.
func TestRecheckOfVirtualFlows(t *testing.T) {
	w := newWorld(t)
	w.f.SetMaps(bothOf(usual(t)))
	virtual := netip.MustParseAddr("100.64.0.17")
	conn := w.dial(t, at(virtual, listen(t, pod4, echo)))
	w.policy.block(virtual)
	w.f.Recheck()
	if err := echoOf(conn, 10); err != nil {
		t.Errorf("the policy said nothing of the real address: %v", err)
	}
	w.policy.block(pod4)
	w.f.Recheck()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a flow that lost its permission: %v", err)
	}
}

// Whatever a peer has mapped where, nothing is dialled that the policy has not
// allowed, and nothing ever that no router forwards.
func TestNoMapOpensAnything(t *testing.T) {
	const seed = 20261122
	rnd := rand.New(rand.NewPCG(seed, seed))
	open := netip.MustParsePrefix("127.0.0.0/30") // what the policy has: and even so no loopback
	shop := netip.MustParsePrefix("10.244.0.0/30")
	p := newAsked(func(a netip.Addr) bool { return open.Contains(a) || shop.Contains(a) })
	w := newTap(t, p)
	var mu sync.Mutex
	dialled := map[netip.AddrPort]bool{}
	w.f.Rewrite(func(a netip.AddrPort) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		dialled[a] = true
		return netip.MustParseAddrPort("127.0.0.1:9") // nobody
	})
	reals := []string{"10.244.0.0/24", "127.0.0.0/24", "169.254.169.0/24", "224.0.0.0/24", "10.96.0.0/24", "198.18.0.0/24", "0.0.0.0/24"}
	sent := 0
	for range 200 {
		m, err := remap.Parse([]remap.Pair{
			{Real: netip.MustParsePrefix(reals[rnd.IntN(len(reals))]), Virtual: netip.MustParsePrefix("100.64.1.0/24")},
			{Real: netip.MustParsePrefix(reals[rnd.IntN(len(reals))]), Virtual: netip.MustParsePrefix("100.64.2.0/24")},
		})
		if err != nil {
			continue // twice the same
		}
		w.f.SetMaps(bothOf(m))
		for range 4 {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(1 + rnd.IntN(2)), byte(rnd.IntN(6))}), uint16(1+rnd.IntN(3)))
			from := netip.AddrPortFrom(laptop4, uint16(10000+sent))
			b := udpPacket(from, to, "hello")
			if rnd.IntN(2) == 0 {
				b = synPacket(from, to)
			}
			w.send(b)
			sent++
			real, _ := m.Real(to.Addr())
			e := w.read() // nobody is there, or nobody may: the peer is told in any case
			denied := e.Err() && bytes.Contains(e.Data, b[:packet.HeaderIP(laptop4)]) && e.Payload()[1] == 13
			if denied == shop.Contains(real) {
				t.Fatalf("%v: %s (%s): % x", m.Pairs(), to, real, e.Data)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for a := range dialled {
		if !p.allowed(a) || !shop.Contains(a.Addr()) {
			t.Errorf("%s was dialled", a)
		}
	}
	if len(dialled) < 5 {
		t.Errorf("only %d targets were dialled: the test looks at too little", len(dialled))
	}
}
