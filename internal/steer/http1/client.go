package http1

import (
	"errors"
	"io"
	"os"
	"time"

	"podnet.dev/internal/steer"
)

// readClient carries what the client sends until it sends no more, and returns
// why. It returns nil when nobody takes it any more. First comes what is left of the
// body of an exchange that was begun before; nil: there is none.
func (c *conn) readClient(begun *exchange, body *Body) error {
	defer c.in.free()
	if begun != nil {
		done, err := c.carryBody(begun, body, false)
		c.allSent(begun)
		if done || err != nil {
			return err
		}
	}
	for {
		if len(c.in.bytes()) == 0 {
			if err := c.in.fill(c.client); err != nil {
				return err
			}
			continue
		}
		if err := c.awaitHold(); err != nil {
			c.passRest(err)
		}
		switch c.currentMode() {
		case spliced:
			return c.copyRest()
		case last:
			return c.discard()
		case over:
			return nil
		}
		req, err := c.readHead()
		var doubt Doubt
		switch {
		case errors.As(err, &doubt):
			c.passRest(doubt)
		case err != nil:
			c.passBroken(err)
			return err
		default:
			if done, err := c.carry(&req); done || err != nil {
				return err
			}
		}
	}
}

// awaitHold waits until it is known what the bytes are that are there. Behind a
// request that asked for another protocol they are not HTTP if it is granted.
func (c *conn) awaitHold() error {
	ex := c.hold
	if ex == nil {
		return nil
	}
	if !c.wait(c.holdTime, func() bool { return ex.done }) {
		return Doubt("bytes behind a request that asks for another protocol")
	}
	c.hold = nil
	return nil
}

// readHead reads on until a head is complete. Its bytes stay in the buffer.
func (c *conn) readHead() (Request, error) {
	var p RequestParser
	req, ok, err := p.Parse(c.in.bytes())
	if ok || err != nil {
		return req, err
	}
	c.client.SetReadDeadline(time.Now().Add(steer.HeadTime))
	defer c.client.SetReadDeadline(time.Time{})
	for !ok && err == nil {
		switch err = c.in.fill(c.client); {
		case err == nil:
			req, ok, err = p.Parse(c.in.bytes())
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = Doubt("its head takes too long")
		case err == io.EOF:
			err = Doubt("its head has no end")
		}
	}
	return req, err
}

// carry decides a request, which begins the buffer, and carries it. It reports
// true when nobody takes any more. It takes nothing out of the buffer when it
// turns out that requests are no longer told apart.
func (c *conn) carry(req *Request) (done bool, err error) {
	begun := c.in.bytes()
	body := req.Body
	n, through, err := body.Feed(begun[req.Size:])
	if err != nil {
		c.passRest(err)
		return false, nil
	}
	begun = begun[:req.Size+n]

	d := c.rules().Decide(&req.Head)
	room := maxPending
	if d.Steal != nil {
		room = 1 // its response comes from elsewhere, and behind all others
		begun = begun[:req.Size]
	}
	wasLast := false
	c.wait(0, func() bool {
		wasLast = c.saidLastLocked()
		return wasLast || len(c.pending) < room
	})
	if wasLast {
		c.passRest(Doubt("a request behind the last one"))
		return false, nil
	}
	ex := new(exchange)
	ex.begin(req, d, begun)
	ex.sent = through && n == 0
	ex.consumed = len(begun) > req.Size
	ex.seen.In = int64(len(begun))
	if !c.push(ex) {
		return false, nil
	}
	defer c.allSent(ex)
	c.openMirrors(ex, d.Mirrors, begun[:req.Size])
	ex.mirror(begun[req.Size:])
	switch {
	case d.Steal != nil:
		c.hold, c.holdTime = ex, 0
	case req.Upgrade:
		c.hold, c.holdTime = ex, steer.HeadTime
	}

	c.send.Lock()
	u, err := c.start(ex)
	c.send.Unlock()
	if err != nil && !c.sentElsewhere(ex, u) {
		return c.currentMode() != last, nil
	}
	c.in.skip(len(begun))
	if d.Steal != nil && n > 0 {
		rest := c.in.bytes()[:n]
		if !c.put(ex, rest) {
			return c.currentMode() != last, nil
		}
		c.in.skip(n)
	}
	return c.carryBody(ex, &body, through)
}

