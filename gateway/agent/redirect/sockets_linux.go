package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ControlListener is the Control of a net.ListenConfig by which the agent listens for
// TCP connections that are redirected to it.
func ControlListener(_, _ string, c syscall.RawConn) error {
	return setOption(c, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

// ControlDialer is the Control of a net.Dialer whose TCP connections are the agent's
// own: they are not redirected.
func ControlDialer(_, _ string, c syscall.RawConn) error {
	return setOption(c, unix.SOL_SOCKET, unix.SO_MARK, mark)
}

// setOption sets an option if it can. That it does what it is for is for tryOut to
// see; who may not set it, as in an agent that only sends, has no table either.
func setOption(c syscall.RawConn, level, option, value int) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, value) })
}

// tryTime is how long a connection may take that this process has with itself.
const tryTime = time.Second

// tryOut sees whether TCP is handed over, and what the agent marks is not, by
// connections to ports that the kernel chooses. A pod's own rules may take marks
// away: then each connection of the agent's would come back to it.
func (t *Table) tryOut() error {
	agent, err := listen(":0", ControlListener)
	if err != nil {
		return err
	}
	defer agent.Close()
	for _, ip := range []string{"127.0.0.1", "::1"} {
		app, err := listen(net.JoinHostPort(ip, "0"), nil)
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // the pod has only one of both
		}
		if err != nil {
			return err
		}
		defer app.Close()
		if err := t.Set([]Port{{TCP, portOf(app), portOf(agent)}}); err != nil {
			return err
		}
		if err := connect(app.Addr(), nil, agent); err != nil {
			return fmt.Errorf("hand a connection over: %w", err)
		}
		if err := connect(app.Addr(), ControlDialer, app); err != nil {
			return fmt.Errorf("leave a marked connection alone: %w", err)
		}
	}
	return t.Set(nil)
}

// control is that of a socket of package net.
type control = func(network, address string, c syscall.RawConn) error

func listen(address string, f control) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: f}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func portOf(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// connect sees that a connection to an address is accepted by a listener.
func connect(to net.Addr, f control, by *net.TCPListener) error {
	d := net.Dialer{Timeout: tryTime, Control: f}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := by.SetDeadline(time.Now().Add(tryTime)); err != nil {
		return err
	}
	accepted, err := by.Accept()
	if err != nil {
		return err
	}
	defer accepted.Close()
	if got, want := accepted.RemoteAddr().String(), c.LocalAddr().String(); got != want {
		return fmt.Errorf("%s came, not %s", got, want)
	}
	return nil
}
