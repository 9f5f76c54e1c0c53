package netstack

import "sync"

// Buffer is room for one outgoing packet that is built by hand. Send takes it
// over; Free returns one that was not sent.
type Buffer struct {
	B    []byte
	pool *sync.Pool
}

// Two sizes: what fits the tunnel, and everything else.
const smallBuffer = 2048

var (
	smallPool = sync.Pool{New: func() any { return &Buffer{B: make([]byte, smallBuffer)} }}
	largePool = sync.Pool{New: func() any { return &Buffer{B: make([]byte, 1<<16)} }}
)

// NewBuffer returns a Buffer of n bytes, at most 65,535, with arbitrary
// content.
func NewBuffer(n int) *Buffer {
	pool := &smallPool
	if n > smallBuffer {
		pool = &largePool
	}
	b := pool.Get().(*Buffer)
	b.B, b.pool = b.B[:n], pool
	return b
}

// Free gives the Buffer back.
func (b *Buffer) Free() {
	b.B = b.B[:cap(b.B)]
	b.pool.Put(b)
}

// Send queues the packet in b for the tunnel; b is gone afterwards. With wait
// it is held back while the queue is full, which nobody may do who is called
// from a Hook. It reports whether the packet was queued.
func (s *Stack) Send(b *Buffer, wait bool) bool {
	if !s.link.out.put(outbound{raw: b}, len(b.B), wait) {
		b.Free()
		return false
	}
	return true
}
