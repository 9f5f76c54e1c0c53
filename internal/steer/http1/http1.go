// Package http1 steers one connection of HTTP/1: it decides request by request
// whether the pod's own program answers or a laptop does.
//
// It carries bytes, not messages. What the app gets from a client and a client
// from the app are the bytes that were sent, in their order, however odd; parsers
// only watch them go by to learn where a message ends. Where two readers might not
// agree on that, a Doubt arises, and from there on the connection is the app's
// to its end.
//
// It knows nothing of redirects and tunnels: a steer.Outlet opens connections. It
// has no idea of HTTP/2 nor of TLS.
package http1

import (
	"context"
	"net"
	"time"

	"podnet.dev/internal/steer"
)

const (
	// dialTime is how long a client waits for a laptop before it gets a 502.
	dialTime = 3 * time.Second
	// lingerTime is how long what a client still sends is thrown away after the
	// last response, lest a reset overtake it (RFC 9112, section 9.6).
	lingerTime = time.Second
	// maxPending is how many requests may wait for their responses.
	maxPending = 1000
	// mirrorTime is how long copies may take after their connection has ended.
	mirrorTime = 5 * time.Second
)

// Serve carries a client's connection until it has ended in both directions, or
// ctx ends. It closes client and all connections it got from out, and returns when
// nothing of it runs any more; that may be mirrorTime after the connection's end.
// first is what was read of the connection before; Serve keeps nothing of it.
//
// The app is connected to when the first request is passed on, and once more when
// it has gone while a laptop was in use. The error is what broke the connection,
// nil if it ended in order.
//
// A rule that shows the client's address shows client.RemoteAddr, and in the
// PROXY protocol client.LocalAddr as what it wanted to reach.
func Serve(ctx context.Context, client net.Conn, first []byte, rules steer.Rules, out steer.Outlet, see steer.Observer) error {
	return NewPassage(rules, see).Serve(ctx, client, first, nil, nil, out)
}

// Serve takes over a connection of which all that the Passage has seen was passed
// on, as the function Serve does from the beginning. app is where that went, nil: it
// is not connected to yet; it is closed like client. first and fromApp are what was
// read of both and not passed on.
func (p *Passage) Serve(ctx context.Context, client net.Conn, first []byte, app net.Conn, fromApp []byte, out steer.Outlet) error {
	inner, cancel := context.WithCancel(ctx)
	c := &conn{
		ctx: inner, cancel: cancel,
		client: client, rules: p.rules, out: out, see: p.see,
		in:      newBuffer(first),
		laptops: make(map[string]*upstream),
		wake:    make(chan struct{}, 1),
	}
	if app != nil {
		c.adopt(app, fromApp, p.pending)
	}
	stop := context.AfterFunc(ctx, func() { c.end(ctx.Err(), false) })
	defer stop()

	c.clientEnded(c.readClient(p.open, &p.body))
	c.upstreams.Wait()
	c.end(nil, false)
	c.reportRest()
	c.finishMirrors(ctx)
	return c.err
}
