package forward_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
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

// echo is a server that returns what it gets.
func echo(c *net.TCPConn) { io.Copy(c, c) }

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
