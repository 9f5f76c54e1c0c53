package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"

	"podnet.dev/internal/packet"
)

func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	code := m.Run()
	refs.DoLeakCheck() // panics when a PacketBuffer was not released
	os.Exit(code)
}

var (
	a4, b4 = netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")
	a6, b6 = netip.MustParseAddr("fd70:6f64:6e65:7400::1"), netip.MustParseAddr("fd70:6f64:6e65:7400::2")
)

// pair makes two stacks whose devices are tied together, as WireGuard would.
func pair(t *testing.T, mtuA, mtuB int) (a, b *Stack) {
	t.Helper()
	goleak.VerifyNone(t)
	var wires sync.WaitGroup
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wires.Wait()
		goleak.VerifyNone(t)
	})
	make := func(mtu int, addrs ...netip.Addr) *Stack {
		s, err := New(Config{MTU: mtu})
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if err := s.AddAddress(addr); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	a, b = make(mtuA, a4, a6), make(mtuB, b4, b6)
	wires.Add(2)
	go wire(t, &wires, a, b)
	go wire(t, &wires, b, a)
	return a, b
}

// wire carries packets from one device to the other, as large as they fit.
func wire(t *testing.T, done *sync.WaitGroup, from, to *Stack) {
	defer done.Done()
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
		outer := 0
		batch := make([][]byte, n)
		for i := range n {
			batch[i] = bufs[i][:offset+sizes[i]]
			outer += sizes[i] + overhead
			checkSums(t, batch[i][offset:])
		}
		if outer > maxTrain {
			t.Errorf("one Read holds %d bytes, more than a coalesced send takes", outer)
		}
		to.Device().Write(batch, offset)
	}
}

// checkSums verifies that a packet is one that a host would accept.
func checkSums(t *testing.T, b []byte) {
	t.Helper()
	p, ok := packet.Parse(b)
	if !ok || len(p.Data) != len(b) {
		t.Errorf("malformed packet % x", b[:min(len(b), 60)])
		return
	}
	if p.Proto != packet.TCP && len(b) > TunnelMTU {
		t.Errorf("packet of protocol %d has %d bytes", p.Proto, len(b))
	}
	if !p.Is6() && packet.Sum(b[:p.L4], 0) != 0xffff {
		t.Errorf("wrong IPv4 header checksum")
	}
	if p.Fragment || p.Proto == packet.ICMP {
		return
	}
	src, dst := p.Src.AsSlice(), p.Dst.AsSlice()
	if sum := packet.Sum(p.Payload(), packet.PseudoSum(p.Proto, src, dst, len(p.Payload()))); sum != 0xffff {
		t.Errorf("wrong checksum %04x in a packet of protocol %d", sum, p.Proto)
	}
}

func listen(t *testing.T, s *Stack, a netip.Addr) (net.Listener, netip.AddrPort) {
	t.Helper()
	ln, err := s.ListenTCP(netip.AddrPortFrom(a, 7000))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, netip.AddrPortFrom(a, 7000)
}

func TestTransferBothWays(t *testing.T) {
	for _, c := range []struct {
		name       string
		mtuA, mtuB int
		addr       netip.Addr
	}{
		{"4", 1420, 1420, a4},
		{"6", 1420, 1420, a6},
		{"4 gateway", 16384, 1420, a4},
		{"6 gateway", 16384, 1420, a6},
		{"4 stream", 16384, 16384, a4},
		{"6 stream", 16384, 16384, a6},
		{"4 least", 16384, 1280, a4},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t, c.mtuA, c.mtuB)
			ln, at := listen(t, a, c.addr)
			const size = 24 << 20
			sums := make(chan [32]byte, 2)
			serve := func(conn net.Conn, seed uint64) {
				var sent sync.WaitGroup
				sent.Go(func() {
					io.Copy(conn, io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size))
					conn.(*TCPConn).CloseWrite()
				})
				h := sha256.New()
				n, err := io.Copy(h, conn)
				if err != nil || n != size {
					t.Errorf("read %d bytes: %v", n, err)
				}
				sums <- [32]byte(h.Sum(nil))
				sent.Wait()
				conn.Close()
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				conn, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				serve(conn, 1)
			})
			conn, err := b.DialTCP(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			serve(conn, 2)
			want := func(seed byte) [32]byte {
				h := sha256.New()
				io.Copy(h, io.LimitReader(rand.NewChaCha8([32]byte{seed}), size))
				return [32]byte(h.Sum(nil))
			}
			one, two := <-sums, <-sums
			w1, w2 := want(1), want(2)
			if !(one == w1 && two == w2 || one == w2 && two == w1) {
				t.Error("the bytes arrived changed")
			}
		})
	}
}

