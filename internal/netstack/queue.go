package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// queueBytes bounds what waits for WireGuard: beyond it senders are held
	// back. It is the latency that bulk adds to everybody else, 2 ms at
	// 2 Gbit/s, and several trains, so that encryption has work for each core.
	queueBytes = 512 << 10
	// queuePackets bounds small packets; queueReserve more are kept for those
	// that may not wait.
	queuePackets = 1024
	queueReserve = 1024
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

// queue is a bounded ring that blocks its writers when it is full and its
// reader when it is empty. Closing it lets everybody go.
type queue struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	ring     [queuePackets + queueReserve]outbound
	head, n  int
	bytes    int
	blocked  int // writers that wait
	idle     bool
	closed   bool
}

func (q *queue) init() {
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
}

func (q *queue) full() bool { return q.bytes >= queueBytes || q.n >= queuePackets }

// put adds o. When there is no room it waits, or, without wait, uses the
// reserve. It reports false, and o stays the caller's, when o cannot be had.
func (q *queue) put(o outbound, size int, wait bool) bool {
	o.size = size
	q.mu.Lock()
	for wait && q.full() && !q.closed {
		q.blocked++
		q.notFull.Wait()
		q.blocked--
	}
	if q.closed || q.n == len(q.ring) {
		q.mu.Unlock()
		return false
	}
	q.ring[(q.head+q.n)%len(q.ring)] = o
	q.n++
	q.bytes += size
	wake := q.idle
	q.idle = false
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
	return true
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
	for bytes := 0; k < len(dst) && q.n > 0 && bytes < limit; {
		dst[k] = q.ring[q.head]
		q.ring[q.head] = outbound{}
		q.bytes -= dst[k].size
		bytes += dst[k].size
		q.head = (q.head + 1) % len(q.ring)
		q.n--
		k++
	}
	if q.blocked > 0 && !q.full() {
		q.notFull.Broadcast()
	}
	return k, true
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
	for ; q.n > 0; q.n-- {
		q.ring[q.head].release()
		q.head = (q.head + 1) % len(q.ring)
	}
	q.bytes = 0
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}
