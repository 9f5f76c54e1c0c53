//go:build unix

package splice

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// maxDatagram is larger than any.
const maxDatagram = 64 << 10

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// ReadDatagram waits for a datagram and hands it to f, which must not keep it. It
// needs memory only while there is one: a thousand flows may wait.
func ReadDatagram(conn *net.UDPConn, f func([]byte)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		b := datagrams.Get().(*[maxDatagram]byte)
		defer datagrams.Put(b)
		n, err := unix.Read(int(fd), b[:])
		switch err {
		case unix.EAGAIN:
			return false
		case nil:
			f(b[:n])
		default:
			failed = err
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
