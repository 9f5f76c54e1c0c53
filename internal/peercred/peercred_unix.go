//go:build linux || darwin

package peercred

import (
	"fmt"
	"net"
)

// Of asks the kernel about the other end of c, a unix socket.
func Of(c net.Conn) (who Credentials, err error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return who, fmt.Errorf("not a unix socket: %T", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return who, err
	}
	var askErr error
	if err := raw.Control(func(fd uintptr) { who, askErr = behind(int(fd)) }); err != nil {
		return who, err
	}
	return who, askErr
}
