package helper

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"podnet.dev/internal/key"
)

// Kernel is what a Session has besides where the host may have WireGuard in its
// kernel. That device's peer is on loopback: a socket, by which its datagrams
// come to whoever takes them further, and back.
type Kernel interface {
	// WireGuard makes the device, which takes TUN's place and has a name like
	// its. mtu is in bytes. What the device sends to its peer is read from wire,
	// and what is written there it receives; the caller closes it. A
	// *NoWireGuardError says that this host's kernel has none.
	WireGuard(mtu int) (name string, wire *net.UDPConn, err error)
	// SetWireGuard gives the device its key and its peer; the whole wish at each
	// call. A peer that stays keeps its WireGuard session.
	SetWireGuard(want WireGuard) error
	// WireGuardState is how the device does. That it is gone is an error.
	WireGuardState() (WireGuardState, error)
}

// WireGuard is what a session wishes of the kernel's device.
type WireGuard struct {
	PrivateKey key.Private
	Peer       key.Public // the zero one: none
	AllowedIPs []netip.Prefix
	Keepalive  time.Duration // whole seconds; 0: off
	// Speak has the device send a keepalive at once, if it has a peer and a
	// Keepalive: where the peer answers to follows from where it came from.
	Speak bool
}

// WireGuardState is what the kernel says of the peer. Without one it is zero.
type WireGuardState struct {
	LastHandshake    time.Time // zero: none yet
	RxBytes, TxBytes uint64    // encrypted
}

// NoWireGuardError says that the kernel has no WireGuard.
type NoWireGuardError struct{ Err error }

func (e *NoWireGuardError) Error() string {
	return "this machine's kernel has no WireGuard: " + e.Err.Error()
}
func (e *NoWireGuardError) Unwrap() error { return e.Err }
func (e *NoWireGuardError) Code() string  { return "conflict" }
func (e *NoWireGuardError) Hint() string {
	return "modprobe wireguard loads it where it is a module; podnet connect --device userspace needs none"
}

// planWireGuard is what the kernel is told, one after the other, to turn have into
// want. relay is where its peer is. A device of which nothing is known is the zero
// have.
func planWireGuard(have, want WireGuard, relay netip.AddrPort) ([]wgtypes.Config, error) {
	var all []wgtypes.Config
	c := wgtypes.Config{}
	if have.PrivateKey != want.PrivateKey {
		k, err := wgtypes.ParseKey(want.PrivateKey.Base64())
		if err != nil {
			return nil, fmt.Errorf("the key of the device: %w", err)
		}
		c.PrivateKey = &k
	}
	stays := c.PrivateKey == nil && !want.Peer.IsZero() && have.Peer == want.Peer
	c.ReplacePeers = !stays
	if want.Peer.IsZero() {
		return append(all, c), nil
	}
	p := wgtypes.PeerConfig{
		PublicKey: wgtypes.Key(want.Peer), UpdateOnly: stays, Endpoint: net.UDPAddrFromAddrPort(relay),
		PersistentKeepaliveInterval: &want.Keepalive,
		// To empty the list first would cost packets of flows that are allowed before
		// and after; most often it grows.
		ReplaceAllowedIPs: !contains(want.AllowedIPs, have.AllowedIPs),
	}
	for _, ip := range want.AllowedIPs {
		p.AllowedIPs = append(p.AllowedIPs, net.IPNet{IP: ip.Addr().AsSlice(), Mask: net.CIDRMask(ip.Bits(), ip.Addr().BitLen())})
	}
	if stays && want.Speak { // turning it on sends one
		off := time.Duration(0)
		all = append(all, wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: &off}}})
	}
	c.Peers = []wgtypes.PeerConfig{p}
	return append(all, c), nil
}

func contains(all, some []netip.Prefix) bool {
	return !slices.ContainsFunc(some, func(p netip.Prefix) bool { return !slices.Contains(all, p) })
}
