package http1

import (
	"slices"

	"podnet.dev/internal/steer"
)

// Passage watches a connection of HTTP/1 while all of it is the app's and nothing of
// it is out of the ordinary, which is most of what is said at a steered port: whoever
// carries the bytes needs no more than to ask it. Of the rest, and whatever arises
// later, it leaves everything to Serve; it decides nothing that Serve would not
// decide alike.
type Passage struct {
	rules   steer.Rules
	see     steer.Observer
	pending []*exchange // those whose responses are not through, oldest first
	open    *exchange   // the last of them, while its body is not through; nil: it is
	body    Body        // of open

	// What each request needs again, as most of them come alone.
	parser RequestParser
	spare  *exchange // nil: there is none
}

// NewPassage returns a Passage for a connection to the app of which nothing was read.
func NewPassage(rules steer.Rules, see steer.Observer) *Passage {
	return &Passage{rules: rules, see: see}
}

// FromClient takes what the client sends, and returns how many of the bytes are to be
// passed on to the app. With fewer than all, they and all that comes are for Serve.
func (p *Passage) FromClient(b []byte) (n int) {
	for n < len(b) {
		took := p.takeBody
		if p.open == nil {
			took = p.takeRequest
		}
		m := took(b[n:])
		if m == 0 {
			break
		}
		n += m
	}
	return n
}

// takeRequest takes a head and what is there of its body; 0: it is for Serve.
func (p *Passage) takeRequest(b []byte) int {
	defer p.parser.again()
	req, ok, err := p.parser.Parse(b)
	if !ok || err != nil || req.Upgrade || !req.Persistent || len(p.pending) >= maxPending {
		return 0
	}
	body := req.Body
	n, through, err := body.Feed(b[req.Size:])
	if err != nil {
		return 0
	}
	d := p.rules().Decide(&req.Head)
	if d.Steal != nil || len(d.Mirrors) > 0 {
		return 0
	}
	n += req.Size
	ex := p.spare
	if p.spare = nil; ex == nil {
		ex = new(exchange)
	}
	ex.begin(&req, d, nil)
	ex.seen.In, ex.sent, ex.consumed = int64(n), through, n > req.Size
	p.pending = append(p.pending, ex)
	if !through {
		p.open, p.body = ex, body
	}
	return n
}

// takeBody takes more of the body of open; 0: it is for Serve.
func (p *Passage) takeBody(b []byte) int {
	body := p.body
	n, through, err := body.Feed(b)
	if err != nil {
		return 0
	}
	p.body = body
	p.open.seen.In += int64(n)
	p.open.consumed = true
	if through {
		p.open.sent, p.open = true, nil
	}
	return n
}

// FromApp takes what the app sends, and returns how many of the bytes are to be
// passed on to the client. With fewer than all, they and all that comes are for
// Serve.
func (p *Passage) FromApp(b []byte) (n int) {
	for n < len(b) && len(p.pending) > 0 {
		ex := p.pending[0]
		response := ex.response
		m, done, err := response.Feed(b[n:])
		if err != nil || response.UntilEnd || response.Upgraded || done && (ex == p.open || !response.Persistent) {
			break
		}
		ex.response = response
		ex.seen.Out += int64(m)
		n += m
		if done {
			p.pending = slices.Delete(p.pending, 0, 1)
			ex.report(p.see)
			*ex = exchange{}
			p.spare = ex
		}
	}
	return n
}

// Ended tells of what has no end of its own: the connection has ended, for err if
// not in order.
func (p *Passage) Ended(err error) {
	for _, ex := range p.pending {
		ex.reportCut(p.see, err)
	}
}
