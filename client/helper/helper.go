// Package helper is the privileged half of podnet: it makes the TUN device, its
// addresses and routes, the sockets on port 53, and points the host's resolver
// at them, and takes it all back. It sees no kubeconfig and no packet, and no key but
// that of a WireGuard device in the kernel, if a session asks for one. It links no
// Kubernetes, no HTTP and no DNS library. A Host does it in the process of its
// caller; package remote asks podnet-helper, whose process has one.
package helper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

// Session is what one session may do to the host. Close takes everything back,
// and so does the death of the process, see Guard.
type Session interface {
	// TUN makes the device. Its interface has a name like "podnet0", the first
	// that is free. mtu is in bytes. The caller closes it.
	TUN(mtu int) (tun.Device, error)
	// Networks are those that the host has without podnet.
	Networks() ([]router.Network, error)
	// SetNetwork gives the interface its addresses and routes; the whole wish
	// at each call. A *router.ConflictError changes nothing.
	SetNetwork(want router.Config) error
	// ListenDNS opens port 53 for UDP and TCP on addresses of the interface.
	// Those that the host cannot have, IPv6 where it is off, are left out, if
	// need be all of them. The caller closes the sockets.
	ListenDNS(ctx context.Context, addrs []netip.Addr) ([]net.PacketConn, []net.Listener, error)
	// SetDNS points the host's resolver at the proxy; the whole wish of this
	// session at each call, the zero one undoes it.
	SetDNS(ctx context.Context, want osdns.Config) error
	// DNS says which resolvers the host has without us, and how it is set up.
	DNS() (base []netip.AddrPort, mode string)
	// LookUp asks for a name by each way that programs of this host have.
	LookUp(ctx context.Context, name string) []osdns.Way
	// ResetFlows ends the TCP flows of this host's programs that are bound to
	// one of the given addresses, with an error for their owners, and says how
	// many. It is for flows that can get no answer any more. Where the system
	// has no means for it, which is everywhere but on Linux, it does nothing.
	ResetFlows(ctx context.Context, local []netip.Addr) (int, error)
	// Close takes everything back. It is idempotent and waits.
	Close() error
}

// PrivilegeError says that the host does not let us.
type PrivilegeError struct{ Err error }

func (e *PrivilegeError) Error() string {
	return "podnet may not change this machine's network: " + e.Err.Error()
}
func (e *PrivilegeError) Unwrap() error { return e.Err }

// Code is localapi.CodePrivilege.
func (e *PrivilegeError) Code() string { return "privilege" }
func (e *PrivilegeError) Hint() string {
	if errors.Is(e.Err, fs.ErrNotExist) {
		return "the kernel lacks TUN devices: modprobe tun; in a container pass --device /dev/net/tun"
	}
	return "sudo podnet setup, once, lets you connect as yourself; sudo -E podnet connect does without it; podnet exec and podnet proxy need no privilege at all"
}

// BusyError says that another podnet has this host's network.
type BusyError struct{ Lock string }

func (e *BusyError) Error() string { return "another podnet session has this machine's network" }
func (e *BusyError) Code() string  { return "conflict" }
func (e *BusyError) Hint() string {
	return "podnet disconnect as the user who connected; the lock is " + e.Lock
}

// session does the work in the process of its caller.
type session struct {
	host *Host
	warn func(string)
	// dns is what it wishes of the host's resolver; host.mu guards it.
	dns osdns.Config

	mu sync.Mutex
	// name and index are the interface's; none yet: empty and 0.
	name   string
	index  int
	wg     *wireGuard // nil: the interface is a TUN, or none
	closed bool
}

var _ Kernel = (*session)(nil)

// maxInterfaces is how many names are tried before giving up.
const maxInterfaces = 32

func (s *session) TUN(mtu int) (dev tun.Device, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.makeInterface(func(name string) (func() error, error) {
		if dev, err = tun.CreateTUN(name, mtu); err != nil {
			return nil, err
		}
		return dev.Close, nil
	})
	if err != nil {
		return nil, err
	}
	return dev, nil
}

