package forward_test

import (
	"net/netip"
	"sync"
	"testing"

	"podnet.dev/internal/forward"
)

// TestUndecided has a policy that learns whose an address is from the first packet:
// the peer hears nothing of that no, and its second packet gets through.
func TestUndecided(t *testing.T) {
	p := &learner{knows: map[netip.Addr]bool{}}
	w := newWorldWith(t, p, forward.Options{Undecided: p.undecided})
	w.dial(t, listen(t, pod4, echo))
	if n := w.f.Stats().Denied; n != 0 {
		t.Errorf("%d packets are counted as denied", n)
	}
}

// learner knows an address from the second time on that it is asked.
type learner struct {
	mu    sync.Mutex
	knows map[netip.Addr]bool
}

func (p *learner) Allow(_ netip.Addr, _ forward.Proto, dst netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.knows[dst.Addr()]
}

func (p *learner) undecided(_ netip.Addr, dst netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.knows[dst.Addr()] {
		return false
	}
	p.knows[dst.Addr()] = true
	return true
}
