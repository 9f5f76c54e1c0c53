// Package router gives the tunnel's interface its addresses and routes. What to
// do is decided by a pure Plan from what the kernel has and what is wanted; only
// the thin apply files touch the system.
//
// Every change it makes hangs on the tunnel's interface, so that all of it goes
// when the interface does, even if nobody is left to clean up. That is also why
// addresses that must stay outside the tunnel are carved out of the routes
// rather than given routes of their own.
package router

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	// MaxRoutes is how many prefixes a cluster may ask for.
	MaxRoutes = 1024
	// MaxAvoid is how many addresses may be carved out of them, and maxCarved how many
	// routes may come of that: an address in a prefix makes up to 24 of it, by IPv6 96.
	MaxAvoid  = 256
	maxCarved = 16 * MaxRoutes
)

// Config is the whole wish for one interface.
type Config struct {
	Interface string
	// Addresses are the interface's own.
	Addresses []netip.Prefix
	// Routes are the cluster's prefixes, to go into the tunnel.
	Routes []netip.Prefix
	// Shared are prefixes that are the same in every cluster: the gateway's own
	// addresses. They go into the tunnel, too, and every tunnel of ours has them:
	// who means this one binds his socket to its interface.
	Shared []netip.Prefix
	// Avoid must stay reachable as they are now: the API server, the gateway's
	// endpoints, the host's name servers.
	Avoid []netip.Addr
	// MTU of the interface, in bytes; 0 leaves it.
	MTU int
}

// prefix of the names of our interfaces.
const ours = "podnet"

