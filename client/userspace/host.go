// Package userspace is a host network inside this process: a stack of its own stands
// for the kernel's, so that a session needs no privilege and changes nothing on the
// machine. Who wants to reach the cluster dials by the Host.
package userspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/netstack"
)

// Config of a Host.
type Config struct {
	// Resolvers are asked for names that are not the cluster's.
	Resolvers []netip.AddrPort
	// Outside dials what the session has no route to; nil: that is out of reach.
	Outside func(ctx context.Context, network, address string) (net.Conn, error)
	Log     *slog.Logger
}

// Host has addresses, routes and connections, all inside this process. A session
// changes it through helper.Session; programs use it through Dial.
type Host struct {
	Config

	mu     sync.Mutex
	stack  *netstack.Stack
	others []router.Network
	net    router.Config
	dns    osdns.Config
	port53 *DNS
	open   map[*flow]struct{}
	closed bool
}

var _ helper.Session = (*Host)(nil)

// New makes a host without a network.
func New(c Config) *Host {
	return &Host{Config: c, port53: NewDNS(), open: map[*flow]struct{}{}}
}

// TUN makes the stack. Its MTU stays what it is, whatever SetNetwork wishes
// later: larger packets than a path takes are the transport's to cut.
func (h *Host) TUN(mtu int) (tun.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stack != nil || h.closed {
		return nil, errors.New("this host has had its tunnel")
	}
	var err error
	if h.stack, err = netstack.New(netstack.Config{MTU: mtu, Log: h.Log}); err != nil {
		return nil, err
	}
	return h.stack.Device(), nil
}

// Join makes all the networks that the host is in, besides the tunnel.
func (h *Host) Join(all ...router.Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.others = all
}

// Networks are those of Join.
func (h *Host) Networks() ([]router.Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.others), nil
}

// Routed reports whether packets to an address go into the tunnel.
func (h *Host) Routed(to netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.routedLocked(to)
}

func (h *Host) routedLocked(to netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(h.net.Routes, h.net.Shared), func(p netip.Prefix) bool { return p.Contains(to) })
}

// SetNetwork gives the stack its addresses, and Dial its routes. As the kernel's
// router does it takes no network from the host, and none that is out of all reason.
func (h *Host) SetNetwork(want router.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stack == nil {
		return fmt.Errorf("there is no interface %s", want.Interface)
	}
	have := router.Host{}
	for _, n := range h.others {
		have.Routes = append(have.Routes, router.Route{Dst: n.Prefix, Interface: n.Interface})
	}
	if _, err := router.Routes(have, router.Config{Routes: want.Routes}); err != nil {
		return err
	}
	for _, a := range want.Addresses {
		if err := h.stack.AddAddress(a.Addr()); err != nil {
			return err
		}
	}
	for _, a := range h.net.Addresses {
		if slices.Contains(want.Addresses, a) {
			continue
		}
		if err := h.stack.RemoveAddress(a.Addr()); err != nil {
			return err
		}
	}
	h.net = want
	return nil
}

// ListenDNS opens sockets that call themselves port 53 of addrs. They are on
// this machine's loopback, and Dial knows the way.
func (h *Host) ListenDNS(ctx context.Context, addrs []netip.Addr) ([]net.PacketConn, []net.Listener, error) {
	return h.port53.Listen(ctx, addrs)
}

// SetDNS remembers where names are resolved.
func (h *Host) SetDNS(_ context.Context, want osdns.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dns = want
	return nil
}

// Resolver is what the host's resolver was last told.
func (h *Host) Resolver() osdns.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dns
}

// DNS are the resolvers for names that are not the cluster's.
func (h *Host) DNS() ([]netip.AddrPort, string) { return h.Resolvers, "userspace" }

// LookUp asks as the host's programs do, by the one way that they have.
func (h *Host) LookUp(ctx context.Context, name string) []osdns.Way {
	all, err := h.lookup(ctx, "udp", net.JoinHostPort(strings.TrimSuffix(name, "."), "53"))
	way := osdns.Way{Programs: "programs", Err: err}
	for _, at := range all {
		way.Addrs = append(way.Addrs, at.Addr())
	}
	return []osdns.Way{way}
}

