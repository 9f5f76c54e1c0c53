package forward_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/forward"
)

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

// revoked is a policy that is told otherwise, and the forwarder with it, while it
// says its first yes.
type revoked struct {
	f    *forward.Forwarder
	once sync.Once
	no   atomic.Bool
}

func (p *revoked) Allow(netip.Addr, forward.Proto, netip.AddrPort) bool {
	yes := !p.no.Load()
	p.once.Do(func() {
		p.no.Store(true)
		p.f.Recheck()
	})
	return yes
}

// A flow that begins while the policy changes is not overlooked: whoever opens flows
// all the time would keep one of them else.
func TestRecheckWhileAFlowBegins(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		p := &revoked{}
		w := newWorldWith(t, p, forward.Options{})
		p.f = w.f
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if c, err := w.laptop.DialTCP(ctx, listen(t, pod4, echo)); err == nil {
			_ = c.Close()
			t.Error("it is open")
		}
	})
	t.Run("udp", func(t *testing.T) {
		p := &revoked{}
		w := newWorldWith(t, p, forward.Options{})
		p.f = w.f
		at, _ := udpEcho(t, pod4)
		c, err := w.laptop.DialUDP(at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 3 {
			_, _ = c.Write([]byte("still there?"))
			time.Sleep(20 * time.Millisecond)
		}
		if n := w.f.Stats().OpenUDP; n != 0 {
			t.Errorf("%d flows are open", n)
		}
	})
}
