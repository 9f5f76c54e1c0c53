package transport

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport/fragment"
)

// visitor speaks UDP to a Bind by hand.
func visitor(t *testing.T, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// hear reads a probe, or fails within limit.
func hear(c *net.UDPConn, k probe.Key, limit time.Duration) (probe.Message, error) {
	c.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, 2000)
	n, err := c.Read(b)
	if err != nil {
		return probe.Message{}, err
	}
	return k.Open(b[:n])
}

func ping(k probe.Key, tx uint64, size int) []byte {
	return k.Append(nil, probe.Message{Kind: probe.Ping, TxID: tx, Size: size})
}

func TestPingIsAnsweredAsLongAsItIs(t *testing.T) {
	b := NewBind(Options{})
	port, _ := open(t, b)
	k := newProbeKey(t)
	b.Answer([]probe.Key{k})
	c := visitor(t, port)
	for tx, size := range []int{64, 1232, 1452} {
		c.Write(ping(k, uint64(tx), size))
		m, err := hear(c, k, 3*time.Second)
		want := probe.Message{Kind: probe.Pong, FromGateway: true, TxID: uint64(tx), Observed: addrOf(c), Size: size}
		if err != nil || m != want {
			t.Errorf("answered with %+v, %v; want %+v", m, err, want)
		}
	}
	b.Drain()
	if m, err := hear(c, k, 3*time.Second); err != nil || m.Kind != probe.Notice || !m.Draining {
		t.Errorf("notice is %+v, %v", m, err)
	}
	c.Write(ping(k, 9, 64))
	if m, err := hear(c, k, 3*time.Second); err != nil || !m.Draining {
		t.Errorf("answered with %+v, %v while draining", m, err)
	}
}

// To strangers there is no gateway, whatever they send; and nothing of it stays.
func TestStrangersProbesLeaveNothing(t *testing.T) {
	b := NewBind(Options{})
	port, got := open(t, b)
	k, foreign := newProbeKey(t), newProbeKey(t)
	b.Answer([]probe.Key{k})
	c := visitor(t, port)
	forged := ping(k, 1, 64) // whoever has seen an ID can send it
	forged[63] ^= 1
	mirrored := k.Append(nil, probe.Message{Kind: probe.Ping, FromGateway: true})
	whole := message(1400, 7)
	count := fragment.Pieces(whole, 1232)
	epoch := b.epoch.Load()
	for range 200 {
		c.Write(ping(foreign, 1, 1452))
		c.Write(forged)
		c.Write(mirrored)
		c.Write(k.Append(nil, probe.Message{Kind: probe.Notice, Draining: true}))
		for i := range count {
			c.Write(fragment.Append(nil, 1, whole, i, count))
		}
	}
	if m, err := hear(c, k, 100*time.Millisecond); err == nil {
		t.Errorf("answered with %+v", m)
	}
	c.Write(message(100, 1)) // behind all that
	if r := next(t, got); !bytes.Equal(r.m, message(100, 1)) {
		t.Errorf("the device was shown %d bytes", len(r.m))
	}
	if b.answers.limit(addrOf(c)) != 0 || b.epoch.Load() != epoch {
		t.Error("the stranger is remembered")
	}
	if at, kind := b.LastProbe(k.ID()); !at.IsZero() || kind != "" {
		t.Errorf("last probe at %v by %q", at, kind)
	}
}

