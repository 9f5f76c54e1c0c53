package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/testport"
)

// desk is a laptop whose relay ports are ports of this machine.
type desk struct {
	mu    sync.Mutex
	ports map[uint16]string
	tcp   []netip.AddrPort // what was dialled
}

func (d *desk) at(to netip.AddrPort) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tcp = append(d.tcp, to)
	if at, ok := d.ports[to.Port()]; ok {
		return at
	}
	return "127.0.0.1:1" // where nobody is
}

func (d *desk) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", d.at(to))
}

func (d *desk) DialUDP(to netip.AddrPort) (Datagrams, error) {
	c, err := net.Dial("udp", d.at(to))
	if err != nil {
		return nil, err
	}
	return sock{c}, nil
}

type sock struct{ net.Conn }

func (s sock) ReadTo(w io.Writer) (int, error) {
	b := make([]byte, maxDatagram)
	n, err := s.Read(b)
	if err != nil {
		return n, err
	}
	return w.Write(b[:n])
}

// echo answers what it gets, TCP and UDP.
func echo(t *testing.T) string {
	t.Helper()
	u, l, err := testport.Both("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from)
		}
	}()
	return l.Addr().String()
}

// freePort is one that nobody has, TCP and UDP.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func newServer(t *testing.T, d Dialer) *Server {
	s := New(slog.New(slog.DiscardHandler), d, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	t.Cleanup(s.Close)
	return s
}

var laptop = netip.MustParseAddr("fd70:6f64:6e65:7403::7")

func dial(t *testing.T, network string, port uint16) net.Conn {
	t.Helper()
	c, err := net.Dial(network, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// knock connects and says nothing. A reset may come before Dial has looked.
func knock(port uint16) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

func say(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil { // of UDP it is one read
		return err
	}
	if string(b) != text {
		return fmt.Errorf("heard %q", b)
	}
	return nil
}

// TestAnExposureComesAndGoes: its ports lead to its laptop, to that port alone,
// and whoever is connected is reset when it ends.
func TestAnExposureComesAndGoes(t *testing.T) {
	d := &desk{ports: map[uint16]string{3000: echo(t)}}
	s := newServer(t, d)
	port, dead := freePort(t), freePort(t)
	e := Exposure{UID: "u", Name: "shop/my-api", Laptop: laptop, Ports: []Port{{steer.TCP, port, 3000}, {steer.UDP, port, 3000}, {steer.TCP, dead, 3001}}}
	for range 2 { // the second time does nothing
		if !s.Set([]Exposure{e})["u"] {
			t.Fatal("it is not open")
		}
	}
	tcp, udp := dial(t, "tcp", port), dial(t, "udp", port)
	for _, c := range []net.Conn{tcp, udp} {
		if err := errors.Join(say(c, "hello"), say(c, strings.Repeat("pod", 400))); err != nil {
			t.Error(err)
		}
	}
	if at := d.tcp[0]; at != netip.AddrPortFrom(laptop, 3000) {
		t.Errorf("it leads to %s", at)
	}
	large := strings.Repeat("x", 3*usualDatagram)
	_, _ = io.WriteString(udp, large) // is lost
	if err := say(udp, large); err != nil {
		t.Errorf("a large datagram: %v", err)
	}
	if err := knock(dead); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the laptop refuses, the client hears %v", err)
	}
	half := dial(t, "tcp", port)
	_, _ = io.WriteString(half, "question")
	_ = half.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(half); err != nil || string(got) != "question" {
		t.Errorf("after its end the client hears %q, %v", got, err)
	}

	moved := e
	moved.Ports = []Port{{steer.TCP, port, 3000}}
	if s.Set([]Exposure{moved}); say(tcp, "hello") == nil {
		t.Error("a connection outlives its port")
	}
	if err := say(dial(t, "tcp", port), "hello"); err != nil {
		t.Error(err)
	}
	s.Set(nil)
	for _, p := range []uint16{port, dead} {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
			_ = c.Close()
			t.Errorf("port %d is still open", p)
		}
	}
}

