package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/key"
	"podnet.dev/internal/transport"
)

// network is what Peer.status says, as addresses.
type network struct {
	own      []netip.Addr   // ours in the tunnel
	prefixes []netip.Prefix // pods and Services
	dns      []netip.Addr   // who answers DNS in the tunnel
	domain   string
}

// parseNetwork reads the gateway's word. It is another program's, so nothing in
// it is taken for granted.
func parseNetwork(p *v1alpha1.Peer) (network, error) {
	var n network
	for _, text := range []string{p.Status.Address4, p.Status.Address6} {
		if text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return n, fmt.Errorf("the gateway gave us the address %q", text)
		}
		n.own = append(n.own, a)
	}
	if len(n.own) == 0 {
		return n, fmt.Errorf("the gateway gave us no address")
	}
	w := p.Status.Network
	if w == nil {
		return n, fmt.Errorf("the gateway did not say which networks the cluster has")
	}
	for _, text := range slices.Concat(w.PodCIDRs, w.ServiceCIDRs) {
		c, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("the gateway published the network %q", text)
		}
		n.prefixes = append(n.prefixes, c.Masked())
	}
	n.prefixes = compactPrefixes(n.prefixes)
	for _, text := range w.DNSAddresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return n, fmt.Errorf("the gateway published the DNS address %q", text)
		}
		n.dns = append(n.dns, a)
	}
	if len(n.dns) == 0 {
		return n, fmt.Errorf("the gateway did not say who answers DNS")
	}
	if n.domain = w.DNSDomain; n.domain == "" {
		n.domain = "cluster.local"
	}
	return n, nil
}

