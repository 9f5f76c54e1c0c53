// Package given keeps the host from virtual addresses that it was not given: by an
// answer of the session's DNS, or by somebody who has named one. Whoever only guesses
// an address, such as a web page under whose own name it resolves (DNS rebinding), is
// refused.
//
// The Book decides. It is pure: no sockets, no clock, no DNS. The Device asks it about
// each packet. Neither knows who gives addresses out.
package given

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"podnet.dev/internal/packet"
	"podnet.dev/internal/remap"
)

// Max is how many addresses a Book remembers, of some 100 bytes each. Where there is
// no room those are forgotten that were given or used longest ago, an eighth at once.
const Max = 4096

// Book remembers which addresses were given. The zero Book remembers nothing and lets
// everything pass. Its methods are safe for concurrent use.
type Book struct {
	view atomic.Pointer[view] // nil: there have never been virtual addresses
	// turn counts the calls of Give: it is the clock of use.
	turn    atomic.Uint64
	refused atomic.Uint64
	last    atomic.Pointer[netip.Addr]

	mu sync.Mutex // one change of view at a time
}

// view is what packets are judged by. It never changes once made, but for when an
// address was used.
type view struct {
	virtual remap.Map
	next    remap.Map // see Expect
	known   map[netip.Addr]*atomic.Uint64
}

// Expect has m's virtual addresses guarded beside those that are there: Guard is about
// to be told of them, and who maps them gives them out before that.
func (b *Book) Expect(m remap.Map) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.view.Load()
	switch {
	case old == nil && m.IsZero(), old != nil && old.virtual.Equal(m):
	case old == nil:
		b.view.Store(&view{next: m})
	default:
		b.view.Store(&view{old.virtual, m, old.known})
	}
}

// Guard makes m's virtual addresses the only ones. Nothing passes to one that was not
// given. Those that stand for others than before are forgotten.
func (b *Book) Guard(m remap.Map) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.view.Load()
	switch {
	case old == nil && m.IsZero(), old != nil && old.virtual.Equal(m) && old.next.IsZero():
		return
	case old == nil:
		b.view.Store(&view{virtual: m})
		return
	}
	known := maps.Clone(old.known)
	maps.DeleteFunc(known, func(a netip.Addr, _ *atomic.Uint64) bool {
		now, stands := m.Real(a)
		was, stood := old.virtual.Real(a)
		return !stands || stood && was != now
	})
	b.view.Store(&view{virtual: m, known: known})
}

// stands reports whether an address is one that is guarded.
func (v *view) stands(a netip.Addr) bool { return v.virtual.Stands(a) || v.next.Stands(a) }

// Give lets packets to these addresses pass. What is no virtual address it ignores;
// where there are none it does not look at all.
func (b *Book) Give(all iter.Seq[netip.Addr]) {
	if b.view.Load() == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.view.Load()
	turn := b.turn.Add(1)
	var fresh []netip.Addr
	for a := range all {
		if used := v.known[a]; used != nil {
			used.Store(turn)
		} else if v.stands(a) {
			fresh = append(fresh, a)
		}
	}
	if fresh == nil {
		return
	}
	fresh = fresh[:min(len(fresh), Max)]
	known := make(map[netip.Addr]*atomic.Uint64, len(v.known)+len(fresh))
	maps.Copy(known, v.known)
	if len(known)+len(fresh) > Max {
		forget(known, max(len(fresh), Max/8))
	}
	for _, a := range fresh {
		used := new(atomic.Uint64)
		used.Store(turn)
		known[a] = used
	}
	b.view.Store(&view{v.virtual, v.next, known})
}

// forget makes room for some more addresses.
func forget(known map[netip.Addr]*atomic.Uint64, room int) {
	type entry struct {
		addr netip.Addr
		used uint64
	}
	all := make([]entry, 0, len(known))
	for a, used := range known { // packets go on using them: each is asked once
		all = append(all, entry{a, used.Load()})
	}
	slices.SortFunc(all, func(x, y entry) int { return cmp.Or(cmp.Compare(x.used, y.used), x.addr.Compare(y.addr)) })
	for _, e := range all[:min(len(all), max(0, len(all)+room-Max))] {
		delete(known, e.addr)
	}
}

// Open gives one address, and reports whether it is a virtual one.
func (b *Book) Open(a netip.Addr) bool {
	v := b.view.Load()
	if v == nil || !v.stands(a) {
		return false
	}
	b.Give(slices.Values([]netip.Addr{a}))
	return true
}

// Refused is how many packets did not pass, and to where the last of them was.
func (b *Book) Refused() (n uint64, last netip.Addr) {
	if a := b.last.Load(); a != nil {
		last = *a
	}
	return b.refused.Load(), last
}

// guards returns what packets are to be judged by, nil where all pass.
func (b *Book) guards() *view {
	if v := b.view.Load(); v != nil && !(v.virtual.IsZero() && v.next.IsZero()) {
		return v
	}
	return nil
}

// refuse counts a packet that does not pass, and reports whether it is the first.
func (b *Book) refuse(to netip.Addr) (first bool) {
	b.last.Store(&to)
	return b.refused.Add(1) == 1
}

// verdict is what becomes of a packet.
type verdict uint8

const (
	pass   verdict = iota
	known          // it passes, as does all that goes there
	refuse         // and its sender is told
	drop
)

// judge decides about a packet of the host's to an address, and notes the use of one that
// is known. For those it takes no lock, allocates nothing and does not look further.
//
// Address and flow are different things: a flow that is open goes on when its address
// was forgotten. In TCP only what asks for a connection has to know its address: any
// other segment belongs to one, or the gateway resets it. Errors about a packet that
// has come are let through for the same reason. Datagrams and pings carry no such
// mark; they keep their address from being forgotten as long as they come.
func (v *view) judge(to netip.Addr, b []byte, turn uint64) verdict {
	if !v.stands(to) {
		return pass
	}
	if used := v.known[to]; used != nil {
		if used.Load() != turn { // seldom: what is written here other cores read
			used.Store(turn)
		}
		return known
	}
	p, ok := packet.Parse(b)
	switch {
	case !ok, p.Offset > 0: // of a fragment the first is told of
		return drop
	case p.Err(), p.Proto == packet.TCP && underWay(p.Payload()):
		return pass
	}
	return refuse
}

// underWay reports whether a TCP segment is of a connection that is there: it has no
// SYN. A header that is not whole says nothing.
func underWay(segment []byte) bool { return len(segment) >= 20 && segment[13]&0x02 == 0 }

// destination is where WireGuard takes a packet to go, the zero Addr of one that it drops.
func destination(b []byte) netip.Addr {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[24:40]))
	}
	return netip.Addr{}
}
