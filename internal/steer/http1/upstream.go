package http1

import (
	"context"
	"fmt"
	"io"
	"net"

	"podnet.dev/internal/steer"
)

// upstream is a connection to who answers.
type upstream struct {
	conn net.Conn
	rule *steer.Rule // of the laptop; nil: it is the app

	// Guarded by conn.mu.
	used bool // for an earlier request
	last bool // a response of it was the last one
}

// start finds the upstream of an exchange and sends it the first bytes. It returns
// nil when there is none: the client has a refusal then, or with an error its
// connection has ended. Another error is one of sending; who reads from the
// upstream says what comes of it. send is held.
func (c *conn) start(ex *exchange) (*upstream, error) {
	for {
		u, err := c.connect(ex)
		switch {
		case err == nil:
			_, err = u.conn.Write(c.firstBytes(ex))
			return u, err
		case ex.rule == nil:
			c.end(err, true)
			return nil, err
		case ex.rule.ToApp && !ex.consumed:
			c.toApp(ex, err)
		default:
			c.refuse(ex, err)
			return nil, nil
		}
	}
}

// connect gives an exchange an upstream, one that is there or a new one.
func (c *conn) connect(ex *exchange) (*upstream, error) {
	c.mu.Lock()
	u := c.app
	if ex.rule != nil {
		if u = c.laptops[ex.rule.Name]; u != nil && !u.rule.Is(ex.rule) {
			u.conn.Close()
			u = nil
		}
	}
	if u != nil {
		ex.up, u.used = u, true
		c.mu.Unlock()
		return u, nil
	}
	c.mu.Unlock()

	u, err := c.dial(c.ctx, ex.rule)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == over {
		u.conn.Close()
		return nil, net.ErrClosed
	}
	if ex.rule != nil {
		c.laptops[ex.rule.Name] = u
	} else {
		c.app, c.lostApp = u, false
	}
	ex.up = u
	c.upstreams.Go(func() { c.readUpstream(u, nil) })
	return u, nil
}

// adopt takes a connection to the app to which exchanges were sent already. first is
// what was read of it.
func (c *conn) adopt(app net.Conn, first []byte, sent []*exchange) {
	c.app = &upstream{conn: app}
	for _, ex := range sent {
		ex.up = c.app
	}
	c.pending = sent
	c.upstreams.Go(func() { c.readUpstream(c.app, first) })
}

func (c *conn) dial(ctx context.Context, rule *steer.Rule) (*upstream, error) {
	if rule == nil {
		conn, err := c.out.App(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to the app: %w", err)
		}
		return &upstream{conn: conn}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := c.out.Laptop(ctx, rule)
	if err != nil {
		return nil, fmt.Errorf("connect to the laptop of %s: %w", rule.Owner, err)
	}
	if rule.ClientAddress == steer.ClientByProxy {
		if _, err := conn.Write(steer.AppendProxyHeader(nil, c.client.RemoteAddr(), c.client.LocalAddr())); err != nil {
			conn.Close()
			return nil, fmt.Errorf("write to the laptop of %s: %w", rule.Owner, err)
		}
	}
	return &upstream{conn: conn, rule: rule}, nil
}

// readUpstream carries what an upstream sends, behind first, until it sends no more.
func (c *conn) readUpstream(u *upstream, first []byte) {
	in := newBuffer(first)
	defer in.free()
	for {
		if !c.answer(u, in.bytes()) {
			u.conn.Close()
			c.gone(u, net.ErrClosed)
			return
		}
		in.skip(len(in.bytes()))
		if err := in.fill(u.conn); err != nil {
			c.gone(u, err)
			return
		}
	}
}

// answer carries bytes of u to the client. It reports false when they are not to
// be carried.
func (c *conn) answer(u *upstream, b []byte) bool {
	for len(b) > 0 {
		ex, track := c.turn(u)
		if ex == nil {
			return false
		}
		n, done := len(b), false
		if track {
			var err error
			if n, done, err = ex.response.Feed(b); err != nil || ex.response.UntilEnd {
				n, done = len(b), false
				c.untrack(ex, u)
			}
		}
		if _, err := c.client.Write(b[:n]); err != nil {
			c.end(err, true)
			return false
		}
		ex.seen.Out += int64(n)
		if done {
			c.answered(ex, u)
		}
		b = b[n:]
	}
	return true
}

// turn returns the exchange that u may answer now, and whether it is followed to
// its end; nil if u is not to say anything.
func (c *conn) turn(u *upstream) (ex *exchange, track bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mode == spliced && c.peer == u:
		if len(c.pending) > 0 && c.pending[0].up == u && c.pending[0] != c.tail && !c.pending[0].untracked {
			return c.pending[0], true
		}
		return c.tail, false
	case c.mode != deciding:
		return nil, false
	case len(c.pending) > 0 && c.pending[0].up == u:
		return c.pending[0], !c.pending[0].untracked
	case len(c.pending) == 0 && u.rule == nil:
		// As when a server says 408 to a client that says nothing.
		c.spliceLocked(u, newDoubt(Doubt("a response to nothing")))
		return c.tail, false
	}
	return nil, false
}

