package netstack

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/internal/packet"
)

// carryTo moves packets from one device to those that have their destination.
func carryTo(from *Stack, route func(dst netip.Addr) *Stack) {
	const offset = 16
	dev := from.Device()
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		for i := range n {
			p, ok := packet.Parse(bufs[i][offset : offset+sizes[i]])
			if !ok {
				continue
			}
			if to := route(p.Dst); to != nil {
				_, _ = to.Device().Write([][]byte{bufs[i][:offset+sizes[i]]}, offset)
			}
		}
	}
}

// TestTwoPeersTalkThroughARelay: what the relay claims reaches the other peer,
// fragments and all; what it does not ends at the stack in between.
func TestTwoPeersTalkThroughARelay(t *testing.T) {
	goleak.VerifyNone(t)
	var wires sync.WaitGroup
	fresh := func(mtu int, addr netip.Addr) *Stack {
		s, err := New(Config{MTU: mtu})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.AddAddress(addr); err != nil {
			t.Fatal(err)
		}
		return s
	}
	c6 := netip.MustParseAddr("fd70:6f64:6e65:7400::3")
	hub, a, b := fresh(16384, c6), fresh(1280, a6), fresh(1420, b6)
	wires.Go(func() {
		carryTo(hub, func(dst netip.Addr) *Stack { return map[netip.Addr]*Stack{a6: a, b6: b}[dst] })
	})
	for _, s := range []*Stack{a, b} {
		wires.Go(func() { carryTo(s, func(netip.Addr) *Stack { return hub }) })
	}
	t.Cleanup(func() {
		for _, s := range []*Stack{a, b, hub} {
			s.Close()
		}
		wires.Wait()
		goleak.VerifyNone(t)
	})
	var open atomic.Bool
	var pieces atomic.Int64
	hub.Forward(&Hooks{SYN: func(*packet.Packet) bool { return false }, Datagrams: func([]packet.Packet) {}})
	hub.Relay(func(p *packet.Packet) bool {
		if p.Fragment {
			pieces.Add(1)
		}
		return open.Load() && (p.Src == a6 && p.Dst == b6 || p.Src == b6 && p.Dst == a6)
	})

	ln, at := listen(t, b, b6)
	dialed := make(chan error, 1)
	go func() {
		time.Sleep(50 * time.Millisecond)
		open.Store(true)
		dialed <- nil
	}()
	c, err := a.DialTCP(t.Context(), at) // the first attempt is dropped, a later one passes
	if err != nil {
		t.Fatal(err)
	}
	<-dialed
	const size = 8 << 20
	sum := sha256.New()
	wires.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
	})
	if n, err := io.Copy(sum, c); n != size || err != nil {
		t.Errorf("read %d bytes: %v", n, err)
	}
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
	if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		t.Error("the bytes arrived changed")
	}
	_ = c.Close()

	pc, err := b.ListenUDP(netip.AddrPortFrom(b6, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	u, err := a.DialUDP(netip.AddrPortFrom(b6, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	msg := bytes.Repeat([]byte("pod"), 3000)
	if _, err := u.Write(msg); err != nil {
		t.Fatal(err)
	}
	_ = pc.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 65535)
	if n, _, err := pc.ReadFrom(got); err != nil || !bytes.Equal(got[:n], msg) {
		t.Errorf("%d bytes by UDP: %v", n, err)
	}
	if pieces.Load() < 7 {
		t.Errorf("the relay saw %d fragments: were they put together?", pieces.Load())
	}

	hub.Relay(nil)
	if _, err := u.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	_ = pc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _, err := pc.ReadFrom(got); err == nil {
		t.Errorf("%d bytes came through after the relay had ended", n)
	}
}

// What cannot be cut is lost, and what comes after it is not: a peer may put more
// headers before a fragment than a piece has room for.
func TestRelayedFragmentBehindManyExtensions(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Relay(func(p *packet.Packet) bool { return p.Fragment || p.Proto == packet.UDP })
	const extensions = 2048
	b := make([]byte, 40+extensions+8+8)
	packet.PutIP(b, 60, a6, b6) // destination options
	b[40], b[41] = 44, extensions/8-1
	b[40+extensions], b[40+extensions+3] = packet.UDP, 8
	next := make([]byte, 48)
	packet.PutUDP(next, netip.AddrPortFrom(a6, 40000), netip.AddrPortFrom(b6, 53))
	for _, p := range [][]byte{b, next} {
		if _, err := s.Device().Write([][]byte{p}, 0); err != nil {
			t.Fatal(err)
		}
	}
	bufs, sizes := [][]byte{make([]byte, 65535)}, []int{0}
	if n, err := s.Device().Read(bufs, sizes, 0); n != 1 || err != nil || !bytes.Equal(bufs[0][:sizes[0]], next) {
		t.Errorf("%d packets, of %d bytes, %v: want the one that can be sent", n, sizes[0], err)
	}
}

// BenchmarkRelay writes batches of 32 bulk segments of 1,280 bytes into a device:
// without a relay, with one that claims none of them, and with one that claims
// them all. The first two drop them at the stack.
func BenchmarkRelay(b *testing.B) {
	for name, relay := range map[string]func(*packet.Packet) bool{
		"none": nil, "others": func(*packet.Packet) bool { return false }, "claimed": func(*packet.Packet) bool { return true },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			var reader sync.WaitGroup
			reader.Go(func() { carryTo(s, func(netip.Addr) *Stack { return nil }) })
			defer reader.Wait()
			defer s.Close()
			s.Relay(relay)
			const size, n = 1280, 32
			batch := make([][]byte, n)
			for i := range batch {
				p := make([]byte, size)
				p[0], p[4], p[5], p[6], p[7] = 0x60, (size-40)>>8, (size-40)&0xff, packet.TCP, 64
				copy(p[8:], a6.AsSlice())
				copy(p[24:], b6.AsSlice())
				seq := i * (size - 60)
				p[44], p[45], p[46], p[47] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
				p[52], p[53] = 5<<4, tcpACK
				batch[i] = p
			}
			b.SetBytes(size * n)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Device().Write(batch, 0)
			}
		})
	}
}
