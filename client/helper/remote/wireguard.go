//go:build unix

package remote

import (
	"errors"
	"fmt"
	"net"
	"time"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
)

var _ helper.Kernel = (*session)(nil)

func (s *session) WireGuard(mtu int) (string, *net.UDPConn, error) {
	a, files, err := s.call(wire.Request{Verb: wire.WireGuard, MTU: mtu})
	if err != nil {
		return "", nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return "", nil, fmt.Errorf("podnet-helper gave %d files for the wire of interface %s", len(files), a.Interface)
	}
	c, err := net.FileConn(files[0])
	if err != nil {
		return "", nil, fmt.Errorf("take the wire of interface %s over: %w", a.Interface, err)
	}
	w, ok := c.(*net.UDPConn)
	if !ok {
		return "", nil, errors.Join(fmt.Errorf("the wire of interface %s is no UDP socket", a.Interface), c.Close())
	}
	return a.Interface, w, nil
}

func (s *session) SetWireGuard(want helper.WireGuard) error {
	_, _, err := s.call(wire.Request{Verb: wire.SetWireGuard, Device: &wire.Device{
		PrivateKey: want.PrivateKey.Base64(), Peer: want.Peer, AllowedIPs: want.AllowedIPs, Keepalive: int(want.Keepalive / time.Second), Speak: want.Speak,
	}})
	return err
}

func (s *session) WireGuardState() (helper.WireGuardState, error) {
	a, _, err := s.call(wire.Request{Verb: wire.WireGuardState})
	if err != nil || a.Device == nil {
		return helper.WireGuardState{}, err
	}
	return helper.WireGuardState{LastHandshake: a.Device.LastHandshake, RxBytes: a.Device.RxBytes, TxBytes: a.Device.TxBytes}, nil
}
