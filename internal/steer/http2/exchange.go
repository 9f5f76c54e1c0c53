package http2

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// exchange is a request and its response, or the copy of one. Guarded by
// session.mu.
type exchange struct {
	client *stream // nil: of a copy
	up     *stream // who answers; nil: we do
	copies []*stream

	rule *steer.Rule
	// head and headEnd are the request's first block as it came, for the app in
	// case the laptop cannot take it.
	head    []hpack.HeaderField
	headEnd bool
	// status is that of the final response, 0 before it; answered says that
	// there was any.
	status   int
	answered bool
	interim  int // responses before the final one

	seen steer.Seen
}

func newExchange(h *steer.Head, rule *steer.Rule, now time.Time) *exchange {
	return &exchange{rule: rule, seen: steer.Seen{
		Rule: rule, Method: h.Method, Target: h.Target, Host: h.Host, Began: now,
	}}
}

// failLocked keeps the first reason why x did not come to its end.
func (x *exchange) failLocked(err error) {
	if x.seen.Err == nil {
		x.seen.Err = err
	}
}

// readLocked counts what came of a body on st, and copies a request's.
func (x *exchange) readLocked(st *stream, data []byte) {
	if st == x.client {
		x.seen.In += int64(len(data))
		x.copyDataLocked(data, st.heard)
	}
}

// wroteLocked counts n bytes of a body that went on st.
func (x *exchange) wroteLocked(st *stream, n int) {
	if st == x.client {
		x.seen.Out += int64(n)
	}
}

// endOthersLocked ends the other streams of x after st was ended by code: the
// request's at once, as nobody waits for an answer, the client's after what came
// of the response.
func (x *exchange) endOthersLocked(st *stream, code http2.ErrCode) {
	if st != x.client {
		if x.client != nil {
			x.client.resetLocked(code, true)
		}
	} else if x.up != nil {
		x.up.resetLocked(code, false)
	}
}

// endCopiesLocked takes back the copies of a request that did not come to its
// end.
func (x *exchange) endCopiesLocked() {
	for _, st := range x.copies {
		if !st.complete() {
			st.x.failLocked(x.seen.Err)
			st.resetLocked(http2.ErrCodeCancel, false)
		}
	}
}

// finishLocked tells the observer that x is over.
func (s *session) finishLocked(x *exchange) {
	x.seen.Status = x.status
	x.seen.Took = time.Since(x.seen.Began)
	s.seen = append(s.seen, x.seen)
}

// removedLocked does what follows from the end of a stream.
func (s *session) removedLocked(st *stream) {
	c := st.c
	switch c.role {
	case client:
		st.x.endCopiesLocked()
		s.finishLocked(st.x)
		s.drainedLocked()
	case mirror:
		s.finishLocked(st.x)
	}
	if c.role == laptop || c.role == mirror {
		if c.draining && len(c.streams) == 0 {
			c.shutLocked(nil)
		}
	}
}

// drainedLocked closes the client's connection when the app's is gone and all
// that was left is done.
func (s *session) drainedLocked() {
	if s.app.err != nil && len(s.client.streams) == 0 {
		s.client.shutLocked(nil)
	}
}