// untrack no longer follows a response whose end cannot be told but by the end of
// the connection. An app has the client to itself from here on. A laptop's response
// is the last one then, but what comes behind its request is not for the laptop:
// on a connection that others share it may be theirs.
func (c *conn) untrack(ex *exchange, u *upstream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ex.untracked = true
	if c.mode == deciding && u.rule == nil {
		c.spliceLocked(u, ex)
	}
}

// answered takes note that a response is through.
func (c *conn) answered(ex *exchange, u *upstream) {
	if ex.response.Upgraded && u.rule != nil && !ex.upgrade {
		c.untrack(ex, u)
		return
	}
	if ex.response.Upgraded {
		c.mu.Lock()
		ex.untracked = true
		if c.mode == deciding {
			c.spliceLocked(u, ex)
		}
		c.mu.Unlock()
		return
	}
	isLast := !ex.persistent || !ex.response.Persistent
	if u.rule == nil { // the app itself says when its connection has ended
		c.mu.Lock()
		u.last = u.last || isLast
		c.mu.Unlock()
		isLast = false
	}
	c.complete(ex, isLast)
}

// gone does what has to be done when u sends no more, io.EOF, or is broken.
func (c *conn) gone(u *upstream, err error) {
	c.mu.Lock()
	switch {
	case c.mode == spliced && c.peer == u:
		c.mu.Unlock()
		c.endClient(err)
	case c.mode != deciding:
		c.mu.Unlock()
	case u.rule != nil:
		c.laptopGone(u, err)
	case c.isClientsEnd(u):
		c.spliceLocked(u, nil)
		c.mu.Unlock()
		c.endClient(err)
	default:
		// It did not see what a laptop was asked meanwhile. The next request
		// that is its own finds it again.
		c.app, c.lostApp = nil, true
		c.mu.Unlock()
		u.conn.Close()
	}
}

// isClientsEnd reports whether with the app, u, the client's connection ends too:
// when something of it was to come, when it had said so, and when there is nobody
// else. mu is held.
func (c *conn) isClientsEnd(u *upstream) bool {
	if len(c.pending) > 0 {
		return c.pending[0].up == u
	}
	return u.last || len(c.laptops) == 0
}

// endClient passes on to the client how the only one that could answer has ended.
func (c *conn) endClient(err error) {
	if err != io.EOF {
		c.end(err, true)
		return
	}
	closeWrite(c.client)
}

// laptopGone forgets a laptop's connection. mu is held, and is not any more when
// it returns.
func (c *conn) laptopGone(u *upstream, err error) {
	u.conn.Close()
	if c.laptops[u.rule.Name] == u {
		delete(c.laptops, u.rule.Name)
	}
	if len(c.pending) > 0 && c.pending[0].up == u {
		ex := c.pending[0]
		c.mu.Unlock()
		c.laptopDied(u, ex, err)
		return
	}
	// With the app gone too nobody holds the client's connection any more.
	idle := c.lostApp && len(c.laptops) == 0 && len(c.pending) == 0
	c.mu.Unlock()
	if idle {
		c.finish()
	}
}
