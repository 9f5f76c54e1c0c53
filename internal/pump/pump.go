// Package pump carries bytes between pairs of TCP connections, many pairs in one
// thread: for each message that passes there is one read and one write, and nobody
// is woken but by the kernel.
//
// It knows nothing of what is said. A Flow sees all bytes before they are passed
// on, and as soon as it does not want some of them passed, or anything else is out
// of the ordinary, the pair leaves the pump, and goes on in goroutines.
package pump

import (
	"errors"
	"net"
)

// Flow is what is said between a client and the app that it talks to. Its methods
// are called by one goroutine at a time; none of them may block, nor keep a slice.
type Flow interface {
	// FromClient sees what the client sends, and FromApp what the app does, each in
	// its order. They return how many of the bytes are to be passed on. With fewer
	// than all the flow leaves, and the rest is not passed on.
	FromClient(b []byte) int
	FromApp(b []byte) int
	// Left is called once the flow has left, with both connections, which are the
	// Flow's from now on, and with what was read of each and not passed on. All else
	// has been written. A flow leaves also when the app ends before its client, or
	// takes no more: what Left reads tells it so again.
	Left(client, app *net.TCPConn, fromClient, fromApp []byte)
	// Ended is called, instead of Left, once both connections are closed; err is why
	// it was not in order.
	Ended(err error)
}

// ErrClosed is what a flow has ended with when its Pump has.
var ErrClosed = errors.New("pump closed")
