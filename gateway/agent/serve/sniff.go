package serve

import (
	"net"
	"time"

	"podnet.dev/internal/steer"
)

// opening is what was read of a connection to learn what it speaks.
type opening struct {
	kind steer.Kind
	// client and app are the bytes of either side, and the errors why it sends no
	// more: io.EOF or what broke it.
	client, app       []byte
	clientErr, appErr error
}

const (
	clientOpening = 4 << 10 // bytes; a head of the usual size comes in one piece
	appOpening    = 512
)

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// sniff reads until it is clear what the client speaks, the app says something,
// or steer.SniffTime is over. The knock is there.
func (c *conn) sniff() opening {
	var o opening
	done := make(chan struct{})
	c.client.SetReadDeadline(time.Now().Add(steer.SniffTime))
	go func() {
		defer close(done)
		b := make([]byte, appOpening)
		n, err := c.knock.Read(b)
		if isTimeout(err) {
			return
		}
		o.app, o.appErr = b[:n], err
		c.client.SetReadDeadline(past)
	}()

	b := make([]byte, clientOpening)
	for n := 0; o.kind == steer.Unknown && o.clientErr == nil; {
		var more int
		more, o.clientErr = c.client.Read(b[n:])
		n += more
		o.client = b[:n]
		o.kind = steer.Sniff(o.client)
	}
	c.knock.SetReadDeadline(past)
	<-done
	c.knock.SetReadDeadline(time.Time{})
	c.client.SetReadDeadline(time.Time{})

	if isTimeout(o.clientErr) {
		o.clientErr = nil
	}
	if len(o.app) > 0 || o.appErr != nil || o.kind == steer.Unknown {
		o.kind = steer.Other
	}
	return o
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
