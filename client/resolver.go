package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/dnsproxy"
)

// resolver answers the host's questions for names: a DNS proxy on the tunnel's
// own addresses, and the host's resolver pointed at it. It is used by one
// goroutine at a time.
type resolver struct {
	host helper.Session
	dial dnsproxy.Dial
	// proxies are those of this machine's sessions.
	proxies *dnsproxy.Group
	log     *slog.Logger
	// broken hears of a socket that ended by itself.
	broken func(error)
	// given hears of the addresses in the cluster's answers.
	given func(iter.Seq[netip.Addr])

	split   *dnsproxy.Split
	forward *dnsproxy.Forwarder
	// near are the networks that this machine itself is in.
	near   atomic.Pointer[[]netip.Prefix]
	askers askers
	own    []netip.Addr
	// mapped are networks of the cluster's that the host sees at other addresses.
	mapped []netip.Prefix
	base   []netip.AddrPort
	// sockets are the proxy's, by their address.
	sockets map[netip.Addr]*socket
	wish    osdns.Config
}

// socket is port 53 of one address.
type socket struct {
	stop   context.CancelFunc
	served chan error
}

func (s *socket) close() error { s.stop(); return <-s.served }

// scope is which names are the cluster's.
type scope struct {
	link       string
	current    string // the namespace whose names need no suffix
	namespaces []string
	// alias is the zone that has the cluster's names whoever is primary, secondary
	// that another session is.
	alias     string
	secondary bool
}

// start makes the proxy; it has no sockets yet.
func (r *resolver) start(n network, sc scope) {
	servers := make([]netip.AddrPort, len(n.dns))
	for i, a := range n.dns {
		servers[i] = netip.AddrPortFrom(a, 53)
	}
	r.base, _ = r.host.DNS()
	r.sockets = map[netip.Addr]*socket{}
	r.forward = dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: servers, Dial: r.dial, Log: r.log})
	r.split = dnsproxy.NewSplit(dnsproxy.SplitConfig{
		Domain: n.domain, Namespace: sc.current, Namespaces: sc.namespaces, Cluster: r.forward, Base: r.base,
		ReverseZones: n.routed(), Also: n.also, Forbid: r.onLink, Given: r.given, Log: r.log,
		Alias: sc.alias, Secondary: sc.secondary, Group: r.proxies,
	})
}

// set makes the host's questions come to us on n's own addresses. Sockets on
// addresses that are not n's any more go last, so that at no time nobody
// answers.
func (r *resolver) set(ctx context.Context, n network, sc scope) error {
	r.own, r.mapped = n.own, nil
	for _, pair := range n.virtual.Pairs() {
		r.mapped = append(r.mapped, pair.Real)
	}
	r.lookNear()
	r.split.SetReverseZones(n.routed())
	r.split.SetNamespaces(sc.current, sc.namespaces)
	r.split.SetSecondary(sc.secondary)
	if err := r.listen(ctx, n.own); err != nil {
		return err
	}
	r.wish = osdns.Config{Link: sc.link, Servers: r.listening(), Primary: !sc.secondary}
	if sc.secondary {
		r.wish.MatchDomains = osdns.AliasDomains(sc.alias, n.routed())
	} else {
		match, search := osdns.Domains(n.domain, sc.namespaces, sc.current, n.routed())
		r.wish.MatchDomains, r.wish.SearchDomains = append(match, sc.alias), search
	}
	r.wish.MatchDomains = append(r.wish.MatchDomains, n.also...)
	if err := r.host.SetDNS(ctx, r.wish); err != nil {
		return &localapi.Error{Code: localapi.CodeDNS, Message: "point the host's resolver at the cluster: " + err.Error(), Hint: "podnet logs says more"}
	}
	for a, s := range r.sockets {
		if !slices.Contains(n.own, a) {
			_ = s.close() // nobody asks there any more
			delete(r.sockets, a)
		}
	}
	return nil
}

// listen opens the sockets that are missing.
func (r *resolver) listen(ctx context.Context, own []netip.Addr) error {
	for _, a := range own {
		if r.sockets[a] != nil {
			continue
		}
		packets, streams, err := r.host.ListenDNS(ctx, []netip.Addr{a})
		if err != nil {
			return err
		}
		if len(packets) > 0 { // else the host cannot have this address
			r.sockets[a] = r.serve(ctx, packets, streams)
		}
	}
	if len(r.listening()) == 0 {
		return errors.New("no address to answer DNS on")
	}
	return nil
}

// listening are the addresses of n that we answer on, in its order.
func (r *resolver) listening() []netip.Addr {
	var all []netip.Addr
	for _, a := range r.own {
		if r.sockets[a] != nil {
			all = append(all, a)
		}
	}
	return all
}

// serve answers until the socket is closed.
func (r *resolver) serve(ctx context.Context, packets []net.PacketConn, streams []net.Listener) *socket {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	server := dnsproxy.NewServer(r.split, dnsproxy.Options{Log: r.log, Allow: r.askers.allow})
	s := &socket{stop: cancel, served: make(chan error, 1)}
	go func() {
		err := server.Serve(ctx, packets, streams)
		if ctx.Err() == nil {
			r.broken(fmt.Errorf("answer DNS: %w", err))
		}
		s.served <- err
	}()
	return s
}

// look follows the host to other name servers and other networks. It is cheap.
func (r *resolver) look() {
	if base, _ := r.host.DNS(); !slices.Equal(base, r.base) {
		r.base = base
		r.split.SetBase(base)
	}
}

// lookNear notes the networks that this machine is in, and those of the cluster's
// that are none here.
func (r *resolver) lookNear() {
	nets := slices.Clone(r.mapped)
	for _, p := range hostPrefixes() {
		if !slices.Contains(r.own, p.Addr()) {
			nets = append(nets, p.Masked())
		}
	}
	r.near.Store(&nets)
}

// onLink says which addresses a name of the cluster may not have: those of the
// networks that the laptop itself is in, and the cluster's own where virtual ones
// stand for them. A page that resolves a cluster's name must not end up at the
// printer.
func (r *resolver) onLink(a netip.Addr) bool {
	nets := r.near.Load()
	return nets != nil && slices.ContainsFunc(*nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Close gives the host its own resolver back, and then stops answering.
func (r *resolver) Close(ctx context.Context) error {
	if r.split == nil {
		return nil
	}
	err := r.host.SetDNS(ctx, osdns.Config{})
	for a, s := range r.sockets {
		err = errors.Join(err, s.close())
		delete(r.sockets, a)
	}
	return errors.Join(err, r.split.Close(), r.forward.Close())
}
