package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/client/router"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/transport"
)

// The steps of connecting, behind auth and enrol. What a step does to the host
// is a whole wish, so that the keeper can repeat it for another network.

// handshake makes the device and the tunnel and finds a path that answers.
func (s *Session) handshake(ctx context.Context) (string, error) {
	only := map[string]transport.Kind{PathUDP: transport.UDP, PathAPIServer: transport.APIServer}[s.Request.Path]
	l, relay, err := s.open(only)
	if err != nil {
		return "", err
	}
	l.rekeyed = relay.answerTo
	l.dial = func(ctx context.Context, pod string, port uint16) (net.Conn, error) {
		return s.cluster.DialPod(ctx, s.Request.GatewayNamespace, pod, port)
	}
	s.undo.add("the tunnel", func(context.Context) error { return l.Close() })
	s.link = l
	s.steer(relay.Relay)
	s.expose(relay.Relay)
	s.mu.Lock()
	s.live, s.outlook.only = l, only
	s.status.Tunnel.Interface, s.status.Tunnel.MTU, s.status.Tunnel.Device = l.name, s.mtu, localapi.DeviceUserspace
	if s.inKernel() {
		s.status.Tunnel.Device = localapi.DeviceKernel
	}
	s.mu.Unlock()
	s.lookAround(false)

	r, err := l.find(ctx, s.member, rank(s.member.Peer, s.member.granted.Status.Gateways))
	if err != nil {
		return "", err
	}
	if err := l.adopt(s.member, r); err != nil {
		return "", errors.Join(err, r.Close())
	}
	if err := l.greet(ctx, s.member, r, true); err != nil {
		return "", &localapi.Error{Code: localapi.CodeTimeout, Message: "no handshake with the gateway by " + pathName(r.Status().Active) + ": " + err.Error(),
			Hint: "kubectl -n " + s.Request.GatewayNamespace + " get pods", Status: http.StatusGatewayTimeout}
	}
	s.using(r)
	st := r.Status()
	s.mu.Lock()
	why := reason(st, s.outlook)
	s.mu.Unlock()
	text := string(st.Active.Kind) + " " + st.Active.Remote
	if why = strings.TrimPrefix(why, string(st.Active.Kind)+": "); why != "" {
		text += " (" + why + ")"
	}
	return text, nil
}

// using notes which gateway the session uses.
func (s *Session) using(r *remote) {
	s.set(func(c *localapi.Connection) {
		c.Gateway.Pod, c.Gateway.PublicKey, c.Gateway.Draining = r.entry.Pod, r.entry.PublicKey, r.entry.Draining
		c.Gateway.Version = r.entry.Version
		c.Gateway.Others = slices.DeleteFunc(pods(s.member.granted.Status.Gateways), func(pod string) bool { return pod == r.entry.Pod })
	})
	s.mu.Lock()
	s.outlook.published, s.outlook.theirs = len(r.entry.Endpoints), nat.Kind(r.entry.NAT)
	s.mu.Unlock()
}

func pods(all []v1alpha1.Gateway) []string {
	var names []string
	for _, g := range all {
		names = append(names, g.Pod)
	}
	return names
}

// learn takes over what a Peer's status says.
func (s *Session) learn(p *v1alpha1.Peer) {
	s.member.granted = p
	s.steerFor()
	s.mu.Lock()
	s.outlook.stun = p.Status.Network != nil && len(p.Status.Network.STUN) > 0
	s.mu.Unlock()
}

// route gives the interface its addresses and routes.
func (s *Session) route(ctx context.Context) (string, error) {
	s.fit(s.link.remote().Status())
	err := s.setNetwork(s.member.network)
	if collides(err) { // since it was looked at: other sessions connect, too
		if err := errors.Join(s.address(ctx, s.member), s.link.allow(s.member)); err != nil {
			return "", err
		}
		err = s.setNetwork(s.member.network)
	}
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s to %s", s.member.network, s.link.name)
	if why := s.chosen.Why; why != "" {
		text += " (" + why + ")"
	}
	return text, nil
}

// fit chooses the MTU for how the paths are now and says whether it is another
// one.
func (s *Session) fit(st transport.GatewayStatus) bool {
	s.mu.Lock()
	s.outlook.hope = s.outlook.hope || s.outlook.mayUDP(st)
	want := mtu(s.outlook.hope, st.Active, s.mtu)
	s.mu.Unlock()
	changed := want != s.mtu
	s.mtu = want
	return changed
}

