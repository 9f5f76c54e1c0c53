package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"podnet.dev/client/helper"
	"podnet.dev/client/kernel"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// wireGuard is a session's device: tunnel.Tunnel in this process, or kernel.Tunnel.
type wireGuard interface {
	PublicKey() key.Public
	SetPrivateKey(key.Private) error
	SetPeers([]tunnel.Peer) error
	ListenPort() uint16
	Rebind() error
	Stats() ([]tunnel.PeerStats, error)
	WaitHandshake(ctx context.Context, peer key.Public) error
	Done() <-chan struct{}
	Close() error
}

// inKernel says that the session's WireGuard is the kernel's.
func (s *Session) inKernel() bool { return s.Request.Device == localapi.DeviceKernel }

// open makes the session's device, with the relay before it if it is one of ours.
func (s *Session) open(only transport.Kind) (*link, relayed, error) {
	if s.inKernel() {
		return s.openKernel(only)
	}
	dev, err := s.host.TUN(mtuUDP)
	if err != nil {
		return nil, relayed{}, err
	}
	relay, dev, err := s.relay(dev)
	if err != nil {
		return nil, relayed{}, err
	}
	l, err := newLink(dev, s.member.private, only, s.Log)
	return l, relay, err
}

// openKernel makes a device of the kernel's. Its relay is one to which nothing comes.
func (s *Session) openKernel(only transport.Kind) (*link, relayed, error) {
	host, ok := s.host.(helper.Kernel)
	if !ok {
		return nil, relayed{}, &helper.NoWireGuardError{Err: errors.New("a session without an interface of this machine's has none")}
	}
	relay, err := s.startRelay()
	if err != nil {
		return nil, relayed{}, err
	}
	bind := transport.NewBind(transport.Options{Log: s.Log})
	t, err := kernel.New(host, bind, kernel.Config{PrivateKey: s.member.private, MTU: mtuUDP, Log: s.Log})
	if err != nil {
		return nil, relayed{}, err
	}
	return linkOf(t.Name(), bind, t, only, s.Log), relayed{Relay: relay}, nil
}

// ownDevice refuses what only a device in this process can do: what the kernel's
// brings in enters the host's own network, and what the host sends it takes.
func (s *Session) ownDevice(what string) error {
	if !s.inKernel() {
		return nil
	}
	return &localapi.Error{Code: localapi.CodeConflict, Status: http.StatusConflict,
		Message: fmt.Sprintf("%s over the kernel's WireGuard device, which this session has", what),
		Hint:    "podnet disconnect; podnet connect --device userspace"}
}
