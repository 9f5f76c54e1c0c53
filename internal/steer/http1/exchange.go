package http1

import (
	"bytes"
	"io"
	"time"

	"podnet.dev/internal/steer"
)

// exchange is a request and its response. The client's goroutine counts what is
// sent, the one of the upstream that answers what comes back.
type exchange struct {
	rule       *steer.Rule // whose laptop answers; nil: the app does; guarded by conn.send
	persistent bool        // the client may send more after this
	upgrade    bool        // the client asks for another protocol
	head       []byte      // what is sent first, as the client sent it
	response   Response
	seen       steer.Seen
	mirrors    []*mirror

	consumed bool // some of the body was sent; guarded by conn.send

	// Guarded by conn.mu.
	up        *upstream // who answers; nil: nobody yet. Writers hold conn.send too
	sent      bool      // no more of the request is sent
	done      bool      // the response is through
	untracked bool      // where the response ends is known only when it does
	reported  bool
}

// begin makes a zero exchange that of a request.
func (ex *exchange) begin(req *Request, d steer.Decision, head []byte) {
	*ex = exchange{
		rule: d.Steal, persistent: req.Persistent, upgrade: req.Upgrade, head: head,
		response: Response{Method: req.Method},
		seen: steer.Seen{
			Rule: d.Steal, Method: req.Method, Target: req.Target, Host: req.Host, Began: time.Now(),
		},
	}
	if ex.rule != nil {
		ex.head = bytes.Clone(head) // it may be sent once more
	}
}

// newDoubt is for what is left to the app as it is.
func newDoubt(why error) *exchange {
	return &exchange{seen: steer.Seen{Began: time.Now(), Err: why}}
}

// report tells that the exchange is over.
func (ex *exchange) report(see steer.Observer) {
	s := ex.seen
	s.Took = time.Since(s.Began)
	if s.Status == 0 {
		s.Status = ex.response.Status
	}
	see.Seen(s)
}

// reportCut tells that the connection has ended before the exchange; nil: in order.
func (ex *exchange) reportCut(see steer.Observer, err error) {
	if ex.seen.Err = err; err == nil {
		ex.seen.Err = io.ErrUnexpectedEOF
	}
	ex.report(see)
}

// repeatable reports whether the request may be sent again to a laptop that may
// have seen it (RFC 9110, section 9.2.2).
func (ex *exchange) repeatable() bool {
	switch ex.seen.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return !ex.consumed
	}
	return false
}

// firstBytes is what an upstream gets first.
func (c *conn) firstBytes(ex *exchange) []byte {
	if ex.rule != nil && ex.rule.ClientAddress == steer.ClientByHeader {
		return forwardedFor(ex.head, c.client.RemoteAddr())
	}
	return ex.head
}