// setNetwork makes the host match n. also are addresses that stay for now.
func (s *Session) setNetwork(n network, also ...netip.Addr) error {
	want := router.Config{Interface: s.link.name, Routes: n.routed(), Shared: n.shared(), MTU: s.mtu, Avoid: s.avoid(s.member)}
	for _, a := range slices.Concat(n.own, also) {
		if p := netip.PrefixFrom(a, a.BitLen()); !slices.Contains(want.Addresses, p) {
			want.Addresses = append(want.Addresses, p)
		}
	}
	s.book.Expect(n.virtual)
	if err := s.host.SetNetwork(want); err != nil {
		return err
	}
	s.book.Guard(n.virtual)
	s.hosted, s.avoided = n, want.Avoid
	s.Fleet.noteWay(s, way{n.routed(), want.Avoid})
	s.set(func(c *localapi.Connection) {
		c.Tunnel.MTU = want.MTU
		c.Addresses, c.Routes = n.addresses(s.chosen.Why), router.Strings(n.routed())
		c.Tunnel.Address, c.Tunnel.Address6 = "", ""
		for _, a := range n.own {
			if a.Is4() {
				c.Tunnel.Address = netip.PrefixFrom(a, 32).String()
			} else {
				c.Tunnel.Address6 = netip.PrefixFrom(a, 128).String()
			}
		}
	})
	return nil
}

// resolve starts the DNS proxy and points the host at it.
func (s *Session) resolve(ctx context.Context) (string, error) {
	n := s.member.network
	s.names = s.scope(ctx)
	s.resolver = &resolver{host: s.host, dial: s.inward(), proxies: &s.Fleet.proxies, log: s.Log, broken: s.breaks, given: s.book.Give}
	s.resolver.start(n, s.names)
	s.undo.add("the DNS of the cluster", s.resolver.Close)
	if err := s.setNames(ctx, n); err != nil {
		return "", err
	}
	_, mode := s.host.DNS()
	s.set(func(c *localapi.Connection) { c.DNS.Mode, c.DNS.Zone = mode, n.domain })
	return n.domain + " by " + mode, nil
}

// setNames makes the host resolve n's names.
func (s *Session) setNames(ctx context.Context, n network) error {
	if err := s.resolver.set(ctx, n, s.names); err != nil {
		return err
	}
	listen := []string{}
	for _, a := range s.resolver.listening() {
		listen = append(listen, netip.AddrPortFrom(a, 53).String())
	}
	s.set(func(c *localapi.Connection) { c.DNS.Listen = listen })
	return nil
}

// scope is which namespaces' names are the session's. Who may reach everything
// can nearly always list it, too. Who cannot has the full names.
func (s *Session) scope(ctx context.Context) scope {
	s.mu.Lock()
	sc := scope{link: s.link.name, current: s.status.Namespace, namespaces: slices.Clone(s.status.Namespaces), alias: s.status.DNS.Alias, secondary: s.secondary.Load()}
	s.mu.Unlock()
	if s.Request.AllNamespaces {
		sc.namespaces = []string{sc.current}
		if listed, err := s.cluster.Namespaces(ctx); err == nil {
			sc.namespaces = listed
		}
	}
	return sc
}

// ask puts one question to a name server. Any answer will do, that there is no
// such name included.
func ask(ctx context.Context, dial dnsproxy.Dial, server netip.AddrPort, name string) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, server.String())
	}}
	_, err := r.LookupNS(ctx, name)
	var answer *net.DNSError
	if errors.As(err, &answer) && answer.IsNotFound {
		return nil
	}
	return err
}

// checkRoute asks the kernel, without sending anything, whether it would use
// our address to reach the cluster.
func (s *Session) checkRoute(ctx context.Context, n network) error {
	for _, a := range n.dns {
		c, err := s.Dial(ctx, "udp", netip.AddrPortFrom(a, 53).String())
		if err != nil {
			if a.Is6() {
				continue // IPv6 is off here
			}
			return fmt.Errorf("no route to the cluster's %s: %w", a, err)
		}
		local, ok := c.LocalAddr().(*net.UDPAddr)
		_ = c.Close()
		// The gateways of all clusters have this address: another session's is as good.
		if from := local.AddrPort().Addr().Unmap(); ok && !slices.Contains(n.own, from) && !s.Fleet.has(from) {
			return &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("packets to the cluster's %s would leave from %s, not through the tunnel", a, from),
				Hint: "a VPN or a rule of this machine takes them (ip rule; ip route get " + a.String() + ")"}
		}
	}
	return nil
}
