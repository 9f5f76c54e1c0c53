package forward_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/device"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
)

var (
	laptop4 = netip.MustParseAddr("198.18.0.9")
	laptop6 = netip.MustParseAddr("fd70:6f64:6e65:7400::9")
	pod4    = netip.MustParseAddr("10.244.0.17") // stands for 127.0.0.1
	pod6    = netip.MustParseAddr("fd00:10:244::17")
	blocked = netip.MustParseAddr("10.244.9.9") // what the policy denies
)

// policy allows all but what is blocked.
type policy struct {
	mu   sync.Mutex
	deny map[netip.Addr]bool
}

func (p *policy) Allow(_ netip.Addr, _ forward.Proto, dst netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.deny[dst.Addr()]
}

func (p *policy) block(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deny[a] = true
}

// world is a laptop and a gateway, joined by WireGuard, with the loopback
// interface as the cluster behind it.
type world struct {
	laptop *netstack.Stack
	f      *forward.Forwarder
	policy *policy
	stop   func()
}

// join makes a WireGuard device of the stack.
func join(t testing.TB, s *netstack.Stack, bind conn.Bind, private key.Private, peer key.Public, endpoint, allowed string) *device.Device {
	t.Helper()
	d := device.NewDevice(s.Device(), bind, device.NewLogger(device.LogLevelError, ""))
	conf := fmt.Sprintf("private_key=%s\nlisten_port=0\npublic_key=%s\nendpoint=%s\n%s", private.Hex(), peer.Hex(), endpoint, allowed)
	if err := d.IpcSet(conf); err != nil {
		t.Fatal(err)
	}
	if err := d.Up(); err != nil {
		t.Fatal(err)
	}
	return d
}

func newWorld(t testing.TB) *world {
	t.Helper()
	p := &policy{deny: map[netip.Addr]bool{blocked: true}}
	w := newWorldWith(t, p, forward.Options{})
	w.policy = p
	return w
}

func newWorldWith(t testing.TB, p forward.Policy, o forward.Options) *world {
	t.Helper()
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, others) })
	w := &world{}
	stack := func(mtu int, addrs ...netip.Addr) *netstack.Stack {
		s, err := netstack.New(netstack.Config{MTU: mtu})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if err := s.AddAddress(a); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	w.laptop = stack(1420, laptop4, laptop6)
	gateway := stack(16384, netip.MustParseAddr("198.18.0.1"))
	lk, _ := key.NewPrivate()
	gk, _ := key.NewPrivate()
	binds := bindtest.NewChannelBinds()
	ld := join(t, w.laptop, binds[0], lk, gk.Public(), "127.0.0.1:1", "allowed_ip=0.0.0.0/0\nallowed_ip=::/0\n")
	gd := join(t, gateway, binds[1], gk, lk.Public(), "127.0.0.1:2", fmt.Sprintf("allowed_ip=%s/32\nallowed_ip=%s/128\n", laptop4, laptop6))

	w.f = forward.New(gateway, p, o)
	w.f.Rewrite(func(a netip.AddrPort) netip.AddrPort {
		switch a.Addr() {
		case pod4:
			return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port())
		case pod6:
			return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
		}
		return a
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.f.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		w.stop()
		ld.Close()
		gd.Close()
		w.laptop.Close()
		gateway.Close()
	})
	time.Sleep(10 * time.Millisecond) // until Run has its hooks in
	return w
}

// listen serves TCP on a loopback address and returns how the laptop sees it.
func listen(t testing.TB, pod netip.Addr, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	host := "127.0.0.1"
	if pod.Is6() {
		host = "::1"
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no loopback: %v", err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	return netip.AddrPortFrom(pod, uint16(ln.Addr().(*net.TCPAddr).Port))
}

// closedPort is a port of the loopback interface on which nothing listens.
func closedPort(t *testing.T) uint16 {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func (w *world) dial(t testing.TB, a netip.AddrPort) *netstack.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := w.laptop.DialTCP(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*netstack.TCPConn)
}

func stream(seed byte, size int64) io.Reader {
	return io.LimitReader(mrand.NewChaCha8([32]byte{seed}), size)
}

func digest(t *testing.T, r io.Reader) string {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestTransferBothWays(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 10 << 20
	}
	for _, pod := range []netip.Addr{pod4, pod6} {
		t.Run(pod.String(), func(t *testing.T) {
			w := newWorld(t)
			up := make(chan string, 1)
			at := listen(t, pod, func(c *net.TCPConn) {
				var wg sync.WaitGroup
				wg.Go(func() {
					io.Copy(c, stream(1, size))
					c.CloseWrite()
				})
				up <- digest(t, c)
				wg.Wait()
			})
			c := w.dial(t, at)
			var wg sync.WaitGroup
			wg.Go(func() {
				io.Copy(c, stream(2, size))
				c.CloseWrite()
			})
			if got := digest(t, c); got != digest(t, stream(1, size)) {
				t.Error("download arrived changed")
			}
			if got := <-up; got != digest(t, stream(2, size)) {
				t.Error("upload arrived changed")
			}
			wg.Wait()
			s := w.f.Stats()
			if s.BytesUp != uint64(size) || s.BytesDown != uint64(size) || s.TotalTCP != 1 {
				t.Errorf("stats do not add up: %+v", s)
			}
		})
	}
}

func TestTargetLooksAsItIs(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		to   netip.AddrPort
		want error
	}{
		{"refused", netip.AddrPortFrom(pod4, closedPort(t)), syscall.ECONNREFUSED},
		{"denied by policy", netip.AddrPortFrom(blocked, 80), syscall.EHOSTUNREACH},
		{"the metadata address", netip.MustParseAddrPort("169.254.169.254:80"), syscall.EHOSTUNREACH},
		{"refused by IPv6", netip.AddrPortFrom(pod6, closedPort(t)), syscall.ECONNREFUSED},
		{"a closed port of the gateway itself", netip.MustParseAddrPort("198.18.0.1:81"), syscall.ECONNREFUSED},
	} {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := w.laptop.DialTCP(ctx, c.to)
		cancel()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if took := time.Since(start); took > 4*time.Second { // nobody said no
			t.Errorf("%s: took %v", c.name, took)
		}
	}
	// The peer hears of a refusal a moment before the flow is gone.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		s := w.f.Stats()
		if s.Refused == 2 && s.Denied == 2 && s.OpenTCP == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("stats: %+v", s)
		}
	}
}

