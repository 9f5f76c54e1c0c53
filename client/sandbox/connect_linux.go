package sandbox

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connect makes a connection of a socket that does not block, which it owns. The
// socket stays in the network namespace in which it was made.
func connect(ctx context.Context, fd int, to netip.AddrPort) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = f.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })()
	begun := false
	waited := raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			err = unix.Connect(int(fd), sockaddr(to))
			return err != unix.EINPROGRESS
		}
		var n int
		if n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return true
		}
		if n != 0 {
			err = unix.Errno(n)
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err != unix.ENOTCONN // woken without news
	})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case waited != nil:
		return nil, waited
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
