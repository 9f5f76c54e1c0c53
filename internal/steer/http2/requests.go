package http2

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// errRefused is why a request was not passed on; its client may repeat it.
var errRefused = errors.New("refused")

// requestBlockLocked takes a header block from the client: a request, or the
// trailers of one.
func (s *session) requestBlockLocked(id uint32, b block, end bool) error {
	c := s.client
	switch st := c.streams[id]; {
	case st != nil:
		return s.requestTrailersLocked(st, b, end)
	case id%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case id <= c.lastID:
		return nil // trailers of a stream that is gone
	}
	c.lastID = id
	if id > s.lastAllowed {
		return nil // GOAWAY said that it would be ignored
	}

	now := time.Now()
	head, doubt := readHead(b.fields)
	var d steer.Decision
	if doubt == nil && !b.large {
		d = s.rules().Decide(&head)
	}
	x := newExchange(&head, d.Steal, now)
	x.head, x.headEnd = b.fields, end
	st := c.newStreamLocked(id, x)
	st.opened, st.heard = true, end
	x.client = st

	switch {
	case len(c.streams) > 2*maxStreams: // it does not even read that it is refused
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	case b.large:
		x.failLocked(errors.New("head is too large"))
		s.answerLocked(x, "431", nil, "podnet reads heads of up to 64 KiB and 200 fields.\n")
		return nil
	case c.live > int(s.maxStreamsLocked()):
		return s.refuseLocked(x)
	case d.Steal != nil:
		up := s.laptopLocked(d.Steal)
		if up.live >= maxRuleStreams || up.live >= int(up.limit) {
			return s.refuseLocked(x)
		}
		s.sendLocked(up, x, forLaptop(b.fields, d.Steal, s.client.nc.RemoteAddr()))
	default:
		if s.app.err != nil || s.app.live >= int(s.app.limit) {
			return s.refuseLocked(x)
		}
		s.sendLocked(s.app, x, b.fields)
	}
	for _, rule := range d.Mirrors {
		s.copyLocked(x, &head, rule)
	}
	return nil
}

// sendLocked opens a stream of c for x.
func (s *session) sendLocked(c *conn, x *exchange, fields []hpack.HeaderField) {
	x.up = c.openLocked(x)
	join(x.client, x.up)
	x.up.out.addFields(fields, x.headEnd)
	x.up.listLocked()
}

// forLaptop adds to a stolen request what its rule asks for.
func forLaptop(fields []hpack.HeaderField, rule *steer.Rule, client net.Addr) []hpack.HeaderField {
	if rule.ClientAddress != steer.ClientByHeader {
		return fields
	}
	host, _, err := net.SplitHostPort(client.String())
	if err != nil {
		return fields // no address of the Internet
	}
	return append(slices.Clip(fields), hpack.HeaderField{Name: "x-forwarded-for", Value: host})
}

// requestTrailersLocked passes the trailers of a request on.
func (s *session) requestTrailersLocked(st *stream, b block, end bool) error {
	switch {
	case st.deaf || st.cut:
		st.heard = st.heard || end
		st.endLocked()
		return nil
	case st.heard:
		return s.client.faultLocked(st.id, http2.ErrCodeStreamClosed)
	case !end || b.large:
		return s.client.faultLocked(st.id, http2.ErrCodeProtocol)
	}
	st.heard = true
	if st.peer != nil && !st.peer.gone && !st.peer.cut {
		st.peer.out.addFields(b.fields, true)
		st.peer.listLocked()
	}
	st.x.copyFieldsLocked(b.fields)
	st.endLocked()
	return nil
}

// maxStreamsLocked is how many streams the client may have open.
func (s *session) maxStreamsLocked() uint32 { return min(s.app.limit, maxStreams) }

// spoiledLocked counts a stream that the client took back, or broke. The error
// ends the connection of one that does nothing else.
func (s *session) spoiledLocked(x *exchange) error {
	if !x.answered && s.resets.add(time.Now()) > maxResets {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// refuseLocked ends a request that nobody has seen, so that the client may
// repeat it.
func (s *session) refuseLocked(x *exchange) error {
	x.failLocked(errRefused)
	x.client.resetLocked(http2.ErrCodeRefusedStream, false)
	return nil
}

// goAwayLocked takes the other end's GOAWAY.
func (c *conn) goAwayLocked(g *goAway) {
	switch c.role {
	case client:
		// It will open no more streams; what it names is pushed ones, of which
		// there are none.
		c.s.app.away = &goAway{code: g.code, debug: g.debug}
		c.s.app.wake()
	case app:
		c.s.appGoAwayLocked(g)
	default:
		c.retireLocked(g)
	}
}

// appGoAwayLocked tells the client what the app will not do any more. A client
// counts its streams over all who answer them, so the app's last stream becomes
// the last of the client's that may have been seen by anybody. Those before it
// that the app has not seen are refused one by one.
func (s *session) appGoAwayLocked(g *goAway) {
	s.app.draining = true
	unseen := make(map[uint32]*stream)
	for id, st := range s.app.streams {
		if id > g.last && st.x.client != nil {
			unseen[st.x.client.id] = st
		}
	}
	last := min(s.client.lastID, s.lastAllowed)
	for unseen[last] != nil {
		last = max(last, 2) - 2
	}
	if g.last == windowMax {
		last = windowMax // only a warning: all that is under way will be served
	}
	for id, st := range unseen {
		st.x.failLocked(fmt.Errorf("app goes away: %v", g.code))
		st.removeLocked()
		if id > last {
			st.x.client.removeLocked() // GOAWAY says so
		} else {
			_ = s.refuseLocked(st.x)
		}
	}
	s.lastAllowed = min(s.lastAllowed, last)
	s.client.away = &goAway{last: s.lastAllowed, code: g.code, debug: g.debug}
	s.client.wake()
}