func TestHalfClose(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		all, err := io.ReadAll(c) // until the laptop has closed its half
		if err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintf(c, "got %d bytes", len(all))
	})
	c := w.dial(t, at)
	c.Write(make([]byte, 12345))
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != "got 12345 bytes" {
		t.Errorf("answer after half-close: %q, %v", answer, err)
	}
}

func TestResetTravelsBothWays(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	})
	c := w.dial(t, at)
	c.Write([]byte("x"))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("laptop sees %v, want a reset", err)
	}

	seen := make(chan error, 1)
	at = listen(t, pod4, func(c *net.TCPConn) {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := c.Read(make([]byte, 1))
		seen <- err
	})
	c = w.dial(t, at)
	io.ReadFull(c, make([]byte, 1))
	c.Reset()
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("pod sees %v, want a reset", err)
	}
}

// echo is a server that returns what it gets.
func echo(c *net.TCPConn) { io.Copy(c, c) }

func TestManyShortConnections(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		b := make([]byte, 64)
		n, _ := io.ReadFull(c, b[:8])
		c.Write(b[:n])
	})
	total, workers := 3000, 16
	if testing.Short() {
		total = 500
	}
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for next.Add(1) <= int64(total) {
				var want, got [8]byte
				rand.Read(want[:])
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				c, err := w.laptop.DialTCP(ctx, at)
				cancel()
				if err == nil {
					c.Write(want[:])
					_, err = io.ReadFull(c, got[:])
					if err == nil && want != got {
						err = errors.New("wrong answer")
					}
					c.Close()
				}
				if err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d connections failed", n, total)
	}
}

func TestThousandFlows(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, echo)
	n := 1000
	if testing.Short() {
		n = 100
	}
	conns := make([]*netstack.TCPConn, n)
	for i := range conns {
		conns[i] = w.dial(t, at)
	}
	if got := w.f.Stats().OpenTCP; got != n {
		t.Errorf("%d flows open, want %d", got, n)
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			want := []byte(fmt.Sprintf("flow %d", i))
			c.Write(want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("flow %d: %q, %v", i, got, err)
			}
			c.Close()
		})
	}
	wg.Wait()
}

func TestRecheckEndsWhatIsNoLongerAllowed(t *testing.T) {
	w := newWorld(t)
	gone, stays := w.dial(t, listen(t, pod4, echo)), w.dial(t, listen(t, pod6, echo))
	w.policy.block(pod4)
	w.f.Recheck()
	gone.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("flow that lost its permission: %v", err)
	}
	stays.Write([]byte("x"))
	if _, err := io.ReadFull(stays, make([]byte, 1)); err != nil {
		t.Errorf("flow that kept its permission: %v", err)
	}
	w.f.ClosePeer(laptop6)
	stays.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := stays.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("flow of a closed peer: %v", err)
	}
}

func TestRunEndsFlows(t *testing.T) {
	w := newWorld(t)
	c := w.dial(t, listen(t, pod4, echo))
	w.stop()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("flow after the end of Run: %v", err)
	}
	if s := w.f.Stats(); s.OpenTCP+s.OpenUDP+s.OpenICMP != 0 {
		t.Errorf("flows left: %+v", s)
	}
}

// udpEcho is a UDP server on loopback, as the laptop sees it.
func udpEcho(t testing.TB, pod netip.Addr) (netip.AddrPort, *net.UDPConn) {
	t.Helper()
	host := net.IPv4(127, 0, 0, 1)
	if pod.Is6() {
		host = net.IPv6loopback
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: host})
	if err != nil {
		t.Skipf("no loopback: %v", err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return netip.AddrPortFrom(pod, uint16(c.LocalAddr().(*net.UDPAddr).Port)), c
}

func TestUDP(t *testing.T) {
	for _, pod := range []netip.Addr{pod4, pod6} {
		t.Run(pod.String(), func(t *testing.T) {
			w := newWorld(t)
			at, server := udpEcho(t, pod)
			c, err := w.laptop.DialUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range []int{0, 1, 1200, 1392, 1500, 9000, 60000} { // the last three in fragments
				want := bytes.Repeat([]byte{byte(n)}, n)
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				got := make([]byte, 65535)
				k, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:k], want) {
					t.Fatalf("echo of %d bytes: %d bytes, %v", n, k, err)
				}
			}
			if s := w.f.Stats(); s.OpenUDP != 1 || s.TotalUDP != 1 {
				t.Errorf("one conversation is %+v", s)
			}
			server.Close()
			c.Write([]byte("?"))
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("read from a closed port: %v", err)
			}
		})
	}
}

func TestUDPFlowLimit(t *testing.T) {
	w := newWorld(t)
	at, _ := udpEcho(t, pod4)
	for i := range 600 {
		c, err := w.laptop.DialUDP(at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write([]byte{byte(i)})
		if i < 512 {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatalf("flow %d: %v", i, err)
			}
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for w.f.Stats().OverLimit < 88 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if s := w.f.Stats(); s.OpenUDP != 512 || s.OverLimit != 88 {
		t.Errorf("512 flows of 600 may be open: %+v", s)
	}
}