// Ours says whether an interface is one of podnet's, by its name.
func Ours(name string) bool {
	number, ok := strings.CutPrefix(name, ours)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// Router makes the host match a Config.
type Router interface {
	// Set makes the host match want; a second Set with the same want does
	// nothing. When it fails the host is as before. A *ConflictError says that
	// a route would take a network from the host.
	Set(want Config) error
}

// Link is one interface of the host.
type Link struct {
	Name      string
	Loopback  bool
	Up        bool
	MTU       int
	Addresses []netip.Prefix // with the host's own bits
}

// Route is one route of the host's main table.
type Route struct {
	Dst       netip.Prefix
	Interface string
}

// Host is what the kernel has.
type Host struct {
	Links  []Link
	Routes []Route
	// No6 says that IPv6 is switched off.
	No6 bool
}

// codeConflict is localapi.CodeConflict. The privileged half does not link that
// package, nor HTTP with it; a test of package client holds the two together.
const codeConflict = "conflict"

// ConflictError says whose network a route would take.
type ConflictError struct {
	Prefix    netip.Prefix // that the cluster wants
	Interface string       // that has it
	Network   netip.Prefix // what it has
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the cluster's network %s collides with %s on interface %s", e.Prefix, e.Network, e.Interface)
}
func (e *ConflictError) Code() string { return codeConflict }
func (e *ConflictError) Hint() string {
	return "leave that network or VPN, or give the cluster other addresses on this machine by --addresses virtual; ip route show dev " + e.Interface + " lists what it has"
}

// InvalidError says that a wish is out of all reason.
type InvalidError struct {
	Prefix netip.Prefix
	Why    string
}

func (e *InvalidError) Error() string { return fmt.Sprintf("route %s refused: %s", e.Prefix, e.Why) }
func (e *InvalidError) Code() string  { return codeConflict }
func (e *InvalidError) Hint() string {
	return "the gateway published it as a network of the cluster; an administrator should look at its Peer status"
}

// OpKind is what an Op does.
type OpKind string

const (
	OpMTU      OpKind = "mtu"
	OpUp       OpKind = "up"
	OpAddAddr  OpKind = "addr add"
	OpDelAddr  OpKind = "addr del"
	OpAddRoute OpKind = "route add"
	OpDelRoute OpKind = "route del"
)

// Op is one change of the tunnel's interface.
type Op struct {
	Kind   OpKind
	Prefix netip.Prefix
	MTU    int
	// Shared says that a route stands beside others to the same prefix.
	Shared bool
}

func (o Op) String() string {
	switch o.Kind {
	case OpUp:
		return string(o.Kind)
	case OpMTU:
		return fmt.Sprintf("%s %d", o.Kind, o.MTU)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Prefix)
}

// undo is the change back. had is the MTU before.
func (o Op) undo(had int) (Op, bool) {
	switch o.Kind {
	case OpMTU:
		return Op{Kind: OpMTU, MTU: had}, had > 0
	case OpAddAddr:
		return Op{Kind: OpDelAddr, Prefix: o.Prefix}, true
	case OpDelAddr:
		return Op{Kind: OpAddAddr, Prefix: o.Prefix}, true
	case OpAddRoute:
		return Op{Kind: OpDelRoute, Prefix: o.Prefix, Shared: o.Shared}, true
	case OpDelRoute:
		return Op{Kind: OpAddRoute, Prefix: o.Prefix, Shared: o.Shared}, true
	}
	return Op{}, false
}

// ErrNoInterface is returned when the tunnel's interface is not there.
var ErrNoInterface = errors.New("no such interface")

// Plan says what to change so that have becomes want. It refuses as a whole:
// with an error there is nothing to do.
func Plan(have Host, want Config) ([]Op, error) {
	i := slices.IndexFunc(have.Links, func(l Link) bool { return l.Name == want.Interface })
	if i < 0 {
		return nil, fmt.Errorf("interface %s: %w", want.Interface, ErrNoInterface)
	}
	own := have.Links[i]
	routes, err := Routes(have, want)
	if err != nil {
		return nil, err
	}
	shared, err := sharedRoutes(have, want)
	if err != nil {
		return nil, err
	}
	addresses := slices.DeleteFunc(slices.Clone(want.Addresses), func(p netip.Prefix) bool { return have.No6 && p.Addr().Is6() })

	var ops []Op
	if want.MTU > 0 && want.MTU != own.MTU {
		ops = append(ops, Op{Kind: OpMTU, MTU: want.MTU})
	}
	if !own.Up {
		ops = append(ops, Op{Kind: OpUp})
	}
	for _, p := range addresses {
		if !slices.Contains(own.Addresses, p) {
			ops = append(ops, Op{Kind: OpAddAddr, Prefix: p})
		}
	}
	var ownRoutes []netip.Prefix
	for _, r := range have.Routes {
		if r.Interface == want.Interface && !keptByKernel(r.Dst, addresses) {
			ownRoutes = append(ownRoutes, r.Dst)
		}
	}
	for _, p := range ownRoutes {
		if !slices.Contains(routes, p) && !slices.Contains(shared, p) {
			ops = append(ops, Op{Kind: OpDelRoute, Prefix: p})
		}
	}
	// The kernel drops the routes of an interface with its last address: hence
	// routes go before addresses, and old addresses after the new are there.
	for _, p := range own.Addresses {
		if !slices.Contains(addresses, p) && !p.Addr().IsLinkLocalUnicast() {
			ops = append(ops, Op{Kind: OpDelAddr, Prefix: p})
		}
	}
	for _, p := range routes {
		if !slices.Contains(ownRoutes, p) {
			ops = append(ops, Op{Kind: OpAddRoute, Prefix: p})
		}
	}
	for _, p := range shared {
		if !slices.Contains(ownRoutes, p) {
			ops = append(ops, Op{Kind: OpAddRoute, Prefix: p, Shared: true})
		}
	}
	return ops, nil
}

// sharedRoutes are the Shared prefixes of want that the host can have. Only
// what is not ours is in their way.
func sharedRoutes(have Host, want Config) ([]netip.Prefix, error) {
	foreign := Host{
		Links:  slices.DeleteFunc(slices.Clone(have.Links), func(l Link) bool { return Ours(l.Name) }),
		Routes: slices.DeleteFunc(slices.Clone(have.Routes), func(r Route) bool { return Ours(r.Interface) }),
		No6:    have.No6,
	}
	return Routes(foreign, Config{Interface: want.Interface, Routes: want.Shared})
}

// keptByKernel are the routes that come and go with addresses.
func keptByKernel(p netip.Prefix, addresses []netip.Prefix) bool {
	return p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() ||
		slices.ContainsFunc(addresses, func(a netip.Prefix) bool { return a.Masked() == p && a.Addr().Is6() })
}

// Routes are the prefixes to route into the tunnel: those of want, checked, with
// what must stay outside carved out, without duplicates, in order.
func Routes(have Host, want Config) ([]netip.Prefix, error) {
	if len(want.Routes) > MaxRoutes {
		return nil, fmt.Errorf("%d routes are too many, at most %d", len(want.Routes), MaxRoutes)
	}
	if len(want.Avoid) > MaxAvoid {
		return nil, fmt.Errorf("%d addresses outside of the routes are too many, at most %d", len(want.Avoid), MaxAvoid)
	}
	var out []netip.Prefix
	for _, p := range want.Routes {
		p = p.Masked()
		if err := valid(p); err != nil {
			return nil, err
		}
		if have.No6 && p.Addr().Is6() {
			continue
		}
		if err := collision(p, have, want.Interface); err != nil {
			return nil, err
		}
		if out = append(out, carve(p, want.Avoid)...); len(out) > maxCarved {
			return nil, fmt.Errorf("%d routes around %d addresses are too many, at most %d", len(out), len(want.Avoid), maxCarved)
		}
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out), nil
}

// linkLocal4 is longer than the broadest prefix that we take: others have it in them.
var linkLocal4 = netip.MustParsePrefix("169.254.0.0/16")

func valid(p netip.Prefix) error {
	least := 8
	if p.Addr().Is6() {
		least = 32
	}
	switch a := p.Addr(); {
	case !p.IsValid():
		return &InvalidError{p, "not a prefix"}
	case p.Bits() < least:
		return &InvalidError{p, fmt.Sprintf("broader than /%d", least)}
	case a.IsLoopback(), a.IsUnspecified():
		return &InvalidError{p, "loopback"}
	case a.IsLinkLocalUnicast(), p.Overlaps(linkLocal4):
		return &InvalidError{p, "link-local"}
	case a.IsMulticast(), a.Is4() && a.As4()[0] == 255:
		return &InvalidError{p, "multicast or broadcast"}
	case a.Is4() && a.As4()[0] == 0:
		return &InvalidError{p, "this network"}
	case a.Is4In6():
		return &InvalidError{p, "an IPv4 prefix in IPv6 form"}
	}
	return nil
}

// collision looks for a network of the host's that p would take from it, or
// that would take a part of p.
func collision(p netip.Prefix, have Host, own string) error {
	for _, n := range have.Networks(func(name string) bool { return name == own }) {
		if p.Overlaps(n.Prefix) {
			return &ConflictError{p, n.Interface, n.Prefix}
		}
	}
	return nil
}

// Network is a network of the host's, and the interface that leads there.
type Network struct {
	Prefix    netip.Prefix
	Interface string
}

// Networks are those that the host has by its interfaces and routes, but for the
// interfaces to leave out. Link-local ones are everywhere, and routes broader
// than any that we would accept, the default route and the halves that VPNs cut
// it into, are no networks.
func (h Host) Networks(except func(name string) bool) []Network {
	var all []Network
	for _, l := range h.Links {
		if l.Loopback || except(l.Name) {
			continue
		}
		for _, a := range l.Addresses {
			if !a.Addr().IsLinkLocalUnicast() {
				all = append(all, Network{a.Masked(), l.Name})
			}
		}
	}
	for _, r := range h.Routes {
		broad := 8
		if r.Dst.Addr().Is6() {
			broad = 32
		}
		if r.Dst.Bits() >= broad && !r.Dst.Addr().IsLinkLocalUnicast() && !except(r.Interface) {
			all = append(all, Network{r.Dst, r.Interface})
		}
	}
	return all
}

// carve splits p so that none of the addresses is in it.
func carve(p netip.Prefix, avoid []netip.Addr) []netip.Prefix {
	if !slices.ContainsFunc(avoid, func(a netip.Addr) bool { return p.Contains(a.Unmap()) }) {
		return []netip.Prefix{p}
	}
	if p.IsSingleIP() {
		return nil
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	return append(carve(low, avoid), carve(netip.PrefixFrom(upperHalf(p), p.Bits()+1), avoid)...)
}

// upperHalf is the first address of p's upper half.
func upperHalf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// apply runs ops by do and takes back what it did when one fails.
func apply(ops []Op, hadMTU int, do func(Op) error) error {
	for i, op := range ops {
		err := do(op)
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", op, err)
		for _, done := range slices.Backward(ops[:i]) {
			if back, ok := done.undo(hadMTU); ok {
				if e := do(back); e != nil {
					err = errors.Join(err, fmt.Errorf("take back %s: %w", done, e))
				}
			}
		}
		return err
	}
	return nil
}

// Strings prints prefixes for a status or a log.
func Strings(ps []netip.Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}
