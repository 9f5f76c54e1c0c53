// Package fakekernel is a helper.Kernel where there is none: the device is
// wireguard-go's in this process, with its peer on loopback as the kernel's has it.
package fakekernel

import (
	"errors"
	"log/slog"
	"net"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper"
	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

// Kernel makes one device.
type Kernel struct {
	tun func(mtu int) (tun.Device, error)
	log *slog.Logger

	mu     sync.Mutex
	device *tunnel.Tunnel
	relay  string // the other end of the wire
}

var _ helper.Kernel = (*Kernel)(nil)

// New makes a kernel whose device carries the packets of what tun returns.
func New(tun func(mtu int) (tun.Device, error), log *slog.Logger) *Kernel {
	return &Kernel{tun: tun, log: log}
}

var errNone = errors.New("there is no device")

func (k *Kernel) WireGuard(mtu int) (string, *net.UDPConn, error) {
	dev, err := k.tun(mtu)
	if err != nil {
		return "", nil, err
	}
	name, err := dev.Name()
	if err != nil {
		return "", nil, errors.Join(err, dev.Close())
	}
	first, err := key.NewPrivate()
	if err != nil {
		return "", nil, errors.Join(err, dev.Close())
	}
	d, err := tunnel.New(dev, conn.NewStdNetBind(), tunnel.Config{PrivateKey: first, Log: k.log})
	if err != nil {
		return "", nil, err
	}
	loopback := net.IPv4(127, 0, 0, 1)
	wire, err := net.DialUDP("udp4", &net.UDPAddr{IP: loopback}, &net.UDPAddr{IP: loopback, Port: int(d.ListenPort())})
	if err != nil {
		return "", nil, errors.Join(err, d.Close())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.device, k.relay = d, wire.LocalAddr().String()
	return name, wire, nil
}

func (k *Kernel) SetWireGuard(want helper.WireGuard) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.device == nil {
		return errNone
	}
	if err := k.device.SetPrivateKey(want.PrivateKey); err != nil {
		return err
	}
	if want.Peer.IsZero() {
		return k.device.SetPeers(nil)
	}
	p := tunnel.Peer{PublicKey: want.Peer, Endpoint: k.relay, AllowedIPs: want.AllowedIPs, Keepalive: want.Keepalive}
	if want.Speak { // turning it on sends one
		off := p
		off.Keepalive = 0
		if err := k.device.SetPeers([]tunnel.Peer{off}); err != nil {
			return err
		}
	}
	return k.device.SetPeers([]tunnel.Peer{p})
}

func (k *Kernel) WireGuardState() (helper.WireGuardState, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.device == nil {
		return helper.WireGuardState{}, errNone
	}
	all, err := k.device.Stats()
	if err != nil || len(all) == 0 {
		return helper.WireGuardState{}, err
	}
	return helper.WireGuardState{LastHandshake: all[0].LastHandshake, RxBytes: all[0].RxBytes, TxBytes: all[0].TxBytes}, nil
}

// Close takes the device away, as somebody may whose the machine is.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.device == nil {
		return nil
	}
	d := k.device
	k.device = nil
	return d.Close()
}
