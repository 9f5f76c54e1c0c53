//go:build !linux

package transport

import "net"

// tuneStream bounds what the kernel may hold of a stream: more would only be
// queue, and the queue is to be ours, where it is short.
func tuneStream(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetNoDelay(true)
		t.SetWriteBuffer(256 << 10)
	}
}