// Pieces are put together from the moment on that their sender has proved itself,
// and what goes back to it is cut to what it says it can take.
func TestPiecesBothWays(t *testing.T) {
	b := NewBind(Options{})
	port, got := open(t, b)
	k := newProbeKey(t)
	b.Answer([]probe.Key{k})
	c := visitor(t, port)
	c.Write(message(100, 1))
	r := next(t, got) // the endpoint is older than the proof
	c.Write(k.Append(nil, probe.Message{Kind: probe.Ping, Limit: 1232}))
	if _, err := hear(c, k, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	whole := message(1400, 7)
	count := fragment.Pieces(whole, 1232)
	for i := range count {
		c.Write(fragment.Append(nil, 1, whole, i, count))
	}
	if r := next(t, got); !bytes.Equal(r.m, whole) {
		t.Errorf("the device was shown %d bytes", len(r.m))
	}
	if err := b.Send([][]byte{whole, message(200, 3), whole}, r.ep); err != nil {
		t.Fatal(err)
	}
	var asm fragment.Assembler
	var back [][]byte
	buf := make([]byte, 2000)
	for len(back) < 3 {
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 1232 {
			t.Errorf("%d bytes came back", n)
		}
		m := buf[:n]
		if fragment.Is(m) {
			m = asm.Add(time.Now(), netip.AddrPort{}, m)
		}
		if m != nil {
			back = append(back, bytes.Clone(m))
		}
	}
	for i, want := range [][]byte{whole, message(200, 3), whole} {
		if !bytes.Equal(back[i], want) {
			t.Errorf("datagram %d came back with %d bytes", i, len(back[i]))
		}
	}
	// A larger path: whole again. No more a prober: whole, like anybody's.
	for _, do := range []func(){
		func() {
			c.Write(k.Append(nil, probe.Message{Kind: probe.Ping, Limit: 1452}))
			hear(c, k, 3*time.Second)
		},
		func() { b.Answer(nil) },
	} {
		do()
		b.Send([][]byte{whole}, r.ep)
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if n, err := c.Read(buf); err != nil || !bytes.Equal(buf[:n], whole) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	for i := range count {
		c.Write(fragment.Append(nil, 2, whole, i, count))
	}
	c.Write(message(100, 1))
	if r := next(t, got); len(r.m) != 100 {
		t.Error("pieces of somebody who was sent away were put together")
	}
}

// One laptop with many addresses cannot fill the gateway's memory.
func TestWaysAreBounded(t *testing.T) {
	b := NewBind(Options{})
	k := newProbeKey(t)
	b.Answer([]probe.Key{k})
	p := b.answers.prober(k.ID())
	now := time.Unix(1000, 0)
	for i := range uint16(1000) {
		now = now.Add(200 * time.Millisecond)
		b.answers.remember(p, way{from: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1000+i)}, 1452, now)
	}
	if len(b.answers.udp) != maxWays || len(p.udp) != maxWays {
		t.Errorf("%d addresses are remembered", len(b.answers.udp))
	}
	if b.answers.limit(netip.MustParseAddrPort("192.0.2.1:1999")) == 0 {
		t.Error("the last one is forgotten")
	}
	now = now.Add(time.Minute)
	epoch := b.epoch.Load()
	for i := range uint16(1000) { // all at once
		b.answers.remember(p, way{from: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 1000+i)}, 1452, now)
	}
	if n := b.epoch.Load() - epoch; n > maxWays {
		t.Errorf("the receivers were disturbed %d times", n)
	}
	for range 100 {
		b.answers.remember(p, way{c: &carrier{}}, 0, now)
	}
	if len(p.streams) != maxWays {
		t.Errorf("%d streams are remembered", len(p.streams))
	}
	// An address may be another laptop's the next day.
	other := newProbeKey(t)
	b.Answer([]probe.Key{k, other})
	b.answers.remember(b.answers.prober(other.ID()), way{from: netip.MustParseAddrPort("192.0.2.2:1007")}, 1332, now)
	b.Answer([]probe.Key{other})
	if limit := b.answers.limit(netip.MustParseAddrPort("192.0.2.2:1007")); limit != 1332 || len(b.answers.udp) != 1 {
		t.Errorf("limit %d; %d addresses", limit, len(b.answers.udp))
	}
}

func TestPunchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		var keys []probe.Key
		for range 20 {
			keys = append(keys, newProbeKey(t))
		}
		b.Answer(keys)
		var many []netip.AddrPort
		for i := range uint16(50) {
			many = append(many, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1000+i))
		}
		for _, k := range keys {
			b.Punch(k.ID(), many)
		}
		stranger := newProbeKey(t).ID()
		b.Punch(stranger, many)
		sent := map[knock]int{}
		total := 0
		for range 1000 {
			todo, ok := b.puncher.round(time.Now())
			if !ok || len(todo) > punchBudget {
				t.Fatalf("%d pings at once, %v", len(todo), ok)
			}
			for _, k := range todo {
				sent[k]++
			}
			total += len(todo)
			time.Sleep(punchEvery)
		}
		if len(sent) != 20*maxPunch || total != 20*maxPunch*punchBurst {
			t.Errorf("%d pings to %d addresses", total, len(sent))
		}

		// The same addresses again are no news; another one is.
		one := keys[0].ID()
		b.Punch(one, many)
		if todo, _ := b.puncher.round(time.Now()); len(todo) != 0 {
			t.Errorf("%d pings without news", len(todo))
		}
		b.Punch(one, append([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:9")}, many...))
		if todo, _ := b.puncher.round(time.Now()); len(todo) != 1 || todo[0].to != netip.MustParseAddrPort("192.0.2.9:9") {
			t.Errorf("pings after news: %v", todo)
		}
		time.Sleep(time.Second)
		for range punchBurst {
			b.puncher.round(time.Now())
		}

		// A laptop that is there, but by the stream only, is knocked for slowly.
		p := b.answers.prober(one)
		count := func() (n int) {
			for range 50 { // 10 s
				b.answers.remember(p, way{c: &carrier{}}, 0, time.Now())
				todo, _ := b.puncher.round(time.Now())
				n += len(todo)
				time.Sleep(punchEvery)
			}
			return n
		}
		if n := count(); n < 4*maxPunch || n > 5*maxPunch {
			t.Errorf("%d pings in 10 s to %d addresses", n, maxPunch)
		}
		b.answers.remember(p, way{from: many[0]}, 0, time.Now())
		if todo, _ := b.puncher.round(time.Now()); len(todo) != 0 {
			t.Errorf("%d pings for one who is there by UDP", len(todo))
		}
		b.Punch(stranger, nil)
		b.Answer(nil)
		if _, ok := b.puncher.round(time.Now()); ok {
			t.Error("there is more to come without wishes")
		}
	})
}

// The device closes and opens its Bind as it likes; who is wished for stays so.
func TestPunchGoesOnAfterReopen(t *testing.T) {
	b := NewBind(Options{})
	k := newProbeKey(t)
	b.Answer([]probe.Key{k})
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.Punch(k.ID(), []netip.AddrPort{addrOf(c)})
	for range 2 {
		if _, _, err := b.Open(0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if m, err := hear(c, k, 3*time.Second); err != nil || m.Kind != probe.Ping || !m.FromGateway {
				t.Errorf("heard %+v, %v", m, err)
			}
		}
		b.Close()
	}
}

// Old pongs, played back, prove nothing.
func TestReplayedPongsProveNothing(t *testing.T) {
	b := NewBind(Options{})
	port, _ := open(t, b)
	k := newProbeKey(t)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var pongs [][]byte
	g := b.NewGateway(GatewayConfig{Key: k})
	g.SetUDP([]netip.AddrPort{addrOf(c)})
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
		if m, err := hear(c, k, 100*time.Millisecond); err == nil {
			pong := k.Append(nil, probe.Message{Kind: probe.Pong, FromGateway: true, TxID: m.TxID, Size: m.Size})
			pongs = append(pongs, pong)
			c.WriteToUDPAddrPort(pong, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
		}
	}
	if g.Status().Active.Kind != UDP {
		t.Fatalf("status = %+v", g.Status())
	}
	g.Close()
	g = b.NewGateway(GatewayConfig{Key: k}) // the same pod again
	defer g.Close()
	g.SetUDP([]netip.AddrPort{addrOf(c)})
	for _, p := range pongs {
		c.WriteToUDPAddrPort(p, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	}
	// One pong from elsewhere, to a ping that did go out, is none either.
	if m, err := hear(c, k, time.Second); err == nil {
		elsewhere := visitor(t, port)
		elsewhere.Write(k.Append(nil, probe.Message{Kind: probe.Pong, FromGateway: true, TxID: m.TxID, Size: m.Size}))
	}
	time.Sleep(100 * time.Millisecond)
	if st := g.Status(); st.Active.Kind != "" {
		t.Errorf("status = %+v", st)
	}
}
