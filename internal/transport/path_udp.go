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

func (p *udpPath) send(bufs [][]byte, _ <-chan struct{}) (err error) {
	n := longest(bufs)
	if n > paths.MinDatagram {
		p.long.note(time.Now(), bufs)
	}
	// A path that is in use has carried MinDatagram.
	if limit := max(int(p.limit.Load()), paths.MinDatagram); n > limit {
		err = p.g.b.cut(bufs, p.ep, limit)
	} else {
		err = p.g.b.udp.send(bufs, p.ep)
	}
	if err != nil {
		return err
	}
	for _, m := range bufs {
		p.tx.Add(uint64(len(m)))
	}
	return nil
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

// cut sends bufs to ep in pieces of at most limit bytes where they are longer.
// What cannot be cut so small goes whole: perhaps it arrives.
func (b *Bind) cut(bufs [][]byte, ep *udpEndpoint, limit int) error {
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
	err := b.udp.send(out, ep)
	clear(out)
	c.bufs, c.mem = out, mem
	return err
}

// longest is the length of the longest of bufs.
func longest(bufs [][]byte) int {
	n := 0
	for _, m := range bufs {
		n = max(n, len(m))
	}
	return n
}
