package netstack

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// queueBytes bounds what waits for WireGuard: beyond it senders are held
	// back. It is 2 ms at 2 Gbit/s, and several trains, so that encryption has
	// work for each core.
	queueBytes = 512 << 10
	// queuePackets bounds small packets; queueReserve more are kept for those
	// that may not wait.
	queuePackets = 1024
	queueReserve = 1024
	// Who has nothing waiting yet may put as many bytes again and half of the
	// reserve.
	brimBytes, brimPackets = 2 * queueBytes, queuePackets + queueReserve/2
	// lanes is how many flows of a peer are told apart; more share.
	lanes = 256
)

// outbound is one packet on its way to WireGuard: gVisor's, with a reference,
// or one that was built by hand.
type outbound struct {
	pkt  *stack.PacketBuffer
	raw  *Buffer
	size int
}

func (o *outbound) release() {
	if o.pkt != nil {
		o.pkt.DecRef()
	}
	if o.raw != nil {
		o.raw.Free()
	}
	*o = outbound{}
}

var flowSeed = maphash.MakeSeed()

// headers are the packet's IP header and what follows it. What follows a fragment's,
// which may lack it, is nil.
func (o *outbound) headers() (ip, l4 []byte) {
	if o.pkt != nil {
		return o.pkt.NetworkHeader().Slice(), o.pkt.TransportHeader().Slice()
	}
	ip = o.raw.B
	switch {
	case len(ip) >= header.IPv4MinimumSize && ip[0]>>4 == 4:
		if hl := int(ip[0]&15) * 4; hl <= len(ip) && ip[6]&0x3f|ip[7] == 0 {
			l4 = ip[hl:]
		}
	case len(ip) >= header.IPv6MinimumSize:
		l4 = ip[header.IPv6MinimumSize:]
	}
	return ip, l4
}

// flow is a number for the packet's flow: addresses, protocol and ports. What
// has no ports, and fragments, which may lack them, go by the rest.
func (o *outbound) flow() uint64 { return flow(o.headers()) }

// flow is that number, of a packet with these headers.
func flow(ip, l4 []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(flowSeed)
	var protocol byte
	switch {
	case len(ip) >= header.IPv4MinimumSize && ip[0]>>4 == 4:
		h.Write(ip[12:20])
		protocol = ip[9]
	case len(ip) >= header.IPv6MinimumSize:
		h.Write(ip[8:40])
		protocol = ip[6]
	}
	h.WriteByte(protocol)
	ports := protocol == uint8(header.TCPProtocolNumber) || protocol == uint8(header.UDPProtocolNumber)
	if ports && len(l4) >= 4 {
		h.Write(l4[:4])
	}
	return h.Sum64()
}

// destination is where a packet with this IP header goes; the zero Addr when it is
// none.
func destination(ip []byte) netip.Addr {
	switch {
	case len(ip) >= header.IPv4MinimumSize && ip[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(ip[16:20]))
	case len(ip) >= header.IPv6MinimumSize:
		return netip.AddrFrom16([16]byte(ip[24:40]))
	}
	return netip.Addr{}
}

// queue is bounded. It blocks its writers when it is full and its reader when it
// is empty; closing it lets everybody go. Peers take turns, and so do the flows of
// each (as in RFC 8290, but nothing is dropped for want of room): one that has sent little comes
// before those that always have more, and does not wait for room, so that a query
// passes by a download.
//
// What is for a peer whose way is slow, as the device says (peers.go), does not
// count for the others and holds nobody back: it is kept aside until the peer has
// room, and there it may be dropped.
type queue struct {
	peers atomic.Pointer[peers] // nil: there is one

	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	slots    [queuePackets + queueReserve + slowPackets]slot
	free     int16             // list of slots
	shelves  map[uint64]*shelf // of the peers that have something waiting, and some more
	round    round             // of shelves
	parked   []*shelf          // that are in no round for want of room
	takes    uint64
	prompt   load // for peers whose way is not slow
	slow     load // for the others,
	slows    int  // and how many they are
	blocked  int  // writers that wait
	idle     bool
	watch    *time.Timer
	watching bool
	closed   bool
}

// load is what waits.
type load struct{ n, bytes int }

func (l *load) add(n, bytes int) { l.n, l.bytes = l.n+n, l.bytes+bytes }

// slot holds a packet in a list of slots; none ends a list.
type slot struct {
	outbound
	next  int16
	since time.Duration // of clock: when it came, if its peer was slow; 0: no matter
}

const none = -1

// lane is a flow's packets.
type lane struct {
	seat
	head, tail int16 // slots
	aqm
}

func (l *lane) place() *seat { return &l.seat }
func (l *lane) empty() bool  { return l.head == none }

// shelf is a peer's lanes.
type shelf struct {
	seat
	peer   uint64
	lane   [lanes]lane
	round  round
	load   load
	slow   bool
	parked bool
	visit  uint64 // the take that has looked at it last,
	room   bool   // what it was told,
	taken  int    // and how many bytes it took
}

func (s *shelf) place() *seat { return &s.seat }
func (s *shelf) empty() bool  { return s.load.n == 0 }

func newShelf() *shelf {
	s := &shelf{round: round{turn: turn}}
	for i := range s.lane {
		s.lane[i].head = none
	}
	return s
}

func (q *queue) init() {
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	for i := range q.slots {
		q.slots[i].next = int16(i) - 1 // the first ends the list: none
	}
	q.free = int16(len(q.slots)) - 1
	q.round.turn = turn
	q.shelves, q.takes = map[uint64]*shelf{}, 1
}

