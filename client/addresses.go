package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/addressing"
	"podnet.dev/client/localapi"
	"podnet.dev/client/router"
	"podnet.dev/internal/remap"
)

// At which addresses the host sees the cluster: package addressing decides, the
// gateways map, and their word in the Peer's status is what the host is set up for.

// routed are the prefixes that lead to the cluster on the host. Of a family that
// has virtual ones the cluster's own are none: somebody else has them.
func (n network) routed() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range n.prefixes {
		if v, ok := n.virtual.VirtualPrefix(p); ok {
			all = append(all, v)
			continue
		}
		direct := true
		for _, pair := range n.virtual.Pairs() {
			direct = direct && pair.Real.Addr().Is4() != p.Addr().Is4()
			if p.Overlaps(pair.Real) {
				all = append(all, pair.Virtual)
			}
		}
		if direct {
			all = append(all, p)
		}
	}
	return compactPrefixes(all)
}

// String names the cluster's networks with what stands for them.
func (n network) String() string {
	var all []string
	for _, pair := range n.virtual.Pairs() {
		all = append(all, pair.String())
	}
	for _, p := range n.prefixes {
		if slices.Contains(n.routed(), p) {
			all = append(all, p.String())
		}
	}
	return strings.Join(all, ", ")
}

// addresses are n's as status tells of them.
func (n network) addresses(why string) localapi.Addresses {
	a := localapi.Addresses{Mode: addressing.Direct}
	for _, pair := range n.virtual.Pairs() {
		a.Mode, a.Why = addressing.Virtual, why
		a.Map = append(a.Map, localapi.VirtualPrefix{Real: pair.Real.String(), Virtual: pair.Virtual.String()})
	}
	return a
}

// parseVirtual reads what the gateways map.
func parseVirtual(all []v1alpha1.VirtualPrefix) (remap.Map, error) {
	var pairs []remap.Pair
	for _, v := range all {
		pair, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			return remap.Map{}, err
		}
		pairs = append(pairs, pair)
	}
	return remap.Parse(pairs)
}

// mapFor has the gateways map for a member what was chosen.
func (m *membership) mapFor(ctx context.Context, to *member, c addressing.Choice) (err error) {
	if slices.Equal(c.Pairs, to.network.virtual.Pairs()) {
		return nil
	}
	virtual := []v1alpha1.VirtualPrefix{}
	for _, pair := range c.Pairs {
		virtual = append(virtual, v1alpha1.VirtualPrefix{Real: pair.Real.String(), Virtual: pair.Virtual.String()})
	}
	if to.granted, err = m.cluster.SetVirtual(ctx, to.Namespace, to.Peer, virtual); err != nil {
		return err
	}
	to.network, err = m.network(to.granted)
	return err
}

// choose decides for a member, by what the host has now.
func (s *Session) choose(m *member) (addressing.Choice, error) {
	w := addressing.Wish{
		Mode: cmp.Or(s.Request.Addresses, addressing.Auto), Cluster: s.cluster.Whoami().Server, Prefixes: m.network.prefixes,
		Avoid: s.avoid(m), Reserved: runtime.GOOS == "linux", Before: s.chosen, Taken: s.Others(),
	}
	have, err := s.host.Networks()
	if err != nil {
		return addressing.Choice{}, err
	}
	for _, n := range have {
		w.Taken = append(w.Taken, addressing.Network{Prefix: n.Prefix, Interface: n.Interface})
	}
	return addressing.Decide(w)
}

// address chooses for a member, and returns when the gateways map that.
func (s *Session) address(ctx context.Context, m *member) error {
	c, err := s.choose(m)
	if err != nil {
		return err
	}
	s.expect(c)
	if err := s.objects.mapFor(ctx, m, c); err != nil {
		return err
	}
	s.chosen = c
	return nil
}