// makeInterface has create make an interface with the first name that is free, and
// notes it before. undo is create's. s.mu is held.
func (s *session) makeInterface(create func(name string) (undo func() error, err error)) error {
	for i := range maxInterfaces {
		name := "podnet" + strconv.Itoa(i)
		if _, err := net.InterfaceByName(name); err == nil {
			continue
		}
		if err := noteLink(s.host.opts.StateDir, name); err != nil {
			return err
		}
		undo, err := create(name)
		switch {
		case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EEXIST):
			continue
		case errors.As(err, new(*NoWireGuardError)):
			return err
		case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
			return &PrivilegeError{err}
		case err != nil:
			return fmt.Errorf("make interface %s: %w", name, err)
		}
		made, err := net.InterfaceByName(name)
		if err != nil {
			return errors.Join(err, undo())
		}
		s.name, s.index = name, made.Index
		return nil
	}
	return fmt.Errorf("make an interface: the names podnet0 to podnet%d are taken", maxInterfaces-1)
}

func (s *session) Networks() ([]router.Network, error) {
	have, err := router.Read()
	return have.Networks(router.Ours), err
}

func (s *session) SetNetwork(want router.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if want.Interface != s.name {
		return fmt.Errorf("interface %s is not this session's", want.Interface)
	}
	err := s.host.router.Set(want)
	if errors.Is(err, fs.ErrPermission) {
		return &PrivilegeError{err}
	}
	return err
}

// listenDNSPort is 53: resolv.conf has no way to say another.
const listenDNSPort = 53

func (s *session) ListenDNS(ctx context.Context, addrs []netip.Addr) (_ []net.PacketConn, _ []net.Listener, err error) {
	var open Sockets
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	var lc net.ListenConfig
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, listenDNSPort).String()
		p, err := lc.ListenPacket(ctx, "udp", at)
		if errors.Is(err, syscall.EADDRNOTAVAIL) && a.Is6() {
			continue
		}
		if err != nil {
			return nil, nil, portError(err)
		}
		open.Packets = append(open.Packets, p)
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			return nil, nil, portError(err)
		}
		open.Streams = append(open.Streams, l)
	}
	return open.Packets, open.Streams, nil
}

// PortError says that port 53 is somebody else's.
type PortError struct{ Err error }

func (e *PortError) Error() string { return "cannot answer DNS on port 53: " + e.Err.Error() }
func (e *PortError) Unwrap() error { return e.Err }
func (e *PortError) Code() string  { return "conflict" }
func (e *PortError) Hint() string {
	return "a name server on this machine takes port 53 of every address; let it listen on its own only (ss -lnup sport = 53)"
}

func portError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &PortError{err}
	case errors.Is(err, fs.ErrPermission):
		return &PrivilegeError{err}
	}
	return fmt.Errorf("answer DNS: %w", err)
}

func (s *session) SetDNS(ctx context.Context, want osdns.Config) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("set dns: %w", net.ErrClosed)
	}
	return s.host.setDNS(ctx, s, want)
}

func (s *session) LookUp(ctx context.Context, name string) []osdns.Way {
	return osdns.LookUp(ctx, osdns.Options{}, name)
}

func (s *session) ResetFlows(_ context.Context, local []netip.Addr) (int, error) {
	n, err := ResetFlows(local)
	if errors.Is(err, fs.ErrPermission) {
		err = &PrivilegeError{err}
	}
	return n, err
}

func (s *session) DNS() ([]netip.AddrPort, string) { return s.host.dns.Base(), s.host.dns.Mode() }

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.host.leave(s), s.wg.close())
}

// Cleanup takes back what a killed podnet left. It is idempotent. Where a
// session is alive there is nothing to take back, and it does nothing.
func Cleanup(ctx context.Context, stateDir string) error {
	if _, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := tryLockState(stateDir)
	return takeBackUnder(ctx, stateDir, unlock, err)
}

// takeBackUnder is takeBack for who has got the lock, or has an error instead. Where
// a session has it nothing is to be taken back.
func takeBackUnder(ctx context.Context, stateDir string, unlock func(), err error) error {
	var busy *BusyError
	if errors.As(err, &busy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return takeBack(ctx, stateDir)
}

// takeBack undoes by the notes in stateDir; the lock is held.
func takeBack(ctx context.Context, stateDir string) error {
	return errors.Join(osdns.Cleanup(ctx, stateDir), dropLinks(stateDir))
}
