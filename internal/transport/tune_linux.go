package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// notSent is how much the kernel may hold of a stream that is not yet on the
// wire. More would only be queue, and the queue is to be ours, where it is
// short.
const notSent = 128 << 10

func tuneStream(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	t.SetNoDelay(true)
	if rc, err := t.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		})
	}
}
