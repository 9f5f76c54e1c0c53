package relay

import (
	"net/netip"
	"sync"
)

// maxFlows bounds the connections and UDP flows of a relay. Agents send at most
// 256 connections per rule and pod.
const maxFlows = 4096

// flow is one TCP connection, UDP flow or live connection of an agent.
type flow struct {
	proto    uint8
	src, dst netip.AddrPort
	rule     string // "": a live connection
	// end makes whoever serves the flow end it; it does not wait.
	end func()
}

// allowed says that t lets the flow go on.
func (f *flow) allowed(t *table) bool {
	if f.rule == "" {
		return t.live(f.src.Addr(), f.dst)
	}
	r := t.rule(f.proto, f.src.Addr(), f.dst)
	return r != nil && r.Name == f.rule
}

// flows are all there are, and who serves them.
type flows struct {
	mu     sync.Mutex
	closed bool
	all    map[*flow]struct{}
	work   sync.WaitGroup
}

// begin counts a goroutine that serves something, until done. It reports false
// when the relay ends.
func (f *flows) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.work.Add(1)
	return true
}

func (f *flows) done() { f.work.Done() }

// add reports false, and has nothing added, when the relay ends or has too many
// flows, or when t, which is asked for while nobody can sweep, has no room for
// it. Of an agent's live connections the newest stays.
func (f *flows) add(fl *flow, t func() *table) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.all) >= maxFlows || !fl.allowed(t()) {
		return false
	}
	if fl.rule == "" {
		for old := range f.all {
			if old.rule == "" && old.src.Addr() == fl.src.Addr() {
				old.end()
			}
		}
	}
	f.all[fl] = struct{}{}
	return true
}

func (f *flows) remove(fl *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, fl)
}

// sweep ends what t does not allow.
func (f *flows) sweep(t *table) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for fl := range f.all {
		if !fl.allowed(t) {
			fl.end()
		}
	}
}

// close ends everything and waits.
func (f *flows) close() {
	f.mu.Lock()
	f.closed = true
	for fl := range f.all {
		fl.end()
	}
	f.mu.Unlock()
	f.work.Wait()
}
