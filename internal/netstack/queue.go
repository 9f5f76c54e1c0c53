package netstack

import (
	"hash/maphash"
	"sync"

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
	// lanes is how many flows are told apart; more share.
	lanes = 256
	// turn is how many bytes a lane may send before the next one: a train, so
	// that the reader can merge.
	turn = 64 << 10
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

// flow is a number for the packet's flow: addresses, protocol and ports. What
// has no ports, and fragments, which may lack them, go by the rest.
func (o *outbound) flow() uint64 {
	var h maphash.Hash
	h.SetSeed(flowSeed)
	var ip, l4 []byte
	var protocol byte
	if o.pkt != nil {
		ip, l4 = o.pkt.NetworkHeader().Slice(), o.pkt.TransportHeader().Slice()
	} else {
		ip = o.raw.B
	}
	switch {
	case len(ip) >= header.IPv4MinimumSize && ip[0]>>4 == 4:
		if hl := int(ip[0]&15) * 4; o.raw != nil && hl <= len(ip) && ip[6]&0x3f|ip[7] == 0 {
			l4 = ip[hl:]
		}
		h.Write(ip[12:20])
		protocol = ip[9]
	case len(ip) >= header.IPv6MinimumSize:
		if o.raw != nil {
			l4 = ip[header.IPv6MinimumSize:]
		}
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

// queue is bounded. It blocks its writers when it is full and its reader when it
// is empty; closing it lets everybody go. Flows take turns (as in RFC 8290, but
// nothing is dropped): one that has sent little comes before those that always
// have more, and does not wait for room, so that a query passes by a download.
type queue struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	slots    [queuePackets + queueReserve]slot
	free     int16 // list of slots
	lane     [lanes]lane
	fresh    list // lanes that had nothing waiting,
	others   list // and those that have had their turn
	n, bytes int
	blocked  int // writers that wait
	idle     bool
	closed   bool
}

// slot holds a packet in a list of slots; none ends a list.
type slot struct {
	outbound
	next int16
}

const none = -1

// lane is a flow's packets.
type lane struct {
	head, tail int16 // slots
	next       int16 // lane in the same list
	active     bool  // in a list
	left       int   // bytes of its turn
}

// list is one of lanes.
type list struct{ head, tail int16 }

func (q *queue) init() {
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	for i := range q.slots {
		q.slots[i].next = int16(i) - 1 // the first ends the list: none
	}
	q.free = int16(len(q.slots)) - 1
	for i := range q.lane {
		q.lane[i].head = none
	}
	q.fresh.head, q.others.head = none, none
}

func (q *queue) full() bool { return q.bytes >= queueBytes || q.n >= queuePackets }

// holdsBack reports whether there is no room for a packet of l that may wait.
func (q *queue) holdsBack(l *lane) bool {
	if l.head == none {
		return q.bytes >= brimBytes || q.n >= brimPackets
	}
	return q.full()
}

func (q *queue) push(l *list, i int16) {
	q.lane[i].next = none
	if l.head == none {
		l.head = i
	} else {
		q.lane[l.tail].next = i
	}
	l.tail = i
}

// put adds o. When there is no room it waits, or, without wait, uses the reserve.
// It reports false, and o stays the caller's, when o cannot be had.
func (q *queue) put(o outbound, size int, wait bool) bool {
	o.size = size
	at := int16(o.flow() % lanes)
	q.mu.Lock()
	l := &q.lane[at]
	for wait && !q.closed && q.holdsBack(l) {
		q.blocked++
		q.notFull.Wait()
		q.blocked--
	}
	if q.closed || q.n == len(q.slots) {
		q.mu.Unlock()
		return false
	}
	q.addLocked(o, at)
	return true
}

// offer adds o when there is room for what may wait, and leaves it to the caller
// when there is not.
func (q *queue) offer(o outbound, size int) bool {
	o.size = size
	at := int16(o.flow() % lanes)
	q.mu.Lock()
	if q.closed || q.n == len(q.slots) || q.holdsBack(&q.lane[at]) {
		q.mu.Unlock()
		return false
	}
	q.addLocked(o, at)
	return true
}

// addLocked puts o into a lane of the locked queue, which has a slot for it,
// unlocks it and wakes the reader.
func (q *queue) addLocked(o outbound, at int16) {
	l := &q.lane[at]
	i := q.free
	q.free = q.slots[i].next
	q.slots[i] = slot{o, none}
	if l.head == none {
		l.head = i
	} else {
		q.slots[l.tail].next = i
	}
	l.tail = i
	if !l.active {
		l.active, l.left = true, turn
		q.push(&q.fresh, at)
	}
	q.n++
	q.bytes += o.size
	wake := q.idle
	q.idle = false
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
}

// take moves packets to dst until it is full or has limit bytes, at least one
// if wait. It returns 0 when there is none, and false once the queue is closed.
func (q *queue) take(dst []outbound, limit int, wait bool) (int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 {
		if q.closed {
			return 0, false
		}
		if !wait {
			return 0, true
		}
		q.idle = true
		q.notEmpty.Wait()
	}
	k := 0
	for bytes := 0; k < len(dst) && q.n > 0 && bytes < limit; k++ {
		dst[k] = q.pop()
		bytes += dst[k].size
	}
	if q.blocked > 0 && !q.full() {
		q.notFull.Broadcast()
	}
	return k, true
}

// pop takes the next packet in turn; there is one.
func (q *queue) pop() outbound {
	for {
		from := &q.fresh
		if from.head == none {
			from = &q.others
		}
		at := from.head
		l := &q.lane[at]
		switch {
		case l.head == none && (from == &q.others || q.others.head == none):
			from.head, l.active = l.next, false
			continue
		case l.head == none || l.left <= 0:
			// An empty lane has to queue up before it may be fresh again, or it
			// would come first all the time.
			if l.left <= 0 {
				l.left += turn
			}
			from.head = l.next
			q.push(&q.others, at)
			continue
		}
		i := l.head
		o := q.slots[i].outbound
		l.head = q.slots[i].next
		l.left -= o.size
		q.slots[i] = slot{next: q.free}
		q.free = i
		q.n--
		q.bytes -= o.size
		return o
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0
	}
	return q.n
}

// close releases what is queued and everybody who waits.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for q.n > 0 {
		o := q.pop()
		o.release()
	}
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}
