package meet

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	podnet "podnet.dev/api/v1alpha1"
)

// internet answers STUN questions as servers behind a NAT would.
type internet struct {
	names  map[string][]string
	mapped map[string]string // by server
	down   atomic.Bool

	mu    sync.Mutex
	asked []string
}

func (n *internet) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range n.names[host] {
		all = append(all, netip.MustParseAddr(text))
	}
	if all == nil {
		return nil, errors.New("no such host")
	}
	return all, nil
}

func (n *internet) ask(_ context.Context, server netip.AddrPort) (netip.AddrPort, error) {
	n.mu.Lock()
	n.asked = append(n.asked, server.String())
	n.mu.Unlock()
	if at, ok := n.mapped[server.String()]; ok && !n.down.Load() {
		return netip.MustParseAddrPort(at), nil
	}
	return netip.AddrPort{}, errors.New("no answer")
}

func reflected(n *internet, servers ...string) (*Reflector, *atomic.Int32) {
	changes := new(atomic.Int32)
	return &Reflector{
		servers: servers, log: slog.New(slog.DiscardHandler), lookup: n.lookup, ask: n.ask, port: 51820,
		changed: func() { changes.Add(1) },
	}, changes
}

func TestReflectionComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &internet{
			names:  map[string][]string{"stun.example.org": {"198.51.100.9", "198.51.100.10", "198.51.100.11"}},
			mapped: map[string]string{"198.51.100.9:3478": "203.0.113.1:31820", "198.51.100.10:3478": "203.0.113.1:31820"},
		}
		r, changes := reflected(n, "stun.example.org:3478", "gone.example.org:3478", "192.0.2.1:3479")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		entry := func() (e podnet.Gateway) { r.Describe(&e); return e }

		synctest.Wait()
		n.mu.Lock()
		if want := []string{"198.51.100.9:3478", "198.51.100.10:3478", "192.0.2.1:3479"}; !slices.Equal(n.asked, want) {
			t.Errorf("asked %v, want %v", n.asked, want)
		}
		n.mu.Unlock()
		if e := entry(); !slices.Equal(e.Candidates, []string{"203.0.113.1:31820"}) || e.NAT != "endpoint-independent" || changes.Load() != 1 {
			t.Errorf("entry %+v after %d changes", e, changes.Load())
		}
		time.Sleep(10*reflectEvery + time.Second)
		if changes.Load() != 1 {
			t.Errorf("%d changes although nothing changed", changes.Load())
		}
		n.down.Store(true)
		time.Sleep(staleAfter - 2*time.Second)
		if e := entry(); len(e.Candidates) == 0 {
			t.Error("a mapping is given up too soon")
		}
		time.Sleep(reflectEvery)
		if e := entry(); len(e.Candidates) != 0 || e.NAT != "" || changes.Load() != 2 {
			t.Errorf("entry %+v after %d changes, want none any more", e, changes.Load())
		}
		n.down.Store(false)
		time.Sleep(reflectEvery + time.Second)
		if e := entry(); len(e.Candidates) == 0 || changes.Load() != 3 {
			t.Errorf("entry %+v after %d changes, want it back", e, changes.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSymmetricNATIsTold(t *testing.T) {
	n := &internet{mapped: map[string]string{"192.0.2.1:3478": "203.0.113.1:40001", "192.0.2.2:3478": "203.0.113.1:40002"}}
	r, _ := reflected(n, "192.0.2.1:3478", "192.0.2.2:3478")
	r.once(t.Context())
	var e podnet.Gateway
	if r.Describe(&e); e.NAT != "endpoint-dependent" || !slices.Contains(e.Candidates, "203.0.113.1:40003") || len(e.Candidates) > maxCandidates {
		t.Errorf("entry %+v", e)
	}
}

// Without servers nobody is asked, and nothing waits.
func TestNoServersNoQuestions(t *testing.T) {
	r, _ := reflected(&internet{})
	if err := r.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