// saidLastLocked reports whether the client, or the app, has said that no request
// follows on the connection. What does nevertheless is what the app makes of it, which
// as a rule is nothing: nobody else is to answer it.
func (c *conn) saidLastLocked() bool {
	if n := len(c.pending); n > 0 && !c.pending[n-1].persistent {
		return true
	}
	return c.app != nil && c.app.last
}

// carryBody carries what is left of a request.
func (c *conn) carryBody(ex *exchange, body *Body, through bool) (done bool, err error) {
	for !through {
		if len(c.in.bytes()) == 0 {
			if err := c.in.fill(c.client); err != nil {
				return false, err
			}
		}
		n, end, doubt := body.Feed(c.in.bytes())
		if !c.put(ex, c.in.bytes()[:n]) {
			return c.currentMode() != last, nil
		}
		c.in.skip(n)
		if doubt != nil {
			c.doubtBody(ex, doubt)
			return false, nil
		}
		through = end
	}
	ex.endMirrors()
	return false, nil
}

// put sends a part of a body to where the exchange is. It reports false when
// nobody takes it.
func (c *conn) put(ex *exchange, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	ex.mirror(b)
	c.send.Lock()
	ex.seen.In += int64(len(b))
	u := ex.up
	if u == nil { // it was refused
		c.send.Unlock()
		return false
	}
	ex.consumed = true
	_, err := u.conn.Write(b)
	c.send.Unlock()
	return err == nil || c.sentElsewhere(ex, u)
}

// sentElsewhere waits for what becomes of an exchange of which u takes no more.
// It reports true when another upstream has got all that u had.
func (c *conn) sentElsewhere(ex *exchange, u *upstream) bool {
	if u == nil || u.rule == nil {
		return false
	}
	// The response may be there, and be a whole one.
	u.conn.SetReadDeadline(time.Now().Add(steer.HeadTime))
	c.wait(0, func() bool { return ex.done || ex.up != u })
	c.mu.Lock()
	again := c.mode == deciding && !ex.done
	c.mu.Unlock()
	if !again {
		c.finish()
	}
	return again
}

// doubtBody gives up a request whose end cannot be told. What the app has begun
// to read stays the app's; a laptop does not get the rest of a connection that is
// not its own.
func (c *conn) doubtBody(ex *exchange, doubt error) {
	ex.endMirrors()
	c.mu.Lock()
	u := ex.up
	if c.mode == deciding && u != nil && u.rule == nil {
		ex.seen.Err = doubt
		c.spliceLocked(u, ex)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.end(doubt, true)
}

// passRest leaves the connection from here on to the app, for a doubt.
func (c *conn) passRest(doubt error) {
	ex := newDoubt(doubt)
	if !c.push(ex) {
		return
	}
	c.send.Lock()
	defer c.send.Unlock()
	u, err := c.connect(ex)
	if err != nil {
		c.end(err, true)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == deciding {
		c.spliceLocked(u, ex)
	}
}

// passBroken gives the app the beginning of a head of a client that has gone. How it
// has gone the app learns with everybody else.
func (c *conn) passBroken(why error) {
	c.passRest(why)
	c.mu.Lock()
	peer, tail := c.peer, c.tail
	c.mu.Unlock()
	if peer == nil {
		return
	}
	b := c.in.bytes()
	peer.conn.Write(b)
	if tail != nil {
		tail.seen.In += int64(len(b))
	}
}

// copyRest sends the peer of a spliced connection all that comes.
func (c *conn) copyRest() error {
	c.mu.Lock()
	peer, tail := c.peer, c.tail
	c.mu.Unlock()
	for {
		b := c.in.bytes()
		if _, err := peer.conn.Write(b); err != nil {
			return nil // who reads from it says more
		}
		if tail != nil {
			tail.seen.In += int64(len(b))
		}
		c.in.skip(len(b))
		if err := c.in.fill(c.client); err != nil {
			return err
		}
	}
}

// discard reads what is for nobody.
func (c *conn) discard() error {
	for {
		c.in.skip(len(c.in.bytes()))
		if err := c.in.fill(c.client); err != nil {
			return err
		}
	}
}

// clientEnded passes on how the client has ended: that it sends no more, or that
// it is gone. nil is neither.
func (c *conn) clientEnded(err error) {
	if err == nil {
		return
	}
	if err != io.EOF {
		c.end(err, true)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.app != nil {
		closeWrite(c.app.conn)
	}
	for _, l := range c.laptops {
		if len(c.pending) > 0 && c.pending[0].up == l || c.peer == l {
			closeWrite(l.conn)
		} else {
			l.conn.Close()
		}
	}
}
