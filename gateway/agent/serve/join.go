package serve

import (
	"context"
	"io"
	"net"
	"sync"
)

const (
	// idleBuffer is what a direction keeps while little comes: most connections
	// of a pod are idle at any time.
	idleBuffer = 2 << 10
	busyBuffer = 32 << 10
)

var busyBuffers = sync.Pool{New: func() any { return new([busyBuffer]byte) }}

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
//
// The bytes pass through here, not by splice(2): a pipe of 1 MiB for each
// direction, as Go takes them, counts against what all of the node's unprivileged
// processes of user 0 may have together (pipe(7), pipe-user-pages-soft): 32
// connections would leave them none.
func join(ctx context.Context, client, peer end, copies copies) (in, out int64, err error) {
	var once sync.Once
	broken := func(why error) {
		once.Do(func() {
			err = why
			reset(client.Conn)
			reset(peer.Conn)
		})
	}
	stop := context.AfterFunc(ctx, func() { broken(ctx.Err()) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		var why error
		if out, why = carry(client.Conn, &peer, nil); why != nil {
			broken(why)
		}
	}()
	var why error
	if in, why = carry(peer.Conn, &client, copies.add); why != nil {
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

// carry copies from one end to the other until there is no more, and passes that
// on. tee, if not nil, is given all that was passed on; it must not keep it.
func carry(to net.Conn, from io.Reader, tee func([]byte)) (n int64, err error) {
	idle := make([]byte, idleBuffer)
	b := idle
	var busy *[busyBuffer]byte
	defer func() {
		if busy != nil {
			busyBuffers.Put(busy)
		}
	}()
	for {
		read, err := from.Read(b)
		if read > 0 {
			if _, err := to.Write(b[:read]); err != nil {
				return n, err
			}
			n += int64(read)
			if tee != nil {
				tee(b[:read])
			}
		}
		switch {
		case err == io.EOF:
			return n, closeWrite(to)
		case err != nil:
			return n, err
		case read == len(b) && busy == nil:
			busy = busyBuffers.Get().(*[busyBuffer]byte)
			b = busy[:]
		case read < idleBuffer && busy != nil:
			busyBuffers.Put(busy)
			busy, b = nil, idle
		}
	}
}

// closeWrite passes on that no more comes.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}

// reset closes a connection so that its other end knows that it did not get all.
func reset(conn net.Conn) {
	if l, ok := conn.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	conn.Close()
}
