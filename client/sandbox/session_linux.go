package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/tunfd"
)

// Session is what a session may do to a Sandbox as if that were the host. Its Close ends
// the session's part; the room and who is in it stay.
type Session struct {
	s *Sandbox
	// Resolvers are asked for names that are not the cluster's.
	Resolvers []netip.AddrPort

	mu  sync.Mutex
	dev *tunfd.Device
}

var _ helper.Session = (*Session)(nil)

// Session makes the one session that a Sandbox can have. resolvers are asked for names
// that are not the cluster's; where it is isolated nobody is.
func (s *Sandbox) Session(resolvers []netip.AddrPort) *Session {
	if s.opts.Isolate {
		resolvers = nil
	}
	return &Session{s: s, Resolvers: resolvers}
}

// TUN is podnet0, once.
func (h *Session) TUN(mtu int) (tun.Device, error) {
	h.s.mu.Lock()
	fd := h.s.tunnel
	h.s.tunnel = -1
	h.s.mu.Unlock()
	if fd < 0 {
		return nil, errors.New("this sandbox has had its tunnel")
	}
	dev, err := tunfd.Open(fd, mtu)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dev = dev
	return dev, nil
}

// Networks are those of this machine: programs inside reach them as well, so the
// cluster's are at other addresses where they collide. An isolated sandbox has none.
func (h *Session) Networks() ([]router.Network, error) {
	if h.s.opts.Isolate {
		return nil, nil
	}
	have, err := router.Read()
	return have.Networks(router.Ours), err
}

// SetNetwork gives podnet0 its addresses and routes.
func (h *Session) SetNetwork(want router.Config) error {
	if _, err := h.s.ask(context.Background(), request{Network: &want}); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dev != nil {
		h.dev.SetMTU(want.MTU)
	}
	return nil
}

// ListenDNS opens sockets on this machine's loopback that call themselves port 53 of
// addrs.
func (h *Session) ListenDNS(ctx context.Context, addrs []netip.Addr) ([]net.PacketConn, []net.Listener, error) {
	return h.s.dns.Listen(ctx, addrs)
}

// SetDNS makes resolv.conf what it would be in a pod.
func (h *Session) SetDNS(ctx context.Context, want osdns.Config) error {
	h.s.mu.Lock()
	h.s.servers = want.Servers
	h.s.mu.Unlock()
	if want.IsZero() {
		return nil // the room's programs are to hear that nobody answers, not of others' names
	}
	conf := resolvConf(DNS, want.SearchDomains)
	_, err := h.s.ask(ctx, request{Resolv: &conf})
	return err
}

// DNS are the resolvers for names that are not the cluster's.
func (h *Session) DNS() ([]netip.AddrPort, string) { return h.Resolvers, "sandbox" }

// LookUp has the agent ask, by the sandbox's own resolv.conf.
func (h *Session) LookUp(ctx context.Context, name string) []osdns.Way {
	out, err := h.s.ask(ctx, request{LookUp: name})
	for i, a := range out.Addrs {
		out.Addrs[i] = a.Unmap()
	}
	return []osdns.Way{{Programs: "programs inside", Addrs: out.Addrs, Err: err}}
}

// ResetFlows ends flows of programs inside.
func (h *Session) ResetFlows(ctx context.Context, local []netip.Addr) (int, error) {
	if len(local) == 0 {
		return 0, nil
	}
	out, err := h.s.ask(ctx, request{Reset: local})
	return out.Count, err
}

// Close is for nobody to answer any more; the device is the tunnel's to close.
func (h *Session) Close() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.servers = nil
	return nil
}

// Dial is how this process reaches what the session routes: from inside.
func (h *Session) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	if at := h.s.dns.At(network, to.Addr()); at.IsValid() && to.Port() == 53 {
		var d net.Dialer
		return d.DialContext(ctx, network, at.String())
	}
	return h.s.DialInside(ctx, network, address)
}

// rewrite is where targets outside are called that have no address there.
func (s *Sandbox) rewrite(p forward.Proto, to netip.AddrPort) netip.AddrPort {
	switch to.Addr() {
	case Host:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	case DNS:
		s.mu.Lock()
		servers := s.servers
		s.mu.Unlock()
		for _, a := range servers {
			if at := s.dns.At(p.String(), a); at.IsValid() && to.Port() == 53 {
				return at
			}
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), unanswered)
	}
	return to
}

// unanswered is a port that nobody listens on (RFC 6335 reserves it): who asks there is
// told so at once.
const unanswered = 0xffff

// DialInside connects from inside the sandbox; network is "tcp" or "udp", address has no
// name.
func (s *Sandbox) DialInside(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	kind := socketKind{unix.AF_INET, unix.SOCK_STREAM}
	if to.Addr().Is6() {
		kind.Family = unix.AF_INET6
	}
	if network == "udp" {
		kind.Type = unix.SOCK_DGRAM
	}
	out, err := s.ask(ctx, request{Socket: &kind})
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, out.fds[0], to)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}
