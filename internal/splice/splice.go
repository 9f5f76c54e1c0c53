// Package splice carries bytes between connections. It knows nothing of what
// they are, nor of who is at their ends.
package splice

import (
	"errors"
	"io"
	"net"
	"sync"
)

const (
	// idleBuffer is what a direction keeps while little comes: most connections
	// are idle at any time.
	idleBuffer = 2 << 10
	busyBuffer = 32 << 10
)

var busyBuffers = sync.Pool{New: func() any { return new([busyBuffer]byte) }}

// Join carries bytes both ways until both sides have said all, or one has
// failed: then both are reset. there and back, which may be nil, see what goes
// from a to b and from b to a; they must not keep it. Join closes neither of two
// that have ended well.
//
// The bytes pass through here, not by splice(2): a pipe of 1 MiB for each
// direction, as Go takes them, counts against what all of a machine's
// unprivileged processes of one user may have together (pipe(7),
// pipe-user-pages-soft).
func Join(a, b net.Conn, there, back func([]byte)) error {
	var other error
	var done sync.WaitGroup
	fail := sync.OnceFunc(func() {
		Reset(a)
		Reset(b)
	})
	done.Go(func() {
		if _, other = Carry(a, b, back); other != nil {
			fail()
		}
	})
	_, err := Carry(b, a, there)
	if err != nil {
		fail()
	}
	done.Wait()
	return errors.Join(err, other)
}

// Carry copies from one end to the other until there is no more, and passes that
// on. tee, if not nil, is given all of it, before the other end can answer; it must not
// keep it.
func Carry(to net.Conn, from io.Reader, tee func([]byte)) (n int64, err error) {
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
			if tee != nil {
				tee(b[:read])
			}
			if _, err := to.Write(b[:read]); err != nil {
				return n, err
			}
			n += int64(read)
		}
		switch {
		case err == io.EOF:
			return n, CloseWrite(to)
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

// CloseWrite passes on that no more comes.
func CloseWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}

// Reset closes a connection so that its other end knows that it did not get all.
func Reset(conn net.Conn) {
	switch c := conn.(type) {
	case interface{ Reset() }: // of netstack
		c.Reset()
	case interface{ SetLinger(int) error }:
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
