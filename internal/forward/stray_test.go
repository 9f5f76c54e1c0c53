package forward_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

// segment is what a laptop sends in the middle of a connection.
func segment(src, dst netip.AddrPort, flags byte, payload string) []byte {
	hl := packet.HeaderIP(src.Addr())
	b := make([]byte, hl+20+len(payload))
	copy(b[hl+20:], payload)
	packet.PutIP(b, packet.TCP, src.Addr(), dst.Addr())
	tcp := b[hl:]
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1000) // sequence number
	binary.BigEndian.PutUint32(tcp[8:], 5000) // acknowledges up to here
	tcp[12], tcp[13], tcp[14] = 5<<4, flags, 0xff
	return b
}

// A gateway that has just started knows no flow, and says so at once: what the
// laptop sends on is answered with a reset that its kernel believes, whether
// the policy would let it open the flow or not.
func TestStrayTCPIsReset(t *testing.T) {
	const fin, rst, psh, ack = 1, 4, 8, 16
	w := newTap(t, &policy{deny: map[netip.Addr]bool{blocked: true}})
	for _, a := range []struct{ peer, pod netip.Addr }{{laptop4, pod4}, {laptop6, pod6}, {laptop4, blocked}} {
		src, dst := netip.AddrPortFrom(a.peer, 4000), netip.AddrPortFrom(a.pod, 8080)
		w.send(segment(src, dst, rst, "")) // never answered, or two stacks would argue for ever
		for what, b := range map[string][]byte{
			"data": segment(src, dst, psh|ack, "on with it"), "a keepalive": segment(src, dst, ack, ""), "an end": segment(src, dst, fin|ack, ""),
		} {
			w.send(b)
			p := w.read()
			from, to, _ := p.Ports()
			if tcp := p.Payload(); p.Proto != packet.TCP || from != dst || to != src || tcp[13]&rst == 0 || binary.BigEndian.Uint32(tcp[4:]) != 5000 {
				t.Errorf("%s to %s is answered with % x", what, dst, p.Data)
			}
		}
	}
}

// cable joins a laptop's stack to whichever gateway's is plugged in.
type cable struct {
	laptop  *netstack.Stack
	gateway atomic.Pointer[netstack.Stack]
	wires   sync.WaitGroup
}

func newCable(t *testing.T) *cable {
	laptop, err := netstack.New(netstack.Config{MTU: 1420})
	if err != nil {
		t.Fatal(err)
	}
	if err := laptop.AddAddress(laptop4); err != nil {
		t.Fatal(err)
	}
	c := &cable{laptop: laptop}
	c.wires.Go(func() { c.carry(laptop, c.gateway.Load) })
	// Runs last: taps close their stacks, then this waits for both directions.
	t.Cleanup(func() { laptop.Close(); c.wires.Wait() })
	return c
}

// carry takes packets from one stack to another until the first is closed.
func (c *cable) carry(from *netstack.Stack, to func() *netstack.Stack) {
	buf, sizes := make([]byte, 65535), make([]int, 1)
	for {
		if _, err := from.Device().Read([][]byte{buf}, sizes, 0); err != nil {
			return
		}
		if s := to(); s != nil {
			s.Device().Write([][]byte{buf[:sizes[0]]}, 0)
		}
	}
}

// plug makes w the gateway that the laptop speaks to; nil pulls the cable.
func (c *cable) plug(w *tap) {
	if w == nil {
		c.gateway.Store(nil)
		return
	}
	c.gateway.Store(w.s)
	c.wires.Go(func() {
		c.carry(w.s, func() *netstack.Stack {
			if c.gateway.Load() != w.s {
				return nil
			}
			return c.laptop
		})
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (c *cable) dial(t *testing.T, to netip.AddrPort) *netstack.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := c.laptop.DialTCP(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn.(*netstack.TCPConn)
}

// A gateway dies without a word and another takes its place: connections end
// with an error instead of hanging, and new ones work.
func TestRestartResetsFlows(t *testing.T) {
	at := listen(t, pod4, echo) // ends after the gateways, whose flows it serves
	c := newCable(t)
	first, second := newTap(t, &policy{}), newTap(t, &policy{})
	c.plug(first)
	conn := c.dial(t, at)
	c.plug(second) // the first one's last words go nowhere
	began := time.Now()
	conn.Write([]byte("still there?"))
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a flow of the gateway that died: %v", err)
	}
	t.Logf("reset after %v", time.Since(began))
	c.dial(t, at)
}

// A laptop that is unplugged leaves nothing behind: no flow that was silent,
// and none of which the gateway has something to deliver.
func TestUnpluggedLaptopLeavesNothing(t *testing.T) {
	// A stack answers what is out of place twice a second, and so keepalives.
	quick := net.KeepAliveConfig{Idle: 600 * time.Millisecond, Interval: 200 * time.Millisecond, Count: 4}
	more := make(chan struct{})
	talker := listen(t, pod4, func(s *net.TCPConn) {
		io.CopyN(s, s, 1)
		<-more
		s.Write([]byte("anybody home?"))
		s.Read(make([]byte, 1))
	})
	silent := listen(t, pod4, echo)
	c := newCable(t)
	w := newTapWith(t, &policy{}, netstack.Config{MTU: 16384, KeepAlive: quick}, forward.Options{})
	c.plug(w)
	c.dial(t, silent)
	c.dial(t, talker)
	time.Sleep(2 * time.Second) // silent, but there: its stack answers
	if s := w.f.Stats(); s.OpenTCP != 2 {
		t.Fatalf("a laptop that has nothing to say loses its flows: %+v", s)
	}
	c.plug(nil)
	close(more)
	eventually(t, "all flows are gone", func() bool { return w.f.Stats().OpenTCP == 0 })
}

// A gateway without room for another socket says nothing, so that the peer
// tries again, and takes the flow as soon as one has ended.
func TestFlowLimitOfAllPeers(t *testing.T) {
	at := listen(t, pod4, echo)
	c := newCable(t)
	w := newTapWith(t, &policy{}, netstack.Config{MTU: 16384}, forward.Options{MaxFlows: 2})
	c.plug(w)
	first := c.dial(t, at)
	c.dial(t, at)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.laptop.DialTCP(ctx, at); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third flow of two: %v, want silence", err)
	}
	udp, err := c.laptop.DialUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.Write([]byte("x"))
	eventually(t, "both were refused", func() bool { return w.f.Stats().OverLimit >= 2 })
	if s := w.f.Stats(); s.OpenTCP != 2 || s.OpenUDP != 0 {
		t.Errorf("stats: %+v", s)
	}
	first.Close()
	eventually(t, "one has ended", func() bool { return w.f.Stats().OpenTCP < 2 })
	c.dial(t, at)
}

// A path that is gone for long does not cost as long again: TCP's own rule
// would have a download wait for 12 s more here.
func TestDownloadGoesOnSoonAfterACut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 18 s")
	}
	at := listen(t, pod4, func(s *net.TCPConn) {
		io.CopyN(s, s, 1)
		io.Copy(s, stream(1, 1<<40))
	})
	c := newCable(t)
	w := newTap(t, &policy{})
	c.plug(w)
	conn := c.dial(t, at)
	io.CopyN(io.Discard, conn, 1<<20)
	c.plug(nil)
	conn.SetReadDeadline(time.Now().Add(13 * time.Second))
	io.Copy(io.Discard, conn)
	c.gateway.Store(w.s)
	began := time.Now()
	conn.SetReadDeadline(began.Add(20 * time.Second))
	if _, err := io.CopyN(io.Discard, conn, 1); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the download went on after %v, want at most 5 s", took)
	}
}
