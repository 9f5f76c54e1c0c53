package http2

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// responseBlockLocked takes a header block from who answers: interim responses,
// the response, its trailers.
func (c *conn) responseBlockLocked(id uint32, b block, end bool) error {
	st := c.streams[id]
	switch {
	case st == nil && c.idleLocked(id):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil:
		return nil
	case st.deaf || st.cut:
		st.heard = st.heard || end
		st.endLocked()
		return nil
	case st.heard:
		return c.faultLocked(id, http2.ErrCodeStreamClosed)
	}
	x := st.x
	if x.status != 0 { // trailers
		if !end || b.large {
			return c.faultLocked(id, http2.ErrCodeProtocol)
		}
	} else {
		code := status(b.fields)
		switch interim := code < 200; {
		case code == 0 || b.large || interim && end:
			return c.faultLocked(id, http2.ErrCodeProtocol)
		case !interim:
			x.status = code
		case x.interim == maxInterim:
			return c.faultLocked(id, http2.ErrCodeEnhanceYourCalm)
		default:
			x.interim++
		}
	}
	x.answered, x.head = true, nil
	st.heard = end
	if st.peer != nil && !st.peer.gone && !st.peer.cut {
		st.peer.out.addFields(b.fields, end)
		st.peer.listLocked()
	}
	st.endLocked()
	return nil
}

// lostLocked does what follows from the end of a connection to one who answers.
func (c *conn) lostLocked(err error) {
	if err == nil {
		err = errors.New("closed")
	}
	c.closing = true
	if c.err == nil {
		c.err = err
	}
	switch c.role {
	case app:
		c.s.appLostLocked()
	case laptop:
		if c.s.laptops[c.rule.Name] == c {
			delete(c.s.laptops, c.rule.Name)
		}
		for _, st := range c.streams {
			c.s.forsakenLocked(st, fmt.Errorf("laptop of %s: %w", c.rule.Owner, err))
		}
	case mirror:
		c.s.mirrorLostLocked(c, err)
	}
}

// appLostLocked ends the client's connection as the app ended its own: what came
// is passed on, then it closes. Only if a laptop is still answering it stays open
// for that, and the client is told what will not be done.
func (s *session) appLostLocked() {
	stolen := false
	for _, st := range s.client.streams {
		stolen = stolen || st.peer == nil || st.peer.c != s.app
	}
	if stolen && !s.app.draining {
		s.lastAllowed = s.client.lastID
		s.client.away = &goAway{last: s.lastAllowed}
		s.client.wake()
	}
	for _, st := range s.app.streams {
		client := st.x.client
		if !st.heard {
			st.x.failLocked(errors.New("app closed the connection"))
		}
		st.removeLocked()
		switch {
		case st.heard: // the response is whole, and nobody wants the rest of the request
			client.resetLocked(http2.ErrCodeNo, true)
		case stolen:
			client.resetLocked(http2.ErrCodeInternal, true)
		default:
			client.hushLocked()
		}
	}
	s.drainedLocked()
}

// retireLocked takes a laptop's GOAWAY: what it has seen it may finish, and who
// comes next gets another connection.
func (c *conn) retireLocked(g *goAway) {
	c.draining = true
	if c.s.laptops[c.rule.Name] == c {
		delete(c.s.laptops, c.rule.Name)
	}
	if c.s.mirrors[c.rule.Name] == c {
		delete(c.s.mirrors, c.rule.Name)
	}
	err := fmt.Errorf("laptop of %s goes away: %v", c.rule.Owner, g.code)
	for id, st := range c.streams {
		if id <= g.last {
			continue
		}
		if c.role == mirror || !c.s.toAppLocked(st.x) {
			st.x.failLocked(err)
			st.removeLocked()
			st.x.endOthersLocked(st, http2.ErrCodeRefusedStream)
		}
	}
	if len(c.streams) == 0 {
		c.shutLocked(nil)
	}
}

// forsakenLocked ends a stolen request whose laptop is gone: the app answers, or
// we do, or, if the laptop had begun to, the client sees it break off.
func (s *session) forsakenLocked(st *stream, err error) {
	x := st.x
	switch {
	case st.cut:
		st.removeLocked() // it was to be reset
	case x.answered:
		if !st.heard {
			x.failLocked(err)
		}
		code := http2.ErrCodeInternal
		if st.heard {
			code = http2.ErrCodeNo
		}
		st.removeLocked()
		x.endOthersLocked(st, code)
	case s.toAppLocked(x):
	default:
		x.failLocked(err)
		st.removeLocked()
		s.unreachableLocked(x)
	}
}

// toAppLocked gives a request to the app that its laptop cannot take, if its rule
// says so and nothing of its body has gone. It reports whether it did.
func (s *session) toAppLocked(x *exchange) bool {
	old := x.up
	if x.rule == nil || !x.rule.ToApp || x.answered || old.sent > 0 || old.cut ||
		s.app.err != nil || s.app.draining || s.app.live >= int(s.app.limit) {
		return false
	}
	rest := old.out
	old.out = queue{}
	if !old.opened {
		rest.pop() // the head as it was for the laptop
	}
	old.removeLocked()
	s.sendLocked(s.app, x, x.head)
	x.up.out.parts = append(x.up.out.parts, rest.parts...)
	x.rule, x.seen.Rule = nil, nil
	return true
}

// unreachableLocked answers a stolen request in place of its laptop.
func (s *session) unreachableLocked(x *exchange) {
	by := []hpack.HeaderField{{Name: lowerSteeredBy, Value: printable(x.rule.Owner)}}
	text := fmt.Sprintf("podnet: the laptop of %s, who steers this, cannot be reached", printable(x.rule.Owner))
	if isGRPC(x.head) {
		s.answerLocked(x, "200", append(by,
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "grpc-status", Value: grpcUnavailable},
			hpack.HeaderField{Name: "grpc-message", Value: text}), "")
		return
	}
	s.answerLocked(x, "502", append(by, hpack.HeaderField{Name: "content-type", Value: "text/plain; charset=utf-8"}), text+".\n")
}

// grpcUnavailable is the status of a service that may be there later.
const grpcUnavailable = "14"

// answerLocked answers a request by ourselves. The rest of it is not wanted
// (RFC 9113, section 8.1).
func (s *session) answerLocked(x *exchange, code string, fields []hpack.HeaderField, body string) {
	st := x.client
	x.up, st.peer = nil, nil
	x.status, x.answered = status([]hpack.HeaderField{{Name: ":status", Value: code}}), true
	st.out.addFields(append([]hpack.HeaderField{{Name: ":status", Value: code}}, fields...), body == "")
	if body != "" {
		st.out.addData([]byte(body), true)
	}
	if x.headEnd || st.heard {
		st.listLocked()
		return
	}
	st.resetLocked(http2.ErrCodeNo, true)
}

// appSettingsLocked passes on what the app's SETTINGS say about the app itself.
func (s *session) appSettingsLocked() {
	if now := s.maxStreamsLocked(); now != s.toldStreams {
		s.toldStreams = now
		s.client.tell = append(s.client.tell, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: now})
	}
	if s.app.canConnect && !s.toldConnect {
		s.toldConnect = true
		s.client.tell = append(s.client.tell, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	s.client.wake()
}

// printable leaves of s what may stand in a field and in a gRPC message.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' || c == '%' {
			b[i] = '_'
		}
	}
	return string(b)
}
