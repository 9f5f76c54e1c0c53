package serve

import (
	"context"
	"net"
	"sync"

	"podnet.dev/internal/splice"
)

// end is one end of a connection, and what was read of it before.
type end struct {
	net.Conn
	first []byte
}

// Read gives first before anything else.
func (e *end) Read(b []byte) (int, error) {
	if len(e.first) > 0 {
		n := copy(b, e.first)
		e.first = e.first[n:]
		return n, nil
	}
	return e.Conn.Read(b)
}

// join carries bytes between a client and its peer until neither sends any more,
// or ctx ends, and closes the peer. What the client sends is copied. in and out
// count bytes from and to the client. What breaks one connection resets the other.
func join(ctx context.Context, client, peer end, copies copies) (in, out int64, err error) {
	var once sync.Once
	broken := func(why error) {
		once.Do(func() {
			err = why
			splice.Reset(client.Conn)
			splice.Reset(peer.Conn)
		})
	}
	stop := context.AfterFunc(ctx, func() { broken(ctx.Err()) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		var why error
		if out, why = splice.Carry(client.Conn, &peer, nil); why != nil {
			broken(why)
		}
	}()
	var why error
	if in, why = splice.Carry(peer.Conn, &client, copies.add); why != nil {
		broken(why)
	} else {
		copies.end()
	}
	<-done
	stop()
	peer.Close()
	once.Do(func() {}) // whoever is still at it is through
	return in, out, err
}
