package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// stunServer answers like a server behind which there is a NAT: what it sees is
// mapped. A nil answer is none.
func stunServer(t *testing.T, answer func(q *stun.Message, from netip.AddrPort) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q := &stun.Message{Raw: append([]byte(nil), b[:n]...)}
			if err := q.Decode(); err != nil || q.Type != stun.BindingRequest {
				t.Errorf("no question: %v %v", q.Type, err)
				continue
			}
			if a := answer(q, from); a != nil {
				c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func mapped(q *stun.Message, a netip.AddrPort) []byte {
	m := stun.MustBuild(q, stun.BindingSuccess, &stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}, stun.Fingerprint)
	return m.Raw
}

func TestSTUN(t *testing.T) {
	b := NewBind(Options{})
	port, got := open(t, b)
	var tries atomic.Int32
	server := stunServer(t, func(q *stun.Message, from netip.AddrPort) []byte {
		if from.Port() != port {
			t.Errorf("asked from port %d, WireGuard's is %d", from.Port(), port)
		}
		if tries.Add(1) == 1 {
			return nil // lost
		}
		return mapped(q, netip.MustParseAddrPort("203.0.113.7:4444"))
	})
	a, err := b.STUN(t.Context(), server)
	if err != nil || a != netip.MustParseAddrPort("203.0.113.7:4444") || tries.Load() != 2 {
		t.Errorf("%v, %v after %d tries", a, err, tries.Load())
	}
	six := stunServer(t, func(q *stun.Message, _ netip.AddrPort) []byte {
		return mapped(q, netip.MustParseAddrPort("[2001:db8::7]:5"))
	})
	if a, err := b.STUN(t.Context(), six); err != nil || a != netip.MustParseAddrPort("[2001:db8::7]:5") {
		t.Errorf("%v, %v", a, err)
	}
	if len(got) != 0 {
		t.Errorf("the device was shown %x", (<-got).m)
	}
	if n := b.stun.n.Load(); n != 0 || len(b.stun.m) != 0 {
		t.Errorf("%d questions are still open", n)
	}
}

// A laptop hears nothing from strangers, but from those whom it asks.
func TestSTUNOnALaptop(t *testing.T) {
	b := NewBind(Options{})
	open(t, b)
	g := b.NewGateway(GatewayConfig{Key: newProbeKey(t)})
	defer g.Close()
	server := stunServer(t, func(q *stun.Message, from netip.AddrPort) []byte { return mapped(q, from) })
	if a, err := b.STUN(t.Context(), server); err != nil || a.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%v, %v", a, err)
	}
}

func TestSTUNAnswersThatAreNone(t *testing.T) {
	b := NewBind(Options{})
	port, _ := open(t, b)
	wrong := netip.MustParseAddrPort("192.0.2.66:6")
	liar, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	for name, answer := range map[string]func(q *stun.Message) []byte{
		"none":            func(*stun.Message) []byte { return nil },
		"garbage":         func(*stun.Message) []byte { return []byte("hello, world, this is no STUN at all") },
		"another's":       func(*stun.Message) []byte { return mapped(stun.MustBuild(stun.TransactionID), wrong) },
		"an error":        func(q *stun.Message) []byte { return stun.MustBuild(q, stun.BindingError, stun.CodeServerError).Raw },
		"without address": func(q *stun.Message) []byte { return stun.MustBuild(q, stun.BindingSuccess).Raw },
		"from a liar": func(q *stun.Message) []byte {
			liar.Write(mapped(q, wrong))
			return nil
		},
	} {
		server := stunServer(t, func(q *stun.Message, _ netip.AddrPort) []byte { return answer(q) })
		start := time.Now()
		a, err := b.STUN(t.Context(), server)
		if !errors.Is(err, ErrNotAnswered) || !strings.Contains(err.Error(), server.String()) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
		if d := time.Since(start); d < stunTries*stunPause || d > 2*stunTries*stunPause {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

func TestSTUNEnds(t *testing.T) {
	b := NewBind(Options{})
	silent := stunServer(t, func(*stun.Message, netip.AddrPort) []byte { return nil })
	if _, err := b.STUN(t.Context(), silent); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a Bind that is not open: %v", err)
	}
	open(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.STUN(ctx, silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := b.STUN(t.Context(), silent)
		done <- err
	}()
	for b.stun.n.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a Bind that closes: %v", err)
	}
}

func FuzzSTUN(f *testing.F) {
	q := stun.MustBuild(stun.NewTransactionIDSetter([12]byte{1, 2, 3}), stun.BindingRequest)
	f.Add(mapped(q, netip.MustParseAddrPort("203.0.113.7:4444")))
	f.Add(mapped(q, netip.MustParseAddrPort("[2001:db8::7]:5")))
	f.Add(q.Raw)
	f.Add(stun.MustBuild(q, stun.BindingSuccess, &stun.MappedAddress{IP: net.IPv4(192, 0, 2, 1), Port: 1}).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _, err := parseSTUN(b)
		if err == nil && (!a.IsValid() || a.Port() == 0 || a.Addr().Is4In6() || a.Addr().IsUnspecified()) {
			t.Errorf("address %v", a)
		}
	})
}
