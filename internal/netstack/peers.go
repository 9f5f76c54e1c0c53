package netstack

import (
	"math"
	"net/netip"
	"time"
)

const (
	// slowPackets is room for what waits for slow peers, who share it; slowBytes
	// is what one of them may have there: 6 MiB is a TCP flow's largest window.
	slowPackets = 1024
	slowBytes   = 6 << 20
	// slowTake is how much of it goes to the device at once.
	slowTake = 16 << 10
	// watchEvery is when a reader looks again whether a peer has room, should
	// nobody tell.
	watchEvery = 100 * time.Millisecond
	// keptShelves is how many peers' shelves are kept while they are empty.
	keptShelves = 16

	// A flow to a slow peer is to have no more waiting than it needs: one whose
	// packets have all waited for longer than aqmTarget, for aqmInterval, loses one
	// (RFC 8289, whose target is 5 ms; a packet of 1420 bytes takes 11 at 1 Mbit/s).
	aqmTarget   = 20 * time.Millisecond
	aqmInterval = 100 * time.Millisecond
)

// peers is what the device says about those it sends to.
type peers struct {
	of     func(netip.Addr) uint64
	credit func(peer uint64) (room, slow bool)
}

// Sort makes Read give out packets by whose they are, which is what of says of an
// address, 0 for nobody. Those of a peer without room, as credit says, are passed
// over and wait; those of a peer whose way is slow hold up nobody who sends, and may
// be dropped instead. Both functions are called with locks held.
func (d *device) Sort(of func(netip.Addr) uint64, credit func(peer uint64) (room, slow bool)) {
	d.s.link.out.peers.Store(&peers{of, credit})
}

// Look makes a Read that waits ask for credit again.
func (d *device) Look() { d.s.link.out.look() }

// ofOne reports whether two addresses are one peer's.
func (q *queue) ofOne(a, b netip.Addr) bool {
	p := q.peers.Load()
	return p == nil || b.IsValid() && p.of(a) != 0 && p.of(a) == p.of(b)
}

// judge asks whether the way to a peer is slow; s is its shelf, or nil.
func (q *queue) judge(peer uint64, s *shelf) bool {
	p := q.peers.Load()
	if p == nil {
		return false
	}
	_, slow := p.credit(peer)
	if s != nil {
		q.setSlow(s, slow)
	}
	return slow
}

func (q *queue) setSlow(s *shelf, slow bool) {
	if s.slow == slow {
		return
	}
	n, bytes := s.load.n, s.load.bytes
	q.count(s, -n, -bytes)
	s.slow = slow
	q.count(s, n, bytes)
	s.round.turn = turn
	if slow {
		s.round.turn = slowTurn
		q.slows++
		q.notFull.Broadcast() // who waits to send to it need not
	} else {
		q.slows--
	}
}

// tooMuch reports whether a slow peer has all that it may have waiting.
func (q *queue) tooMuch(s *shelf) bool {
	return s != nil && s.load.n > 0 &&
		(s.load.bytes >= slowBytes || s.load.n*q.slows >= slowPackets || q.slow.n >= slowPackets)
}

// mayTake reports whether a peer has room for its next packet.
func (q *queue) mayTake(s *shelf) bool {
	p := q.peers.Load()
	if p == nil {
		return true
	}
	if s.visit != q.takes {
		room, slow := p.credit(s.peer)
		q.setSlow(s, slow)
		s.visit, s.taken, s.room = q.takes, 0, room
	}
	return s.room && !(s.slow && s.taken >= slowTake)
}

// unpark lets all shelves take turns again.
func (q *queue) unpark() {
	for i, s := range q.parked {
		s.parked = false
		q.round.wait(s)
		q.parked[i] = nil
	}
	q.parked = q.parked[:0]
}

// shelfOf is a peer's shelf, a new one if it has none.
func (q *queue) shelfOf(peer uint64) *shelf {
	s := q.shelves[peer]
	if s != nil {
		if s.empty() {
			q.setSlow(s, false) // until it is asked for
		}
		return s
	}
	if len(q.shelves) >= keptShelves {
		for old, idle := range q.shelves {
			if idle.empty() && !idle.active && !idle.parked {
				q.setSlow(idle, false)
				delete(q.shelves, old)
				s = idle
				break
			}
		}
	}
	if s == nil {
		s = newShelf()
	}
	s.peer, s.visit = peer, 0
	q.shelves[peer] = s
	return s
}

// watchLocked has a reader that waits while shelves are parked look again.
func (q *queue) watchLocked() {
	switch {
	case len(q.parked) == 0 || q.watching:
		return
	case q.watch == nil:
		q.watch = time.AfterFunc(watchEvery, q.look)
	default:
		q.watch.Reset(watchEvery)
	}
	q.watching = true
}

// look wakes a reader for which there are only parked shelves.
func (q *queue) look() {
	q.mu.Lock()
	q.watching = false
	wake := q.idle && len(q.parked) > 0
	if wake {
		q.idle = false
	}
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
}

var started = time.Now()

// clock is the time since the process began.
func clock() time.Duration { return time.Since(started) }

// aqm is the active queue management of a flow, a plain form of RFC 8289: each
// aqmInterval in which nothing left sooner than aqmTarget costs one packet, and with
// each that it has cost the intervals get shorter. The zero aqm is that of a flow
// that has had no queue.
type aqm struct {
	next time.Duration // of clock: when the next is lost; 0: nothing waits for long
	lost int
}

// late reports whether a packet that came at since, 0 for just now, is to be lost.
// The last one of a flow never is.
func (a *aqm) late(since time.Duration, last bool) bool {
	now := clock()
	switch {
	case last || since == 0 || now-since < aqmTarget:
		*a = aqm{}
	case a.next == 0:
		a.next = now + aqmInterval
	case now >= a.next:
		a.lost++
		a.next = now + time.Duration(float64(aqmInterval)/math.Sqrt(float64(a.lost)))
		return true
	}
	return false
}
