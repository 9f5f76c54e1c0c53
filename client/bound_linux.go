package client

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"podnet.dev/dnsproxy"
)

// boundTo dials by one interface, whatever other one has a route to the same
// address: every gateway has the same ones.
func boundTo(link string) dnsproxy.Dial {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), link) }); e != nil {
			return e
		}
		return err
	}}
	return d.DialContext
}
