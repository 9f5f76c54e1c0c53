package relay

import (
	"net/netip"
	"sync"
)

const (
	// maxFlows bounds the connections and UDP flows of a relay, those that are only
	// being opened among them, as each has a connection to a local program. Agents
	// send at most 256 connections per rule and pod.
	maxFlows = 4096
	// maxFromOne is what of it one agent may have, lest one that is broken into keeps
	// out all others.
	maxFromOne = maxFlows / 2
)

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
	served int                // whatever is not done
	from   map[netip.Addr]int // of those
	all    map[*flow]struct{}
	work   sync.WaitGroup
}

// begin counts a goroutine that serves something of an agent, until done. It reports
// false when the relay ends or serves too much.
func (f *flows) begin(src netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.served >= maxFlows || f.from[src] >= maxFromOne {
		return false
	}
	f.served++
	f.from[src]++
	f.work.Add(1)
	return true
}

func (f *flows) done(src netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served--
	if f.from[src]--; f.from[src] == 0 {
		delete(f.from, src)
	}
	f.work.Done()
}

// add reports false, and has nothing added, when the relay ends, or when t, which is
// asked for while nobody can sweep, does not allow it. Of an agent's live connections
// the newest stays.
func (f *flows) add(fl *flow, t func() *table) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || !fl.allowed(t()) {
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
