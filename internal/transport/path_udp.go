package transport

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/transport/fragment"
)

// udpPath sends by the Bind's own sockets to one address.
type udpPath struct {
	g      *Gateway
	id     paths.ID
	ep     *udpEndpoint
	rx, tx atomic.Uint64
	limit  atomic.Int32 // the longest datagram that passes, in bytes; 0: not known
	long   repetitions  // of what was sent
	failed atomic.Pointer[error]

	// Under Gateway.mu.
	found   bool      // the gateway has pinged from there, nobody has told us
	knocked time.Time // when it last did
}

func (p *udpPath) send(bufs [][]byte, _ <-chan struct{}) error {
	n := longest(bufs)
	if n > paths.MinDatagram {
		p.long.note(time.Now(), bufs)
	}
	// A path that is in use has carried MinDatagram.
	sent, err := p.g.b.sendUDP(bufs, p.ep, n, max(int(p.limit.Load()), paths.MinDatagram))
	p.tx.Add(sent)
	return err
}

// limitLocked sets the longest datagram that passes, 0 when it is not known any more.
// When it falls, what was too long is sent once more. g.mu is held.
func (p *udpPath) limitLocked(now time.Time, limit int) {
	if old := int(p.limit.Swap(int32(limit))); 0 < limit && limit < old {
		p.g.againLocked(p, p.long.take(now))
	}
	p.long.tidy(now)
}

func (p *udpPath) probe(m []byte) error {
	err := p.g.b.tell(way{from: p.ep.dst}, m)
	if len(m) <= paths.MinDatagram { // longer ones are meant to fail
		p.failed.Store(&err)
	}
	return err
}

func (p *udpPath) leave() {}

func (p *udpPath) is(w way) bool { return w.c == nil && w.from == p.ep.dst }

func (p *udpPath) traffic() paths.Traffic {
	return paths.Traffic{Sent: p.tx.Load(), Received: p.rx.Load()}
}

func (p *udpPath) status() PathStatus {
	st := PathStatus{Kind: UDP, Remote: p.ep.DstToString(), RxBytes: p.rx.Load(), TxBytes: p.tx.Load()}
	if err := p.failed.Load(); err != nil {
		st.LastError = *err
	}
	return st
}

// cutter is what it takes to cut a batch.
type cutter struct {
	bufs [][]byte
	mem  []byte
}

var cutters = sync.Pool{New: func() any { return &cutter{} }}

// sendUDP sends bufs, the longest of which has n bytes, to ep: in pieces where they are
// longer than limit, 0 for none. It returns how many bytes went out.
func (b *Bind) sendUDP(bufs [][]byte, ep *udpEndpoint, n, limit int) (sent uint64, err error) {
	if limit > 0 && n > limit {
		return b.cut(bufs, ep, limit)
	}
	if err := b.udp.send(bufs, ep); err != nil {
		return 0, err
	}
	return total(bufs), nil
}

// cut sends bufs to ep in pieces of at most limit bytes where they are longer.
// What cannot be cut so small goes whole: perhaps it arrives.
func (b *Bind) cut(bufs [][]byte, ep *udpEndpoint, limit int) (sent uint64, err error) {
	c := cutters.Get().(*cutter)
	defer cutters.Put(c)
	size := 0
	for _, m := range bufs {
		size += len(m) + fragment.MaxPieces*fragment.HeaderSize
	}
	out, mem := c.bufs[:0], slices.Grow(c.mem[:0], size) // grown once: out points into it
	for _, m := range bufs {
		n := 0
		if len(m) > limit {
			n = fragment.Pieces(m, limit)
		}
		if n == 0 {
			out = append(out, m)
			continue
		}
		id := uint16(b.pieceID.Add(1))
		for i := range n {
			start := len(mem)
			mem = fragment.Append(mem, id, m, i, n)
			out = append(out, mem[start:])
		}
	}
	if err = b.udp.send(out, ep); err == nil {
		sent = total(out)
	}
	clear(out)
	c.bufs, c.mem = out, mem
	return sent, err
}

// total is how many bytes bufs have.
func total(bufs [][]byte) (n uint64) {
	for _, m := range bufs {
		n += uint64(len(m))
	}
	return n
}

// longest is the length of the longest of bufs.
func longest(bufs [][]byte) int {
	n := 0
	for _, m := range bufs {
		n = max(n, len(m))
	}
	return n
}
