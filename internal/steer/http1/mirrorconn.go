package http1

import (
	"context"
	"io"
	"net"
)

// mirrorConn is a connection to a laptop for copies. One goroutine reads from it
// for as long as it is there, so that it is known at once when the laptop has
// ended it.
type mirrorConn struct {
	conn    net.Conn
	stop    func() bool   // it from being closed when its context ends
	asked   chan string   // the method of the copy whose response comes next
	answers chan answer   // to what was asked
	over    chan struct{} // closed when nothing is read any more
}

// answer is a response, of which nothing is kept but what its head says, and why
// it is not whole.
type answer struct {
	response Response
	err      error
}

// newMirrorConn takes a connection, and closes it when ctx ends.
func newMirrorConn(ctx context.Context, conn net.Conn) *mirrorConn {
	c := &mirrorConn{
		conn: conn, asked: make(chan string, 1), answers: make(chan answer, 1), over: make(chan struct{}),
		stop: context.AfterFunc(ctx, func() { conn.Close() }),
	}
	go c.read()
	return c
}

func (c *mirrorConn) read() {
	defer close(c.over)
	in := newBuffer(nil)
	defer in.free()
	for {
		var a answer
		a.err = in.fill(c.conn)
		select {
		case a.response.Method = <-c.asked:
		default:
			return // it has ended, or says what nobody has asked for
		}
		if a.err == nil {
			a.err = c.readResponse(&a.response, &in)
		}
		if a.err == io.EOF {
			a.err = io.ErrUnexpectedEOF
		}
		c.answers <- a
		if a.err != nil || len(in.bytes()) > 0 {
			return
		}
	}
}

// readResponse reads to the end of a response that has begun to come.
func (c *mirrorConn) readResponse(r *Response, in *buffer) error {
	for {
		n, done, err := r.Feed(in.bytes())
		in.skip(n)
		if done || err != nil {
			return err
		}
		if err := in.fill(c.conn); err == io.EOF && r.UntilEnd {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// ask says that a copy begins. The response to the one before has been waited for.
func (c *mirrorConn) ask(method string) { c.asked <- method }

// answer waits for the response to what was asked.
func (c *mirrorConn) answer() (Response, error) {
	select {
	case a := <-c.answers:
		return a.response, a.err
	case <-c.over:
	}
	select {
	case a := <-c.answers: // they may have come together
		return a.response, a.err
	default:
		return Response{}, io.ErrUnexpectedEOF
	}
}

func (c *mirrorConn) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// close ends the connection, and waits for who reads from it.
func (c *mirrorConn) close() {
	c.stop()
	c.conn.Close()
	<-c.over
}