func (q *queue) full() bool {
	return q.prompt.bytes >= queueBytes || q.prompt.n >= queuePackets
}

// holdsBack reports whether there is no room for a packet of a lane that may wait.
func (q *queue) holdsBack(s *shelf, at uint8) bool {
	if s == nil || s.lane[at].empty() {
		return q.prompt.bytes >= brimBytes || q.prompt.n >= brimPackets
	}
	return q.full()
}

// refuses reports whether a packet of a shelf, nil for a new one, cannot be had.
func (q *queue) refuses(s *shelf, slow bool) bool {
	if slow && q.tooMuch(s) || !slow && q.prompt.n >= queuePackets+queueReserve {
		return true
	}
	return q.closed || q.n() == len(q.slots)
}

// put adds o. When there is no room it waits, or, without wait, uses the reserve.
// It reports false, and o stays the caller's, when o cannot be had.
func (q *queue) put(o outbound, size int, wait bool) bool {
	o.size = size
	peer, at := q.sorted(&o)
	q.mu.Lock()
	for {
		s := q.shelves[peer]
		slow := s != nil && s.slow
		if wait && !slow && q.holdsBack(s, at) {
			slow = q.judge(peer, s)
		}
		switch {
		case q.refuses(s, slow):
			q.mu.Unlock()
			return false
		case !wait || slow || !q.holdsBack(s, at):
			q.addLocked(o, peer, at)
			return true
		}
		q.blocked++
		q.notFull.Wait()
		q.blocked--
	}
}

// offer adds o when there is room for what may wait, and leaves it to the caller
// when there is not.
func (q *queue) offer(o outbound, size int) bool {
	o.size = size
	peer, at := q.sorted(&o)
	q.mu.Lock()
	s := q.shelves[peer]
	slow := s != nil && s.slow
	if q.refuses(s, slow) || !slow && q.holdsBack(s, at) {
		q.mu.Unlock()
		return false
	}
	q.addLocked(o, peer, at)
	return true
}

// sorted tells whose a packet is, and in which of his lanes.
func (q *queue) sorted(o *outbound) (peer uint64, at uint8) {
	ip, l4 := o.headers()
	if p := q.peers.Load(); p != nil {
		peer = p.of(destination(ip))
	}
	return peer, uint8(flow(ip, l4) % lanes)
}

// addLocked puts o into a lane of the locked queue, which has a slot for it,
// unlocks it and wakes the reader.
func (q *queue) addLocked(o outbound, peer uint64, at uint8) {
	s := q.shelfOf(peer)
	i := q.free
	q.free = q.slots[i].next
	q.slots[i] = slot{outbound: o, next: none}
	if s.slow {
		q.slots[i].since = clock()
	}
	l := &s.lane[at]
	if l.head == none {
		l.head = i
	} else {
		q.slots[l.tail].next = i
	}
	l.tail = i
	s.round.join(l)
	if !s.parked {
		q.round.join(s)
	}
	q.count(s, 1, o.size)
	wake := q.idle && !s.parked
	if wake {
		q.idle = false
	}
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
}

// count adds to what waits.
func (q *queue) count(s *shelf, n, bytes int) {
	s.load.add(n, bytes)
	if s.slow {
		q.slow.add(n, bytes)
	} else {
		q.prompt.add(n, bytes)
	}
}

func (q *queue) n() int { return q.prompt.n + q.slow.n }

// take moves packets to dst until it is full or has limit bytes, at least one
// if wait. It returns 0 when there is none, and false once the queue is closed.
func (q *queue) take(dst []outbound, limit int, wait bool) (int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, bytes := 0, 0; ; {
		if wait {
			q.takes++
			q.unpark()
		}
		for k < len(dst) && bytes < limit {
			s := q.next()
			if s == nil {
				break
			}
			var ok bool
			if dst[k], ok = q.pop(s); ok {
				bytes += dst[k].size
				k++
			}
		}
		if q.blocked > 0 && !q.full() {
			q.notFull.Broadcast()
		}
		switch {
		case k > 0:
			return k, true
		case q.closed:
			return 0, false
		case !wait:
			return 0, true
		}
		q.idle = true
		q.watchLocked()
		q.notEmpty.Wait()
	}
}

// next is the shelf whose turn it is; nil: there is none that has packets and room.
func (q *queue) next() *shelf {
	for {
		first := q.round.first()
		if first == nil {
			return nil
		}
		s := first.(*shelf)
		if q.mayTake(s) {
			return s
		}
		q.round.leave()
		s.parked = true
		q.parked = append(q.parked, s)
	}
}

// pop takes the next packet of a shelf, which has one. It reports false when that
// is lost.
func (q *queue) pop(s *shelf) (o outbound, ok bool) {
	l := s.round.first().(*lane)
	i := l.head
	sl := q.slots[i]
	l.head = sl.next
	l.left -= sl.size
	q.slots[i] = slot{next: q.free}
	q.free = i
	q.count(s, -1, -sl.size)
	lost := s.slow && l.late(sl.since, l.head == none)
	if !lost {
		s.left -= sl.size
		s.taken += sl.size
	}
	if lost {
		sl.release()
	}
	return sl.outbound, !lost
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0
	}
	return q.n()
}

// close releases what is queued and everybody who waits.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.peers.Store(nil)
	q.unpark()
	for s := q.next(); s != nil; s = q.next() {
		if o, ok := q.pop(s); ok {
			o.release()
		}
	}
	if q.watch != nil {
		q.watch.Stop()
	}
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}