// compactPrefixes drops those that lie in others: WireGuard would not mind, but
// a route more is a route more.
func compactPrefixes(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for i, p := range ps {
		covered := slices.ContainsFunc(ps, func(o netip.Prefix) bool { return o != p && o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
		if !covered && !slices.Contains(ps[:i], p) {
			out = append(out, p)
		}
	}
	return out
}

// inside is everything behind the tunnel: the routes, and WireGuard's allowed
// IPs of the gateway.
func (n network) inside() []netip.Prefix {
	all := slices.Clone(n.prefixes)
	for _, a := range n.dns {
		if !key.Prefix6.Contains(a) {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return append(all, key.Prefix6)
}

// route gives the interface its addresses and routes.
func (s *Session) route(context.Context) (string, error) {
	n, err := parseNetwork(s.granted)
	if err != nil {
		return "", err
	}
	want := router.Config{Interface: s.status.Tunnel.Interface, Routes: n.inside(), MTU: mtuUDP, Avoid: s.cluster.Remotes()}
	if s.gateway.Status().Active.Kind == transport.APIServer {
		want.MTU = mtuStream
	}
	for _, a := range n.own {
		want.Addresses = append(want.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, g := range s.granted.Status.Gateways {
		for _, e := range udpEndpoints(g) {
			want.Avoid = append(want.Avoid, e.Addr())
		}
	}
	base, _ := s.host.DNS()
	for _, b := range base {
		want.Avoid = append(want.Avoid, b.Addr())
	}
	if err := s.host.SetNetwork(want); err != nil {
		return "", err
	}
	s.set(func(c *localapi.Connection) {
		c.Tunnel.MTU = want.MTU
		c.Routes = router.Strings(n.prefixes)
		for _, a := range n.own {
			if a.Is4() {
				c.Tunnel.Address = netip.PrefixFrom(a, 32).String()
			} else {
				c.Tunnel.Address6 = netip.PrefixFrom(a, 128).String()
			}
		}
	})
	return fmt.Sprintf("%s to %s", joined(n.prefixes), want.Interface), nil
}

func joined(ps []netip.Prefix) string {
	text := ""
	for i, p := range ps {
		if i > 0 {
			text += ", "
		}
		text += p.String()
	}
	return text
}

// resolve starts the DNS proxy and points the host at it.
func (s *Session) resolve(ctx context.Context) (string, error) {
	n, err := parseNetwork(s.granted)
	if err != nil {
		return "", err
	}
	base, _ := s.host.DNS()
	current, all := s.namespaces(ctx)
	servers := make([]netip.AddrPort, len(n.dns))
	for i, a := range n.dns {
		servers[i] = netip.AddrPortFrom(a, 53)
	}
	s.forward = dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: servers, Dial: s.Dial, Log: s.Log})
	s.undo.add("the connections to the cluster's DNS", func(context.Context) error { return s.forward.Close() })
	s.split = dnsproxy.NewSplit(dnsproxy.SplitConfig{
		Domain: n.domain, Namespace: current, Namespaces: all, Cluster: s.forward, Base: base,
		ReverseZones: n.prefixes, Forbid: onLink(n), Log: s.Log,
	})
	s.undo.add("the DNS proxy", func(context.Context) error { return s.split.Close() })
	packets, streams, err := s.host.ListenDNS(ctx, n.own)
	if err != nil {
		return "", err
	}
	var listen []netip.Addr
	for _, p := range packets {
		if a, ok := p.LocalAddr().(*net.UDPAddr); ok {
			listen = append(listen, a.AddrPort().Addr().Unmap())
		}
	}
	s.serveDNS(ctx, packets, streams)

	s.undo.add("the host's resolver", func(ctx context.Context) error { return s.host.SetDNS(ctx, osdns.Config{}) })
	if err := s.host.SetDNS(ctx, s.dnsWish(n, listen, current, all)); err != nil {
		return "", &localapi.Error{Code: localapi.CodeDNS, Message: "point the host's resolver at the cluster: " + err.Error(), Hint: "the daemon's log says more: podnet version names it"}
	}
	_, mode := s.host.DNS()
	s.set(func(c *localapi.Connection) {
		c.DNS.Mode, c.DNS.Zone = mode, n.domain
		for _, a := range listen {
			c.DNS.Listen = append(c.DNS.Listen, netip.AddrPortFrom(a, 53).String())
		}
	})
	return n.domain + " by " + mode, nil
}

func (s *Session) dnsWish(n network, listen []netip.Addr, current string, namespaces []string) osdns.Config {
	match, search := osdns.Domains(n.domain, namespaces, current, n.prefixes)
	return osdns.Config{Link: s.status.Tunnel.Interface, Servers: listen, MatchDomains: match, SearchDomains: search}
}

// serveDNS answers until the session is undone.
func (s *Session) serveDNS(ctx context.Context, packets []net.PacketConn, streams []net.Listener) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	server := dnsproxy.NewServer(s.split, dnsproxy.Options{Log: s.Log})
	served := make(chan error, 1)
	go func() {
		err := server.Serve(ctx, packets, streams)
		if ctx.Err() == nil {
			s.breaks(fmt.Errorf("answer DNS: %w", err))
		}
		served <- err
	}()
	s.undo.add("the DNS sockets", func(context.Context) error { cancel(); return <-served })
}

// namespaces are the one whose names need no suffix and all that we see.
func (s *Session) namespaces(ctx context.Context) (current string, all []string) {
	s.mu.Lock()
	current, all = s.status.Namespace, slices.Clone(s.status.Namespaces)
	s.mu.Unlock()
	if !s.Request.AllNamespaces {
		return current, all
	}
	// Who may reach everything can nearly always list it, too. Who cannot has
	// the full names.
	if listed, err := s.cluster.Namespaces(ctx); err == nil {
		return current, listed
	}
	return current, []string{current}
}

// onLink says which addresses a name of the cluster may not have: those of the
// networks that the laptop itself is in. A page that resolves a cluster's name
// must not end up at the printer.
func onLink(n network) func(netip.Addr) bool {
	var nets []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		ipn, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(ipn.IP)
		ones, _ := ipn.Mask.Size()
		if addr = addr.Unmap(); addr.IsValid() && !slices.Contains(n.own, addr) {
			nets = append(nets, netip.PrefixFrom(addr, ones).Masked())
		}
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
}

// probe tries once what the user is going to do: a question to the cluster's
// DNS through the tunnel, and where the kernel would send a packet.
func (s *Session) probe(ctx context.Context) (string, error) {
	n, err := parseNetwork(s.granted)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.checkRoute(ctx, n); err != nil {
		return "", err
	}
	began := time.Now()
	if err := s.ask(ctx, netip.AddrPortFrom(n.dns[0], 53), n.domain+"."); err != nil {
		return "", &localapi.Error{Code: localapi.CodeDNS, Message: "the gateway's DNS does not answer through the tunnel: " + err.Error(),
			Hint: "podnet connect --path apiserver shows whether the path is to blame", Status: http.StatusGatewayTimeout}
	}
	rtt := time.Since(began)
	if err := s.ask(ctx, netip.AddrPortFrom(s.listening()[0], 53), "kubernetes.default.svc."+n.domain+"."); err != nil {
		return "", &localapi.Error{Code: localapi.CodeDNS, Message: "the DNS proxy on this machine does not answer: " + err.Error(),
			Hint: "a firewall of this machine may block port 53 on its own addresses", Status: http.StatusGatewayTimeout}
	}
	s.set(func(c *localapi.Connection) {
		c.DNS.Probe = "ok"
		c.Tunnel.RTTMs = float64(rtt.Microseconds()) / 1000
	})
	return fmt.Sprintf("DNS answered in %.1f ms", float64(rtt.Microseconds())/1000), nil
}

// ask puts one question to a name server. Any answer will do, that there is no
// such name included.
func (s *Session) ask(ctx context.Context, server netip.AddrPort, name string) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return s.Dial(ctx, network, server.String())
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
		if from := local.AddrPort().Addr().Unmap(); ok && !slices.Contains(n.own, from) {
			return &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("packets to the cluster's %s would leave from %s, not through the tunnel", a, from),
				Hint: "a VPN or a rule of this machine takes them (ip rule; ip route get " + a.String() + ")"}
		}
	}
	return nil
}