func TestDialErrors(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	for _, addr := range []netip.Addr{a4, a6} {
		_, err := b.DialTCP(t.Context(), netip.AddrPortFrom(addr, 9))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial a closed port of %s: %v", addr, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.DialTCP(ctx, netip.MustParseAddrPort("192.0.2.1:80"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial nobody: %v", err)
	}
	a.Forward(&Hooks{
		SYN: func(p *packet.Packet) bool {
			why := packet.NoHost
			if p.Payload()[3] == 81 {
				why = packet.Prohibited
			}
			e := NewBuffer(packet.UnreachableSize(p.Data))
			packet.PutUnreachable(e.B, p.Data, why)
			a.Send(e, false)
			return false
		},
	})
	for addr, want := range map[string]error{
		"10.0.0.1:80": syscall.EHOSTUNREACH, "10.0.0.1:81": syscall.EHOSTUNREACH,
		"[fd00::1]:80": syscall.ENETUNREACH, "[fd00::1]:81": syscall.ENETUNREACH,
	} {
		if _, err := b.DialTCP(t.Context(), netip.MustParseAddrPort(addr)); !errors.Is(err, want) {
			t.Errorf("dial unreachable %s: %v, want %v", addr, err, want)
		}
	}
}

func TestDeadlineAndCloseEndReads(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	ln, at := listen(t, a, a4)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	c, err := b.DialTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer := <-accepted
	defer peer.Close()

	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after the deadline: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("second read after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	for _, end := range []func(){
		func() { c.SetReadDeadline(time.Unix(1, 0)) }, // as net/http does
		func() { c.SetReadDeadline(time.Time{}); c.Close() },
	} {
		got := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			got <- err
		}()
		time.Sleep(5 * time.Millisecond)
		end()
		if err := <-got; err == nil {
			t.Error("read went on")
		}
	}
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read after the other side closed: %v", err)
	}
	go ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestResetIsNotTheEnd(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	ln, at := listen(t, a, a4)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	c, err := b.DialTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	(<-accepted).(*TCPConn).Reset()
	for range 2 {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after a reset: %v", err)
		}
	}
}

func TestUDP(t *testing.T) {
	for _, addr := range []netip.Addr{a4, a6} {
		t.Run(addr.String(), func(t *testing.T) {
			a, b := pair(t, 16384, 1420)
			at := netip.AddrPortFrom(addr, 53)
			pc, err := a.ListenUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			go func() {
				buf := make([]byte, 65535)
				for {
					n, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					pc.WriteTo(buf[:n], from)
				}
			}()
			c, err := b.DialUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range []int{1, 1392, 1400, 4000, 20000, 60000} { // those beyond 1420 travel in fragments
				msg := bytes.Repeat([]byte{byte(n)}, n)
				if _, err := c.Write(msg); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				got := make([]byte, 65535)
				k, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:k], msg) {
					t.Errorf("echo of %d bytes: %d bytes, %v", n, k, err)
				}
			}
			nobody, err := b.DialUDP(netip.AddrPortFrom(addr, 54))
			if err != nil {
				t.Fatal(err)
			}
			defer nobody.Close()
			nobody.Write([]byte("?"))
			nobody.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := nobody.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("read from a closed port: %v", err)
			}
		})
	}
}

// A sender who finds the queue full must come free when the device is closed.
func TestCloseFreesBlockedSenders(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for s.Send(NewBuffer(TunnelMTU), true) {
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	s.link.out.mu.Lock()
	if s.link.out.blocked == 0 {
		t.Error("no sender was held back")
	}
	s.link.out.mu.Unlock()
	for range queueReserve {
		s.Send(NewBuffer(60), false)
	}
	s.Close()
	wg.Wait()
}