// ResetFlows ends the TCP connections from the given addresses, as the kernel's
// SOCK_DESTROY does.
func (h *Host) ResetFlows(_ context.Context, local []netip.Addr) (int, error) {
	n := 0
	for _, f := range h.flows() {
		if a, ok := f.LocalAddr().(*net.TCPAddr); ok && slices.Contains(local, a.AddrPort().Addr()) {
			f.Reset()
			n++
		}
	}
	return n, nil
}

// flows are the TCP connections that are open.
func (h *Host) flows() []*flow {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*flow, 0, len(h.open))
	for f := range h.open {
		all = append(all, f)
	}
	return all
}

// Open is how many TCP connections there are.
func (h *Host) Open() int { return len(h.flows()) }

// Close resets every connection and takes the stack down.
func (h *Host) Close() error {
	h.mu.Lock()
	stack := h.stack
	h.stack, h.closed = nil, true
	h.mu.Unlock()
	if stack == nil {
		return nil
	}
	for _, f := range h.flows() {
		f.Reset()
	}
	return stack.Close()
}

// Dial connects as a program of the host would: names are asked of the session's DNS
// proxy, and what the session has no route to is Outside's. network is "tcp" or
// "udp", address may have a name and a service.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if to, err := netip.ParseAddrPort(address); err == nil {
		return h.dial(ctx, network, to)
	}
	all, err := h.lookup(ctx, network, address)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, to := range all {
		c, err := h.dial(ctx, network, to)
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func (h *Host) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	h.mu.Lock()
	stack := h.stack
	routed := h.routedLocked(to.Addr())
	h.mu.Unlock()
	proxy := h.port53.At(network, to.Addr())
	switch {
	case proxy.IsValid() && to.Port() == 53:
		var d net.Dialer
		return d.DialContext(ctx, network, proxy.String())
	case !routed && h.Outside != nil:
		return h.Outside(ctx, network, to.String())
	case stack == nil || !routed:
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ENETUNREACH)
	case network == "udp":
		return stack.DialUDP(to)
	}
	c, err := stack.DialTCP(ctx, to)
	if err != nil {
		return nil, err
	}
	f := &flow{c.(*netstack.TCPConn), h}
	h.mu.Lock()
	h.open[f] = struct{}{}
	closed := h.closed
	h.mu.Unlock()
	if closed { // in between
		f.Reset()
		return nil, fmt.Errorf("dial %s: %w", to, net.ErrClosed)
	}
	return f, nil
}

// lookup asks the resolver that the session has put in place. IPv4 comes first: what
// has both in a cluster has them for the same, and outside IPv6 is what often fails.
func (h *Host) lookup(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	name, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	// Go's resolver would wait for an answer, for 5 s and more, after everybody has
	// given up on it.
	wanted, giveUp := context.WithCancel(ctx)
	defer giveUp()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		h.mu.Lock()
		servers := h.dns.Servers
		h.mu.Unlock()
		if len(servers) == 0 {
			return nil, fmt.Errorf("resolve %s: %w", name, syscall.ENETUNREACH)
		}
		if wanted.Err() != nil {
			return nil, wanted.Err()
		}
		c, err := h.dial(ctx, network, netip.AddrPortFrom(servers[0], 53))
		if err == nil {
			context.AfterFunc(wanted, func() { _ = c.Close() })
		}
		return c, err
	}}
	// The dot keeps this machine's own search domains out.
	all, err := r.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) })
	to := make([]netip.AddrPort, len(all))
	for i, a := range all {
		to[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return to, nil
}

// flow is a TCP connection that ResetFlows can find.
type flow struct {
	*netstack.TCPConn
	h *Host
}

func (f *flow) forget() {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	delete(f.h.open, f)
}

func (f *flow) Close() error {
	f.forget()
	return f.TCPConn.Close()
}

// Reset is Close that lets the other end know that it did not get all.
func (f *flow) Reset() {
	f.forget()
	f.TCPConn.Reset()
}
