package http2

import "golang.org/x/net/http2"

// stream is one stream on one connection. A request is a stream of the client
// and one of who answers; each is the other's peer.
//
//	         other end          us                       peer
//	comes:   HEADERS, DATA ───▶ credit ────────────────▶ peer.out
//	goes:    HEADERS, DATA ◀─── allowance ◀── out ◀───── peer's credit
//
// It is in conn.streams until both directions have ended or RST_STREAM went
// either way; from then on it is gone, and what still comes for it is dropped.
// All fields are guarded by session.mu.
type stream struct {
	c    *conn
	id   uint32
	x    *exchange
	peer *stream // nil: what comes is dropped, what goes is our own or a copy

	credit credit
	heard  bool // END_STREAM came
	deaf   bool // what still comes is of no use

	allow  allowance
	out    queue
	opened bool // the other end knows the stream
	sent   int  // bytes of DATA
	said   bool // END_STREAM went

	// cut says that nothing is added to out any more, and that RST_STREAM with
	// code follows what can be sent of it; nothing follows if silent.
	cut, silent bool
	code        http2.ErrCode

	listed  bool // in conn.ready
	starved bool // in conn.starved
	owed    bool // in conn.owed
	gone    bool
}

// openLocked makes the next stream that is ours to open. As streams are listed in
// the order they are opened, HEADERS go in the order of ids.
func (c *conn) openLocked(x *exchange) *stream {
	if c.lastID == 0 {
		c.lastID = 1
	} else {
		c.lastID += 2
	}
	return c.newStreamLocked(c.lastID, x)
}

func (c *conn) newStreamLocked(id uint32, x *exchange) *stream {
	st := &stream{
		c: c, id: id, x: x, allow: c.initial,
		credit: credit{size: windowStart, ceil: windowCeil, open: windowStart},
	}
	c.streams[id] = st
	c.live++
	return st
}

// join makes two streams each other's peers.
func join(a, b *stream) { a.peer, b.peer = b, a }

// listLocked has the writer look at st.
func (st *stream) listLocked() {
	if st.listed || st.gone {
		return
	}
	st.listed = true
	st.c.ready = append(st.c.ready, st)
	st.c.wake()
}

// freedLocked notes that n bytes of what came on st were taken by the other
// connection, or dropped.
func (st *stream) freedLocked(n int) {
	if n == 0 {
		return
	}
	st.c.freedLocked(n)
	if st.heard || st.gone || st.cut || st.deaf {
		return // nobody waits for it
	}
	if st.credit.free(n) && !st.owed {
		st.owed = true
		st.c.owed = append(st.c.owed, st)
		st.c.wake()
	}
}

// resetLocked ends st with RST_STREAM. What waits to be sent is dropped, or, if
// soft, sent as far as the windows allow: a response that is complete is always
// read to its end, and of one that is not the other end sees what came.
func (st *stream) resetLocked(code http2.ErrCode, soft bool) {
	if st.gone || st.cut && soft {
		return
	}
	st.deaf = true
	if !soft {
		st.dropLocked()
	}
	if !st.opened && st.out.first() == nil {
		st.removeLocked()
		return
	}
	if !st.cut {
		st.c.live--
	}
	st.cut, st.code = true, code
	st.listLocked()
}

// hushLocked ends st after what can be sent of it, without a word.
func (st *stream) hushLocked() {
	if !st.gone && !st.cut {
		st.silent = true
		st.resetLocked(http2.ErrCodeNo, true)
	}
}

// dropLocked empties out. Who sent it may send so much more.
func (st *stream) dropLocked() {
	body, weight := st.out.drop()
	if st.peer != nil {
		st.peer.c.freedLocked(body)
	}
	st.c.releaseLocked(weight)
}

// removeLocked forgets st.
func (st *stream) removeLocked() {
	if st.gone {
		return
	}
	st.gone = true
	if !st.cut {
		st.c.live--
	}
	st.dropLocked()
	delete(st.c.streams, st.id)
	st.c.sweepLocked()
	st.c.s.removedLocked(st)
}

// endLocked removes st when both directions have ended.
func (st *stream) endLocked() {
	if st.heard && st.said && st.out.first() == nil {
		st.removeLocked()
	}
}

// writeLocked puts the next frame of st into the connection's buffer. It reports
// whether there is more to be written; if not, somebody lists st again.
func (st *stream) writeLocked() bool {
	c, p := st.c, st.out.first()
	switch {
	case st.gone:
		return false
	case p == nil:
		if st.cut {
			st.writeResetLocked()
		}
		return false
	case p.fields != nil:
		st.opened = true
		c.enc.write(c.framer, st.id, p.fields, p.end)
		st.said = st.said || p.end
		c.releaseLocked(p.weight())
		st.out.pop()
	default:
		n := int(max(0, min(allowance(len(p.data)), maxFrame, st.allow, c.allow)))
		if n == 0 && len(p.data) > 0 {
			switch {
			case st.cut && !st.complete():
				st.writeResetLocked()
			case st.allow > 0 && !st.starved:
				st.starved = true
				c.starved = append(c.starved, st)
			}
			return false
		}
		st.writeDataLocked(p, n)
	}
	c.noise.content++
	if st.said {
		st.endLocked()
	}
	return !st.gone && (st.out.first() != nil || st.cut)
}

// writeDataLocked writes the first n bytes of p, the first part.
func (st *stream) writeDataLocked(p *part, n int) {
	c := st.c
	end := p.end && n == len(p.data)
	_ = c.framer.WriteData(st.id, end, p.data[:n])
	st.allow -= allowance(n)
	c.allow -= allowance(n)
	st.sent += n
	st.x.wroteLocked(st, n)
	p.data = p.data[n:]
	if len(p.data) == 0 {
		st.said = end
		st.out.pop()
	}
	c.releaseLocked(n)
	if st.peer != nil {
		st.peer.freedLocked(n)
	}
}

// complete reports whether all that the other end has to hear is in out or sent.
func (st *stream) complete() bool {
	last := st.out.last()
	return st.said || last != nil && last.end
}

func (st *stream) writeResetLocked() {
	// An end that has said and heard all knows that the stream is over.
	over := st.said && st.heard
	if st.opened && !st.silent && !over {
		_ = st.c.framer.WriteRSTStream(st.id, st.code)
	}
	st.removeLocked()
}