// TestPortTaken: an exposure whose port another program has is not ready, and has
// none of its ports open; the next Set tries again.
func TestPortTaken(t *testing.T) {
	s := newServer(t, &desk{ports: map[uint16]string{3000: echo(t)}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken, free := l.Addr().(*net.TCPAddr).AddrPort().Port(), freePort(t)
	e := Exposure{UID: "u", Laptop: laptop, Ports: []Port{{steer.TCP, free, 3000}, {steer.TCP, taken, 3000}}}
	if s.Set([]Exposure{e})["u"] {
		t.Error("it is ready")
	}
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", free)); err == nil {
		_ = c.Close()
		t.Error("half of it is open")
	}
	_ = l.Close()
	if !s.Set([]Exposure{e})["u"] {
		t.Error("it is not tried again")
	}
}

// TestTooManyClients: one more is reset, or makes the one go that was silent
// longest.
func TestTooManyClients(t *testing.T) {
	s := newServer(t, &desk{ports: map[uint16]string{3000: echo(t)}})
	port := freePort(t)
	if !s.Set([]Exposure{{UID: "u", Laptop: laptop, Ports: []Port{{steer.TCP, port, 3000}, {steer.UDP, port, 3000}}}})["u"] {
		t.Fatal("it is not open")
	}
	x := s.served["u"]
	x.mu.Lock()
	x.conns = make([]*carried, MaxConns-1)
	x.mu.Unlock()
	held := dial(t, "tcp", port)
	if err := say(held, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := knock(port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more is let in: %v", err)
	}
	x.mu.Lock()
	x.conns = x.conns[MaxConns-1:]
	x.mu.Unlock()
	s.open.Store(MaxAll)
	if err := knock(port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more than all may have is let in: %v", err)
	}
	quiet := dial(t, "udp", port)
	_, _ = io.WriteString(quiet, "hello")
	_ = quiet.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := quiet.Read(make([]byte, 9)); err == nil {
		t.Error("one flow more than all may have is let in")
	}
	s.open.Store(1)
	first := dial(t, "udp", port)
	if err := say(first, "hello"); err != nil {
		t.Fatal(err)
	}
	x.flows.mu.Lock()
	gone := x.flows.silentLocked()
	for i := range MaxFlows - 1 {
		f := &flow{key: flowKey{client: netip.AddrPortFrom(laptop, uint16(i))}}
		f.touch()
		x.flows.all[f.key] = f
	}
	x.flows.mu.Unlock()
	if err := say(dial(t, "udp", port), "hello"); err != nil {
		t.Fatal(err)
	}
	x.flows.mu.Lock()
	defer x.flows.mu.Unlock()
	if len(x.flows.all) != MaxFlows || x.flows.all[gone.key] == gone {
		t.Errorf("%d flows", len(x.flows.all))
	}
	for k, f := range x.flows.all { // those that were made up
		if f.laptop == nil {
			delete(x.flows.all, k)
		}
	}
}

// TestSilentFlowEnds: after a minute in which neither side said anything.
// TestOutOfMemory has the gateway run out of memory while clients are there: nobody comes
// in, the newest of them go, and when it is over there is room again.
func TestOutOfMemory(t *testing.T) {
	const there = 8
	d := &desk{ports: map[uint16]string{20000: echo(t)}}
	s, port := newServer(t, d), freePort(t)
	s.Set([]Exposure{{UID: "one", Name: "shop/web", Laptop: laptop, Ports: []Port{{steer.TCP, port, 20000}}}})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	answered := func(c net.Conn) bool {
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err == nil
	}
	var all []net.Conn
	for range there {
		c := dial()
		if !answered(c) {
			t.Fatal("not answered")
		}
		all = append(all, c)
	}
	s.SetFull(true)
	if answered(dial()) {
		t.Error("somebody comes in although there is no memory")
	}
	s.Shed(4, there+1)
	s.Shed(4, there)
	for i, c := range all {
		if want := i < there-1-there/4; answered(c) != want {
			t.Errorf("connection %d of %d goes on: %v", i, there, !want)
		}
	}
	s.SetFull(false)
	if !answered(dial()) {
		t.Error("nobody comes in although there is memory again")
	}
}

func TestSilentFlowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		x, f := &served{}, &flow{laptop: sock{ours}}
		f.touch()
		over := make(chan struct{})
		go func() { x.answer(f); close(over) }()
		time.Sleep(flowTime / 2)
		f.touch() // by the client
		time.Sleep(flowTime - time.Second)
		synctest.Wait()
		select {
		case <-over:
			t.Error("it ends while its client speaks")
		default:
		}
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case <-over:
		default:
			t.Error("it goes on")
		}
		_ = ours.Close()
	})
}
