package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
)

// exit is a place from where all targets are at the loopback interface.
type exit struct {
	name string
	gone bool // it lets nothing out
}

func (e *exit) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if e.gone {
		return nil, &net.OpError{Op: "dial", Err: syscall.EACCES}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port()).String())
	if err != nil {
		return nil, err
	}
	return far{c.(*net.TCPConn)}, nil
}

// far is not the kernel's, as far as the forwarder can see.
type far struct{ half }

type half interface {
	net.Conn
	CloseWrite() error
	SetLinger(int) error
}

// DialUDP leads through a stream.
func (e *exit) DialUDP(ctx context.Context, to netip.AddrPort) (forward.Datagrams, error) {
	if e.gone {
		return nil, &net.OpError{Op: "dial", Err: syscall.EACCES}
	}
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())))
	if err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	d := control.NewDatagrams(there)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			n, err := d.Next()
			b := make([]byte, n)
			if err != nil || d.Receive(b) != nil {
				_ = u.Close()
				return
			}
			_, _ = u.Write(b)
		}
	})
	done.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := u.Read(b)
			if err != nil {
				_ = there.Close()
				return
			}
			_ = d.Send(b[:n])
		}
	})
	return control.NewDatagrams(waiting{here, &done}), nil
}

// waiting waits for others when it closes.
type waiting struct {
	net.Conn
	others *sync.WaitGroup
}

func (w waiting) Close() error {
	err := w.Conn.Close()
	w.others.Wait()
	return err
}

// elsewhere is a pod that only an exit reaches: from here it is nowhere.
var elsewhere = netip.MustParseAddr("203.0.113.17")

// leave has the laptop's flows leave by e.
func (w *world) leave(e forward.Exit) {
	w.f.SetExits(map[netip.Addr]forward.Exit{laptop4: e, laptop6: e})
}

func at(pod netip.Addr, other netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(pod, other.Port())
}

func TestFlowsLeaveByTheirExit(t *testing.T) {
	w := newWorld(t)
	w.leave(&exit{name: "pod"})
	up := make(chan string, 1)
	const size = 3 << 20
	c := w.dial(t, at(elsewhere, listen(t, pod4, func(c *net.TCPConn) {
		up <- digest(t, c) // until the laptop has closed its half
		_, _ = io.Copy(c, stream(1, size))
	})))
	if _, err := io.Copy(c, stream(2, size)); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if got := <-up; got != digest(t, stream(2, size)) {
		t.Error("upload arrived changed")
	}
	if got := digest(t, c); got != digest(t, stream(1, size)) {
		t.Error("download arrived changed")
	}
	if s := w.f.Stats(); s.BytesUp != size || s.BytesDown != size || s.TotalTCP != 1 {
		t.Errorf("stats do not add up: %+v", s)
	}

	reset := w.dial(t, at(elsewhere, listen(t, pod4, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})))
	_, _ = reset.Write([]byte("x"))
	_ = reset.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := reset.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("laptop sees %v, want a reset", err)
	}
	server, _ := udpEcho(t, pod4)
	u, err := w.laptop.DialUDP(at(elsewhere, server))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, n := range []int{0, 1, 1200, 9000, 60000} {
		if err := echoOf(u, n); err != nil {
			t.Errorf("a datagram of %d bytes: %v", n, err)
		}
	}
	if s := w.f.Stats(); s.OpenUDP != 1 || s.TotalUDP != 1 {
		t.Errorf("one conversation is %+v", s)
	}
}

func echoOf(u net.Conn, n int) error {
	want := bytes.Repeat([]byte{byte(n)}, n)
	if _, err := u.Write(want); err != nil {
		return err
	}
	_ = u.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 1<<16)
	k, err := u.Read(got)
	if err == nil && !bytes.Equal(got[:k], want) {
		err = errors.New("it came back changed")
	}
	return err
}

