package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackDelay is how long an acknowledgement may wait. RFC 1122, section
	// 4.2.3.2, allows 500 ms, Linux takes 40; this is what a program needs to
	// answer, and too little for a sender without patience to notice.
	ackDelay = 5 * time.Millisecond
	// ackBytes is how much an acknowledgement that waits is at most about: with
	// more, which is a second segment, the sender may be waiting for it.
	ackBytes = 1024
	// ackLanes is how many flows are told apart. Those that share a lane take it
	// from each other, and wait less often.
	ackLanes = 1024
)

// acks holds acknowledgements back that have nothing else to say: those that
// data or the next acknowledgement of their flow overtakes need not be sent. gVisor
// itself acknowledges at once, which makes two of four packets of a small question
// and its answer.
type acks struct {
	send func(*stack.PacketBuffer) // takes over a reference; must not wait

	mu    sync.Mutex
	lanes [ackLanes]ackLane
	order ackLane // the root of a ring: lanes that hold one, the longest first
	timer *time.Timer
	armed bool // the timer will ring
	over  bool // nothing is held any more
}

// ackLane is the flow that had a packet last.
type ackLane struct {
	flow       uint64
	ack        uint32              // its last acknowledgement, sent or held
	held       *stack.PacketBuffer // with a reference; nil: none
	until      time.Time           // when it is sent by itself
	prev, next *ackLane            // in order, where held is
}

func (a *acks) init(send func(*stack.PacketBuffer)) {
	a.send = send
	a.order.prev, a.order.next = &a.order, &a.order
}

// hold is asked about each TCP packet before it is sent. It reports true when it
// keeps the packet, with a reference of its own, to send it later or never.
func (a *acks) hold(p *stack.PacketBuffer) bool {
	flow := (&outbound{pkt: p}).flow()
	a.mu.Lock()
	defer a.mu.Unlock()
	l := &a.lanes[flow%ackLanes]
	if l.flow != flow {
		a.letGoLocked(l)
		l.flow, l.ack = flow, 0
	}
	h := header.TCP(p.TransportHeader().Slice())
	news := h.AckNumber() - l.ack
	l.ack = h.AckNumber()
	pure := p.Data().Size() == 0 && h.Flags() == header.TCPFlagAck
	second := l.held != nil
	switch {
	case !second:
	case pure && int32(news) <= 0: // a duplicate: each of them counts
		a.letGoLocked(l)
	default:
		l.held.DecRef()
		a.unlinkLocked(l)
	}
	if a.over || !pure || second || news == 0 || news > ackBytes || tellsMore(h) {
		return false
	}
	l.held, l.until = p.IncRef(), time.Now().Add(ackDelay)
	l.prev, l.next = a.order.prev, &a.order
	l.prev.next, l.next.prev = l, l
	a.armLocked(ackDelay)
	return true
}

// tellsMore reports whether an acknowledgement has other options than a time
// stamp, that is SACK blocks: then something is missing.
func tellsMore(h header.TCP) bool {
	o := h.Options()
	for len(o) > 0 && o[0] == header.TCPOptionNOP {
		o = o[1:]
	}
	return len(o) > 0 && (o[0] != header.TCPOptionTS || len(o) != header.TCPOptionTSLength)
}

// letGoLocked sends what a lane holds.
func (a *acks) letGoLocked(l *ackLane) {
	if p := l.held; p != nil {
		a.unlinkLocked(l)
		a.send(p)
	}
}

func (a *acks) unlinkLocked(l *ackLane) {
	l.prev.next, l.next.prev = l.next, l.prev
	l.held, l.prev, l.next = nil, nil, nil
}

func (a *acks) armLocked(d time.Duration) {
	switch {
	case a.armed:
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(d, a.ring)
	default:
		a.timer.Reset(d)
	}
	a.armed = true
}

// ring sends what has waited long enough.
func (a *acks) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = false
	now := time.Now()
	for l := a.order.next; l != &a.order; l = a.order.next {
		if left := l.until.Sub(now); left > 0 {
			a.armLocked(left)
			return
		}
		a.letGoLocked(l)
	}
}

// flush sends all that is held.
func (a *acks) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushLocked()
}

// close sends all that is held, and holds nothing from then on.
func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.flushLocked()
}

func (a *acks) flushLocked() {
	for a.order.next != &a.order {
		a.letGoLocked(a.order.next)
	}
}
