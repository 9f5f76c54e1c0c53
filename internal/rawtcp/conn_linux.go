// Package rawtcp gives TCP connections whose reads and writes cost less than
// those of package net, for who passes on many small messages.
//
// A system call of package net is told to Go's scheduler before and behind, since
// it might block, and when the kernel lets another process run meanwhile, another
// thread takes over. On a socket that does not block that is for nothing: for a
// request and its response of 100 bytes, passed on, it was an eighth of all CPU
// time, and half of the context switches.
package rawtcp

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Conn is a TCP connection. What it embeds must not be closed but by Close, and
// there may be one Write at a time.
type Conn struct {
	*net.TCPConn
	wait func(func(fd uintptr) bool) error // for something to read
	try  func(fd uintptr) bool             // to read it

	in struct { // what a Read works on, so that it allocates nothing
		sync.Mutex
		b   []byte
		n   int
		err syscall.Errno
	}
	out struct {
		sync.Mutex
		fd     uintptr
		closed bool // fd may be somebody else's
	}
}

// New returns a Conn that owns c from now on.
func New(c *net.TCPConn) *Conn {
	conn := &Conn{TCPConn: c}
	conn.try = conn.read
	raw, err := c.SyscallConn()
	if err != nil { // c is the zero value
		panic(err)
	}
	conn.wait = raw.Read
	conn.out.closed = raw.Control(func(fd uintptr) { conn.out.fd = fd }) != nil
	return conn
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.Lock()
	defer c.in.Unlock()
	c.in.b = b
	err := c.wait(c.try)
	c.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case c.in.err != 0:
		return 0, c.broken("read", c.in.err)
	case c.in.n == 0:
		return 0, io.EOF
	}
	return c.in.n, nil
}

// read reports whether there was something, be it the end.
func (c *Conn) read(fd uintptr) bool {
	c.in.n, c.in.err = call(syscall.SYS_READ, fd, c.in.b)
	return c.in.err != syscall.EAGAIN
}

// Write implements net.Conn. A deadline counts only where it has to wait.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.writeNow(b)
	switch {
	case err != 0:
		return 0, c.broken("write", err)
	case n == len(b):
		return n, nil
	}
	rest, waited := c.TCPConn.Write(b[n:])
	return n + rest, waited
}

// writeNow writes what there is room for.
func (c *Conn) writeNow(b []byte) (int, syscall.Errno) {
	c.out.Lock()
	defer c.out.Unlock()
	if c.out.closed || len(b) == 0 {
		return 0, 0
	}
	n, err := call(syscall.SYS_WRITE, c.out.fd, b)
	if err == syscall.EAGAIN {
		return 0, 0
	}
	return n, err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.out.Lock()
	c.out.closed = true
	c.out.Unlock()
	return c.TCPConn.Close()
}

func (c *Conn) broken(op string, err syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// call reads into or writes from b, which is not empty. The descriptors of package
// net do not block.
func call(number, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if err != syscall.EINTR {
			return int(n), err
		}
	}
}
