package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	gateway = netip.MustParseAddr("127.0.0.1")   // where connections come from: the kernel's loopback is the tunnel
	pod     = netip.MustParseAddr("10.244.0.17") // stands for 127.0.0.1
)

// world is a Server behind the tunnel.
type world struct {
	t *testing.T
	s *Server
	l net.Listener
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, s: New(slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), func(string, error) {})}
	w.s.rewrite = func(a netip.AddrPort) netip.AddrPort {
		if a.Addr() == pod {
			return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port())
		}
		return a
	}
	var err error
	if w.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.s.Set([]netip.Addr{gateway})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.Serve(ctx, w.l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(w.s.flows); n != 0 {
			t.Errorf("%d flows are left", n)
		}
	})
	return w
}

// ask asks for a flow as a gateway does.
func (w *world) ask(protocol steer.Protocol, to netip.AddrPort) (net.Conn, error) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.l.Addr().String())
	if err != nil { // a reset may come before the dial has returned
		return nil, err
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var answer control.Opened
	if err := control.Write(c, control.Open{Protocol: protocol, To: to}); err != nil {
		return nil, err
	}
	if err := control.ReadOpen(c, &answer); err != nil {
		return nil, err
	}
	return c, answer.Err()
}

// open asks for a flow and gets it.
func (w *world) open(protocol steer.Protocol, to netip.AddrPort) net.Conn {
	w.t.Helper()
	c, err := w.ask(protocol, to)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// listen serves TCP at the pod's address.
func listen(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				serve(c.(*net.TCPConn))
			})
		}
	})
	return netip.AddrPortFrom(pod, uint16(l.Addr().(*net.TCPAddr).Port))
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// echoes reports whether a flow is alive.
func echoes(c net.Conn) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestAHalfMayEnd(t *testing.T) {
	w := newWorld(t)
	c := w.open(steer.TCP, listen(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "got %d bytes, %v", len(all), err)
	}))
	if _, err := c.Write(make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	if err := splice.CloseWrite(c); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "got 300000 bytes, <nil>" {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestResetsAreCarried(t *testing.T) {
	w := newWorld(t)
	c := w.open(steer.TCP, listen(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1)) // or the dial itself may be what is reset
		splice.Reset(c)
	}))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the gateway sees %v", err)
	}
	seen := make(chan error, 1)
	c = w.open(steer.TCP, listen(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		seen <- err
	}))
	splice.Reset(c)
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target sees %v", err)
	}
}

func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestWhatIsNoTarget: the pod's own loopback above all, in all its spellings.
func TestWhatIsNoTarget(t *testing.T) {
	w := newWorld(t)
	here := listen(t, echo).Port()
	if err := echoes(w.open(steer.TCP, netip.AddrPortFrom(pod, here))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ask(steer.TCP, netip.AddrPortFrom(pod, closedPort(t))); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	for _, a := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0", "169.254.169.254",
		"::ffff:169.254.169.254", "fe80::1", "fe80::1%lo", "224.0.0.1", "ff02::1", "255.255.255.255", "fd00::1%lo"} {
		for _, p := range []steer.Protocol{steer.TCP, steer.UDP} {
			if _, err := w.ask(p, netip.AddrPortFrom(netip.MustParseAddr(a), here)); !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s to %s: %v", p, a, err)
			}
		}
	}
	for what, c := range map[string]struct {
		protocol steer.Protocol
		to       netip.AddrPort
	}{
		"no protocol": {"", netip.AddrPortFrom(pod, here)}, "another one": {"unix", netip.AddrPortFrom(pod, here)},
		"port 0": {steer.TCP, netip.AddrPortFrom(pod, 0)}, "no address": {steer.TCP, netip.AddrPort{}},
	} {
		if _, err := w.ask(c.protocol, c.to); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestOnlyGatewaysThatMay: and what is open ends when one may no more.
func TestOnlyGatewaysThatMay(t *testing.T) {
	w := newWorld(t)
	tcp := w.open(steer.TCP, listen(t, echo))
	udp := w.open(steer.UDP, udpEcho(t))
	if err := errors.Join(echoes(tcp), echoDatagram(udp, 100)); err != nil {
		t.Fatal(err)
	}
	w.s.Set([]netip.Addr{gateway, netip.MustParseAddr("127.0.0.2")})
	if err := errors.Join(echoes(tcp), echoDatagram(udp, 100)); err != nil {
		t.Errorf("a flow of a gateway that still may: %v", err)
	}
	w.s.Set(nil)
	for what, c := range map[string]net.Conn{"TCP": tcp, "UDP": udp} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, of a gateway that may no more: %v", what, err)
		}
	}
	if _, err := w.ask(steer.TCP, listen(t, echo)); err == nil || errors.Is(err, syscall.EACCES) {
		t.Errorf("a gateway that may not is told something: %v", err)
	}
}

func TestFlowsAreBounded(t *testing.T) {
	w := newWorld(t)
	at := udpEcho(t)
	for range maxFlows {
		w.open(steer.UDP, at)
	}
	if _, err := w.ask(steer.UDP, at); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("one too many: %v", err)
	}
}

// TestSilentGateway: who asks for nothing is in nobody's way for long.
func TestSilentGateway(t *testing.T) {
	w := newWorld(t)
	c, err := net.Dial("tcp", w.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(askTime + 10*time.Second))
	began := time.Now()
	var answer control.Opened
	if err := control.ReadOpen(c, &answer); err != nil || answer.Code != control.CodeTimeout {
		t.Errorf("%+v, %v", answer, err)
	}
	t.Logf("after %v", time.Since(began))
}

func udpEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = c.Close()
		running.Wait()
	})
	running.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	})
	return netip.AddrPortFrom(pod, uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

func echoDatagram(c net.Conn, size int) error {
	d := control.NewDatagrams(c)
	if err := d.Send(make([]byte, size)); err != nil {
		return err
	}
	n, err := d.Next()
	if err == nil && n != size {
		err = fmt.Errorf("a datagram of %d bytes came back as one of %d", size, n)
	}
	if err != nil {
		return err
	}
	return d.Receive(make([]byte, n))
}

func TestDatagrams(t *testing.T) {
	w := newWorld(t)
	c := w.open(steer.UDP, udpEcho(t))
	for _, n := range []int{0, 1, 1400, 9000, 60000} {
		if err := echoDatagram(c, n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestATargetThatTakesNoDatagrams: the gateway learns it by the order in which the
// connection ends, whatever it has sent meanwhile.
func TestATargetThatTakesNoDatagrams(t *testing.T) {
	w := newWorld(t)
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(pod, uint16(u.LocalAddr().(*net.UDPAddr).Port))
	_ = u.Close()
	for range 20 {
		c := w.open(steer.UDP, to)
		d := control.NewDatagrams(c)
		for range 50 {
			if err := d.Send([]byte("anybody?")); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := d.Next(); err != io.EOF {
			t.Errorf("%d, %v", n, err)
		}
		_ = c.Close()
	}
}