// avoid are the addresses that must stay reachable as they are without the
// tunnel, in order.
func (s *Session) avoid(m *member) []netip.Addr {
	all := slices.Concat(s.outside(m), s.Fleet.keptOut(s))
	base, _ := s.host.DNS()
	for _, b := range base {
		all = append(all, b.Addr())
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// outside is where the API server and the gateways are, beside the tunnel.
func (s *Session) outside(m *member) []netip.Addr {
	all := s.cluster.Remotes()
	for _, g := range m.granted.Status.Gateways {
		for _, e := range g.Endpoints {
			if a, err := netip.ParseAddrPort(e); err == nil {
				all = append(all, a.Addr().Unmap())
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// keepOut has the other sessions leave alone what this one reaches beside the tunnel,
// while it connects. A cluster that is only to be had through the tunnel of another one
// stays there.
func (s *Session) keepOut(ctx context.Context, outside []netip.Addr) {
	if !s.nested {
		s.Fleet.keepOut(ctx, s, outside)
	}
}

// makeWay takes out of the routes what is to stay reachable beside the tunnel by now.
func (s *Session) makeWay() {
	if slices.Equal(s.avoid(s.member), s.avoided) {
		return
	}
	if err := s.setNetwork(s.hosted); err != nil {
		s.warn(localapi.Warning{Code: "routes", Severity: "high", Text: "the routes to the cluster: " + err.Error(), Hint: hint(err)})
	}
}

// askWay has the other sessions leave alone what this one has come to reach beside the
// tunnel: a gateway elsewhere, another address of the API server.
func (k *keeper) askWay() {
	now := k.outside(k.member)
	if k.nested = k.nested && k.Fleet.routes(k.Session, now); k.nested {
		return
	}
	if slices.Equal(now, k.keptOut) || k.jobs.running["way"] != nil {
		return
	}
	k.keptOut = now
	k.jobs.start("way", func(ctx context.Context) outcome {
		k.Fleet.keepOut(ctx, k.Session, now)
		return outcome{}
	})
}

// check finds out who we are. When the API server lies in a network that another
// session routes and cannot be had there, that session makes way for it.
func (s *Session) check(ctx context.Context) error {
	err := s.cluster.Check(ctx)
	at := append(s.cluster.Remotes(), triedAt(err)...)
	if !s.Fleet.routes(s, at) {
		return err
	}
	if s.nested = err == nil; s.nested {
		s.Log.Info("the API server is reached through another session", "addr", at)
		return nil
	}
	s.keepOut(ctx, at)
	return s.cluster.Check(ctx)
}

// triedAt is the address that could not be connected to, if that is what err is about.
func triedAt(err error) []netip.Addr {
	var failed *net.OpError
	if !errors.As(err, &failed) {
		return nil
	}
	at, ok := failed.Addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	return []netip.Addr{at.AddrPort().Addr().Unmap()}
}

// collides tells a network that is in the way from other errors.
func collides(err error) bool {
	var conflict *router.ConflictError
	return errors.As(err, &conflict)
}

// readdress moves the session to other addresses where those that it has will not
// do any more: the host has come into a network that has them, or the cluster has
// networks that it did not have. It reports whether that is under way. Where it is
// not, things are as well as they can be.
func (k *keeper) readdress() bool {
	if k.jobs.running["address"] != nil {
		return true
	}
	if k.enrol.why != "" {
		return false // there is no Peer to write it to
	}
	c, err := k.choose(k.member)
	if err != nil {
		k.Log.Warn("cannot choose other addresses", "err", err)
		return false
	}
	if slices.Equal(c.Pairs, k.member.network.virtual.Pairs()) {
		return false
	}
	m, to := k.member, *k.member
	k.expect(c)
	k.jobs.start("address", func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, admitTime)
		defer cancel()
		err := k.objects.mapFor(ctx, &to, c)
		return outcome{apply: func() error {
			if m == k.member {
				k.readdressed(to.granted, c, err)
			}
			return nil
		}}
	})
	return true
}

// readdressed follows the gateways to what they map now.
func (k *keeper) readdressed(p *v1alpha1.Peer, c addressing.Choice, err error) {
	if err != nil {
		k.warn(localapi.Warning{Code: "routes", Severity: "high", Text: fmt.Sprintf("%s, and other addresses are not to be had: %v", c.Why, err), Hint: hint(err)})
		return
	}
	before := k.hosted.routed()
	k.chosen = c
	k.fresh(p)
	text := fmt.Sprintf("%s (%s)", k.hosted, c.Why)
	now := k.hosted.routed()
	if slices.ContainsFunc(before, func(p netip.Prefix) bool { return !slices.Contains(now, p) }) {
		k.reset(k.hosted.own)
		text += "; flows that were open end"
	}
	k.tell(localapi.Event{Type: localapi.EventAddresses, Text: text})
}
