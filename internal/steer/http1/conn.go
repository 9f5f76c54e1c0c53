package http1

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"podnet.dev/internal/steer"
)

// mode says what becomes of what a client sends.
//
//	deciding -> spliced -> over
//	    |                   ^
//	    +------> last ------+
type mode uint8

const (
	deciding mode = iota // each request goes where it belongs
	spliced              // conn.peer gets all of it and answers all of it
	last                 // nothing: the client has had its last response
	over
)

// conn is one client's connection. One goroutine reads from the client, and one
// from each upstream. Responses go out in the order of pending: only the upstream
// of its first exchange may write to the client.
type conn struct {
	ctx    context.Context
	cancel context.CancelFunc
	client net.Conn
	rules  steer.Rules
	out    steer.Outlet
	see    steer.Observer

	// Of the goroutine that reads from the client.
	in       buffer
	hold     *exchange          // nothing is read past it before it is answered; nil: read on
	holdTime time.Duration      // and how long that may take; 0: no limit
	mirrors  map[string]*mirror // by rule

	// send is held while something is sent to an upstream. It is taken before mu.
	send sync.Mutex

	mu      sync.Mutex
	mode    mode
	err     error
	ended   bool        // the client sends no more
	pending []*exchange // those whose responses are not through, oldest first
	app     *upstream
	lostApp bool                 // the app has gone while a laptop was in use
	laptops map[string]*upstream // by rule
	peer    *upstream            // when spliced
	tail    *exchange            // counts what is spliced; nil: nothing is to be told

	wake      chan struct{} // tells the client's goroutine that something has changed
	upstreams sync.WaitGroup
	copies    sync.WaitGroup
}

// push puts an exchange behind those that are pending. It reports false when
// requests are no longer told apart.
func (c *conn) push(ex *exchange) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode != deciding {
		return false
	}
	c.pending = append(c.pending, ex)
	return true
}

// wait waits until ok, which is called with mu held, or until requests are no
// longer told apart. It reports false when limit is over first; 0 is no limit.
func (c *conn) wait(limit time.Duration, ok func() bool) bool {
	var expired <-chan time.Time
	for {
		c.mu.Lock()
		enough := c.mode != deciding || ok()
		c.mu.Unlock()
		if enough {
			return true
		}
		if limit > 0 && expired == nil {
			t := time.NewTimer(limit)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-c.wake:
		case <-expired:
			return false
		}
	}
}

// changed lets wait look again.
func (c *conn) changed() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) currentMode() mode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mode
}

// complete takes note that the response to the first pending exchange is through.
// When it has to be the last one, the connection ends.
func (c *conn) complete(ex *exchange, isLast bool) {
	c.mu.Lock()
	if c.mode == over {
		c.mu.Unlock()
		return
	}
	c.pending = slices.Delete(c.pending, 0, 1) // and the next one takes its place
	ex.done = true
	if ex.up != nil && ex.up.rule != nil && c.ended {
		ex.up.conn.Close()
	}
	report := ex.sent && !ex.reported
	ex.reported = ex.reported || report
	c.mu.Unlock()
	if report {
		ex.report(c.see)
	}
	if isLast {
		c.finish()
	}
	c.changed()
}

// allSent takes note that no more of a request is sent.
func (c *conn) allSent(ex *exchange) {
	c.mu.Lock()
	ex.sent = true
	report := ex.done && !ex.reported
	ex.reported = ex.reported || report
	c.mu.Unlock()
	if report {
		ex.report(c.see)
	}
}

// reportRest tells of what had no end of its own. Nothing else runs any more.
func (c *conn) reportRest() {
	if c.tail != nil {
		c.tail.report(c.see)
	}
	for _, ex := range c.pending {
		if ex != c.tail {
			ex.reportCut(c.see, c.err)
		}
	}
}

// spliceLocked joins the client and u to the end of the connection. What then
// goes by is counted in tail.
func (c *conn) spliceLocked(u *upstream, tail *exchange) {
	c.mode, c.peer, c.tail = spliced, u, tail
	if tail != nil {
		tail.reported = true // at the end
	}
	for _, l := range c.laptops {
		if l != u {
			l.conn.Close()
		}
	}
	if c.app != nil && c.app != u {
		c.app.conn.Close()
	}
	c.changed()
}

// finish ends the connection in order: the client has had its last response.
func (c *conn) finish() {
	c.mu.Lock()
	if c.mode != deciding {
		c.mu.Unlock()
		return
	}
	c.mode = last
	for _, l := range c.laptops {
		l.conn.Close()
	}
	if c.app != nil {
		c.app.conn.Close()
	}
	c.mu.Unlock()
	closeWrite(c.client)
	time.AfterFunc(lingerTime, func() { c.end(nil, false) })
	c.changed()
}

// end ends everything now; with reset so that the client knows that it did not
// get all. The first err is the one that Serve returns.
func (c *conn) end(err error, reset bool) {
	c.mu.Lock()
	if c.mode == over {
		c.mu.Unlock()
		return
	}
	c.mode, c.err = over, err
	conns := []net.Conn{c.client}
	if c.app != nil {
		conns = append(conns, c.app.conn)
	}
	for _, l := range c.laptops {
		conns = append(conns, l.conn)
	}
	c.mu.Unlock()

	c.cancel()
	for _, conn := range conns {
		if l, ok := conn.(interface{ SetLinger(int) error }); ok && reset {
			l.SetLinger(0)
		}
		conn.Close()
	}
	c.changed()
}

// closeWrite passes on that no more comes.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	conn.Close()
}
