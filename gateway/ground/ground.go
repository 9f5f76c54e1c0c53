// Package ground is what a gateway in a cluster stands on, whichever kind it is: a key, a
// network stack and the tunnel between them and the peers. Who they are is for others.
package ground

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"podnet.dev/gateway/policy"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// Service4 and Service6 are the tunnel addresses of every gateway: DNS on
// port 53, and ping.
var (
	Service4 = netip.MustParseAddr("198.18.0.1")
	Service6 = netip.MustParseAddr("fd70:6f64:6e65:7400::1")
)

// mtu is the inner packet size the gateway's stack offers. It is large so that
// TCP's segments follow what the laptop offers: 1420 over UDP, more over the
// API server.
const mtu = 16384

// Ground is a gateway's, whose tunnel knows no peer yet.
type Ground struct {
	Private key.Private
	Key     key.Public
	Stack   *netstack.Stack
	Bind    *transport.Bind
	Tunnel  *tunnel.Tunnel

	log *slog.Logger
}

// Open makes one with WireGuard on a UDP port, 0 for any. The key is in memory only: a
// new one with each start.
func Open(port int, log *slog.Logger) (_ *Ground, err error) {
	g := &Ground{log: log, Bind: transport.NewBind(transport.Options{Log: log})}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if g.Private, err = key.NewPrivate(); err != nil {
		return nil, err
	}
	g.Key = g.Private.Public()
	if g.Stack, err = netstack.New(netstack.Config{MTU: mtu, Log: log}); err != nil {
		return nil, fmt.Errorf("make network stack: %w", err)
	}
	for _, a := range []netip.Addr{Service4, Service6, g.Key.Address6()} {
		if err := g.Stack.AddAddress(a); err != nil {
			return nil, fmt.Errorf("add tunnel address %s: %w", a, err)
		}
	}
	if g.Tunnel, err = tunnel.New(g.Stack.Device(), g.Bind, tunnel.Config{PrivateKey: g.Private, ListenPort: uint16(port), Log: log}); err != nil {
		return nil, fmt.Errorf("start tunnel on UDP port %d: %w", port, err)
	}
	return g, nil
}

// Close gives all back. The tunnel owns device and sockets.
func (g *Ground) Close() {
	if g.Tunnel != nil {
		if err := g.Tunnel.Close(); err != nil {
			g.log.Warn("could not close the tunnel", "err", err)
		}
	}
	if g.Stack != nil {
		if err := g.Stack.Close(); err != nil {
			g.log.Warn("could not close the network stack", "err", err)
		}
	}
}

// Loopback listens on a port of the pod's loopback, 0 for any, and on IPv6's as well where
// there is one; without is why there is none. Where "localhost" is ::1 first, a
// port-forward tries that one first.
func Loopback(ctx context.Context, port int) (all []net.Listener, without, err error) {
	var lc net.ListenConfig
	four, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, nil, err
	}
	six, err := lc.Listen(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(Port(four))))
	if err != nil {
		return []net.Listener{four}, err, nil
	}
	return []net.Listener{four, six}, nil, nil
}

// Port is a TCP listener's.
func Port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// Policy is who may reach what, as the forwarder asks it.
type Policy struct {
	Engine interface {
		Allow(peer netip.Addr, proto policy.Proto, dst netip.AddrPort) bool
	}
}

// Allow implements forward.Policy.
func (p Policy) Allow(peer netip.Addr, proto forward.Proto, dst netip.AddrPort) bool {
	switch proto {
	case forward.TCP:
		return p.Engine.Allow(peer, policy.TCP, dst)
	case forward.UDP:
		return p.Engine.Allow(peer, policy.UDP, dst)
	case forward.ICMP:
		return p.Engine.Allow(peer, policy.ICMP, dst)
	}
	return false
}
