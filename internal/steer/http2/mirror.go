package http2

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// errMirrorFull ends a mirror for the rest of its client's connection.
var errMirrorFull = errors.New("mirror is dropped: the laptop is too slow")

// copyLocked begins to copy a request for a mirror. The copy has a connection and
// streams of its own, and gives no credit back to the client: what the laptop does
// not take in time is lost, and the app never waits.
func (s *session) copyLocked(x *exchange, head *steer.Head, rule *steer.Rule) {
	c := s.mirrorLocked(rule)
	y := newExchange(head, rule, time.Now())
	y.seen.Mirror = true
	switch {
	case c.err != nil:
		y.failLocked(c.err)
	case c.live >= maxRuleStreams || c.live >= int(c.limit):
		y.failLocked(errRefused)
	default:
		st := c.openLocked(y)
		y.up = st
		x.copies = append(x.copies, st)
		mark := hpack.HeaderField{Name: lowerMirrored, Value: printable(rule.Owner)}
		st.copyPartLocked(append(slices.Clip(x.head), mark), nil, x.headEnd)
		return
	}
	s.finishLocked(y)
}

// copyDataLocked copies a piece of a request's body.
func (x *exchange) copyDataLocked(data []byte, end bool) {
	for _, st := range x.copies {
		st.copyPartLocked(nil, data, end)
	}
}

// copyFieldsLocked copies a request's trailers.
func (x *exchange) copyFieldsLocked(fields []hpack.HeaderField) {
	for _, st := range x.copies {
		st.copyPartLocked(fields, nil, true)
	}
}

// copyPartLocked adds a header block, or data, to a copy.
func (st *stream) copyPartLocked(fields []hpack.HeaderField, data []byte, end bool) {
	if st.gone || st.cut || st.c.closing {
		return
	}
	added := part{fields: fields, data: data}
	weight := added.weight()
	if st.c.held+weight > maxMirror || !st.c.s.copies.Take(weight) {
		st.c.s.mirrorLostLocked(st.c, errMirrorFull)
		return
	}
	st.c.held += weight
	if fields != nil {
		st.out.addFields(fields, end)
	} else {
		st.out.addData(data, end)
	}
	st.x.seen.In += int64(len(data))
	st.listLocked()
}

// mirrorLocked returns the connection for a rule's copies; one that is dropped
// has an error.
func (s *session) mirrorLocked(rule *steer.Rule) *conn {
	c := s.mirrors[rule.Name]
	if c == nil || !c.rule.Is(rule) {
		c = newConn(s, mirror, rule)
		s.mirrors[rule.Name] = c
		s.dialLocked(c)
	}
	return c
}

// mirrorLostLocked ends all copies of a mirror. Unless it was too slow, the next
// request tries another connection.
func (s *session) mirrorLostLocked(c *conn, err error) {
	c.shutLocked(err)
	if s.mirrors[c.rule.Name] == c && !errors.Is(c.err, errMirrorFull) {
		delete(s.mirrors, c.rule.Name)
	}
	for _, st := range c.streams {
		st.x.failLocked(fmt.Errorf("laptop of %s: %w", c.rule.Owner, err))
		st.removeLocked()
	}
	c.cancel()
}
