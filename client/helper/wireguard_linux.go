package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
)

// wireBuffer is how much of what a device has sent waits for its reader, in bytes.
// The kernel counts a datagram of 1452 as 2304, and the reader may be away for some
// milliseconds on a busy machine: this is 18 ms at 1 Gbit/s.
const wireBuffer = 4 << 20

// wireGuard is a session's device in the kernel.
type wireGuard struct {
	client *wgctrl.Client
	relay  netip.AddrPort // the other end of the wire, its peer
	have   WireGuard
}

func (s *session) WireGuard(mtu int) (name string, wire *net.UDPConn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.makeInterface(func(name string) (func() error, error) {
		link := &netlink.Wireguard{LinkAttrs: netlink.NewLinkAttrs()}
		link.Name, link.MTU = name, mtu
		err := netlink.LinkAdd(link)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = &NoWireGuardError{err}
		}
		return func() error { return netlink.LinkDel(link) }, err
	})
	if err != nil {
		return "", nil, err
	}
	d, wire, err := openWireGuard(s.name)
	if err != nil {
		err = fmt.Errorf("make interface %s: %w", s.name, errors.Join(err, removeLink(s.name, s.index)))
		s.name, s.index = "", 0
		return "", nil, err
	}
	s.wg = d
	return s.name, wire, nil
}

// openWireGuard starts a device that has just been made. It listens once it is up,
// and only then is known where.
func openWireGuard(name string) (_ *wireGuard, wire *net.UDPConn, err error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, nil, err
	}
	d := &wireGuard{}
	if d.client, err = wgctrl.New(); err != nil {
		return nil, nil, err
	}
	dev, err := d.client.Device(name)
	if err == nil {
		loopback := net.IPv4(127, 0, 0, 1)
		wire, err = net.DialUDP("udp4", &net.UDPAddr{IP: loopback}, &net.UDPAddr{IP: loopback, Port: dev.ListenPort})
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.client.Close())
	}
	d.relay = wire.LocalAddr().(*net.UDPAddr).AddrPort()
	grow(wire)
	return d, wire, nil
}

// grow makes room in a wire. That there is less than was asked for is no fault.
func grow(wire *net.UDPConn) {
	raw, err := wire.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer)
	})
}

// errNoWireGuard is for wishes that come before the device.
var errNoWireGuard = errors.New("the session has no WireGuard device of the kernel's")

func (s *session) SetWireGuard(want WireGuard) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wg == nil {
		return errNoWireGuard
	}
	plan, err := planWireGuard(s.wg.have, want, s.wg.relay)
	if err != nil {
		return err
	}
	s.wg.have = WireGuard{} // until it is known
	for _, c := range plan {
		if err := s.wg.client.ConfigureDevice(s.name, c); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return &PrivilegeError{err}
			}
			return fmt.Errorf("configure interface %s: %w", s.name, err)
		}
	}
	s.wg.have = want
	return nil
}

func (s *session) WireGuardState() (WireGuardState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wg == nil {
		return WireGuardState{}, errNoWireGuard
	}
	dev, err := s.wg.client.Device(s.name)
	if err != nil {
		return WireGuardState{}, fmt.Errorf("look at interface %s: %w", s.name, err)
	}
	if len(dev.Peers) == 0 {
		return WireGuardState{}, nil
	}
	p := dev.Peers[0]
	// The device listens on every address. An authentic packet that somebody on the
	// way has sent there himself has it answer to him.
	if at := p.Endpoint; at == nil || at.AddrPort() != s.wg.relay {
		plan, err := planWireGuard(s.wg.have, s.wg.have, s.wg.relay)
		if err == nil {
			err = s.wg.client.ConfigureDevice(s.name, plan[0])
		}
		if err != nil {
			return WireGuardState{}, fmt.Errorf("configure interface %s: %w", s.name, err)
		}
	}
	return WireGuardState{LastHandshake: p.LastHandshakeTime, RxBytes: uint64(p.ReceiveBytes), TxBytes: uint64(p.TransmitBytes)}, nil
}

// close lets the kernel's device be; it goes with its interface.
func (d *wireGuard) close() error {
	if d == nil {
		return nil
	}
	return d.client.Close()
}
