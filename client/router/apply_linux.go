package router

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// New makes the Router of this host.
func New() (Router, error) { return linuxRouter{}, nil }

type linuxRouter struct{}

func (r linuxRouter) Set(want Config) error {
	have, err := Read()
	if err != nil {
		return err
	}
	ops, err := Plan(have, want)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(want.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", want.Interface, err)
	}
	if err := apply(ops, link.Attrs().MTU, func(op Op) error { return do(link, op) }); err != nil {
		return err
	}
	if len(want.Shared) > 0 {
		answerHere(want.Interface)
	}
	return nil
}

// answerHere has the interface take answers from addresses that the host would
// reach by another: those of the gateway, where a second tunnel has them as well.
// The kernel drops them where it filters strictly by the reverse path
// (Documentation/networking/ip-sysctl.rst, rp_filter 1, which several
// distributions set); loosely, by 2, it does not. The setting goes with the
// interface. Who sends what in there is WireGuard's to check.
func answerHere(name string) {
	for _, dev := range []string{name, "all"} {
		set, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + dev + "/rp_filter")
		if err == nil && strings.TrimSpace(string(set)) == "1" {
			// Without the right to, only the cluster's names suffer, and the probe says so.
			_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("2"), 0)
			return
		}
	}
}

func do(link netlink.Link, op Op) error {
	switch op.Kind {
	case OpMTU:
		return netlink.LinkSetMTU(link, op.MTU)
	case OpUp:
		return netlink.LinkSetUp(link)
	case OpAddAddr:
		a := &netlink.Addr{IPNet: ipNet(op.Prefix)}
		if op.Prefix.Addr().Is6() {
			// Nobody else is on this link to have the address as well; without
			// this it could not be used for the first second.
			a.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(link, a)
	case OpDelAddr:
		return netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(op.Prefix)})
	case OpAddRoute:
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(op.Prefix), Scope: scope(op.Prefix)}
		if op.Shared {
			// The kernel has one route for each prefix and metric. The oldest interface
			// has the least, so what is bound to none goes there.
			r.Priority = sharedMetric + link.Attrs().Index
		}
		return netlink.RouteAdd(r)
	case OpDelRoute:
		return netlink.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(op.Prefix), Scope: scope(op.Prefix)})
	}
	return fmt.Errorf("unknown change %q", op.Kind)
}

// sharedMetric is that of IPv6 routes without one, so that those of both families
// are alike.
const sharedMetric = 1024

// scope is link for IPv4, which has no next hop here; IPv6 knows no scopes.
func scope(p netip.Prefix) netlink.Scope {
	if p.Addr().Is4() {
		return netlink.SCOPE_LINK
	}
	return netlink.SCOPE_UNIVERSE
}

// Read asks the kernel for the links and for the routes of the main table. The
// other tables are consulted by rules of somebody's making; a tunnel that lives
// there, such as wg-quick's, looks at the main table's networks first.
func Read() (Host, error) {
	h := Host{No6: no6()}
	links, err := netlink.LinkList()
	if err != nil {
		return h, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		link := Link{Name: a.Name, Loopback: a.Flags&net.FlagLoopback != 0, Up: a.Flags&net.FlagUp != 0, MTU: a.MTU}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return h, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		for _, ad := range addrs {
			if p, ok := prefix(ad.IPNet); ok {
				link.Addresses = append(link.Addresses, p)
			}
		}
		h.Links = append(h.Links, link)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return h, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			p, ok := prefix(r.Dst)
			if !ok || r.Type != unix.RTN_UNICAST {
				continue // the default route of some kernels, blackholes
			}
			h.Routes = append(h.Routes, hops(r, p, names)...)
		}
	}
	return h, nil
}

// hops is a route once per interface that it leads to.
func hops(r netlink.Route, dst netip.Prefix, names map[int]string) []Route {
	if len(r.MultiPath) == 0 {
		return []Route{{Dst: dst, Interface: names[r.LinkIndex]}}
	}
	var out []Route
	for _, hop := range r.MultiPath {
		out = append(out, Route{Dst: dst, Interface: names[hop.LinkIndex]})
	}
	return out
}

// no6 says whether IPv6 is compiled out or switched off.
func no6() bool {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return true
	}
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if a = a.Unmap(); !ok || bits != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}