// TestTargetsBehindAnExitLookAsTheyAre: and so does an exit that is closed.
func TestTargetsBehindAnExitLookAsTheyAre(t *testing.T) {
	w := newWorld(t)
	open := listen(t, pod4, echo)
	for _, c := range []struct {
		name string
		exit forward.Exit
		to   netip.AddrPort
		want error
	}{
		{"refused", &exit{}, netip.AddrPortFrom(elsewhere, closedPort(t)), syscall.ECONNREFUSED},
		{"forbidden there", &exit{gone: true}, at(elsewhere, open), syscall.EHOSTUNREACH},
		{"denied here", &exit{}, at(blocked, open), syscall.EHOSTUNREACH},
		{"no exit, though here is one", nil, open, syscall.EHOSTUNREACH},
	} {
		w.leave(c.exit)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := w.laptop.DialTCP(ctx, c.to)
		cancel()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
	w.leave(&exit{})
	u, err := w.laptop.DialUDP(netip.AddrPortFrom(elsewhere, closedPort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := echoOf(u, 10); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port of UDP: %v", err)
	}
	w.f.SetExits(nil)
	c := w.dial(t, open)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("from here again: %v", err)
	}
}

// TestNoFlowOutlivesItsExit: what is open as one thing does not go on as another.
func TestNoFlowOutlivesItsExit(t *testing.T) {
	w := newWorld(t)
	tcp := listen(t, pod4, echo)
	udp, _ := udpEcho(t, pod4)
	pod, other := &exit{name: "pod"}, &exit{name: "other"}
	for _, c := range []struct {
		name   string
		before func()
		after  func()
		ends   bool
	}{
		{"egress begins", func() { w.f.SetExits(nil) }, func() { w.leave(pod) }, true},
		{"egress ends", func() { w.leave(pod) }, func() { w.f.SetExits(nil) }, true},
		{"its agent goes", func() { w.leave(pod) }, func() { w.leave(nil) }, true},
		{"another agent", func() { w.leave(pod) }, func() { w.leave(other) }, true},
		{"the same agent", func() { w.leave(pod) }, func() { w.leave(pod) }, false},
		{"somebody else's", func() { w.f.SetExits(nil) }, func() {
			w.f.SetExits(map[netip.Addr]forward.Exit{netip.MustParseAddr("198.18.0.77"): pod})
		}, false},
	} {
		c.before()
		conn := w.dial(t, tcp)
		u, err := w.laptop.DialUDP(udp)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(echoOf(conn, 10), echoOf(u, 10)); err != nil {
			t.Fatalf("%s: before: %v", c.name, err)
		}
		opened := w.f.Stats().TotalUDP
		c.after()
		_, _ = conn.Write([]byte("x"))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = io.ReadFull(conn, make([]byte, 1))
		if ended := errors.Is(err, syscall.ECONNRESET); ended != c.ends {
			t.Errorf("%s: TCP: %v", c.name, err)
		}
		_, _ = u.Write([]byte("x"))
		for deadline := time.Now().Add(5 * time.Second); c.ends && w.f.Stats().TotalUDP == opened && w.f.Stats().OpenUDP > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: the flow of UDP goes on: %+v", c.name, w.f.Stats())
				break
			}
		}
		if !c.ends && w.f.Stats().TotalUDP != opened {
			t.Errorf("%s: the flow of UDP began anew", c.name)
		}
		_ = u.Close()
	}
}

// TestWhatMayNotLeaveIsAnswered: a ping would come from the gateway, so there is
// none.
func TestWhatMayNotLeaveIsAnswered(t *testing.T) {
	tap := newTap(t, &policy{deny: map[netip.Addr]bool{}})
	ping := make([]byte, packet.HeaderIP(laptop4)+packet.HeaderEcho+8)
	packet.PutEchoRequest(ping, laptop4, pod4, 7, 1)
	datagram := make([]byte, packet.HeaderIP(laptop4)+packet.HeaderUDP+8)
	packet.PutUDP(datagram, netip.AddrPortFrom(laptop4, 4000), netip.AddrPortFrom(pod4, 53))
	for _, c := range []struct {
		exit forward.Exit
		sent []byte
	}{{&exit{}, ping}, {nil, ping}, {nil, datagram}} {
		tap.f.SetExits(map[netip.Addr]forward.Exit{laptop4: c.exit})
		tap.send(c.sent)
		tap.wantUnreachable(c.sent, 13, 1)
	}
	tap.f.SetExits(map[netip.Addr]forward.Exit{laptop4: &exit{gone: true}})
	tap.send(datagram)
	if p := tap.read(); !p.Err() || p.Payload()[1] != 13 || !bytes.HasSuffix(p.Data, datagram[packet.HeaderIP(laptop4):]) {
		t.Errorf("what an exit forbids is answered with % x", p.Data)
	}
}

// TestStalledExit: an exit that takes nothing holds nobody up, and costs no more
// than its queue.
func TestStalledExit(t *testing.T) {
	w := newWorld(t)
	w.leave(stalled{})
	u, err := w.laptop.DialUDP(netip.AddrPortFrom(elsewhere, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for range 1000 {
		if _, err := u.Write(make([]byte, 1200)); err != nil {
			t.Fatal(err)
		}
	}
	w.f.SetExits(map[netip.Addr]forward.Exit{laptop4: stalled{}})
	server, _ := udpEcho(t, pod6)
	six, err := w.laptop.DialUDP(server)
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	if err := echoOf(six, 100); err != nil {
		t.Errorf("another address, whose flows leave from here: %v", err)
	}
}

// stalled never opens anything.
type stalled struct{}

func (stalled) DialTCP(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stalled) DialUDP(ctx context.Context, _ netip.AddrPort) (forward.Datagrams, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
