package osdns

import (
	"fmt"
	"net/netip"
	"strings"
)

// call is one method of org.freedesktop.resolve1.Manager.
type call struct {
	method string
	args   []any
	// optional: an older systemd without it is good enough.
	optional bool
}

// The argument types of the D-Bus interface, by name of their fields there.
type (
	resolvedAddress struct {
		Family  int32
		Address []byte
	}
	resolvedDomain struct {
		Domain      string
		RoutingOnly bool
	}
)

// Address families as Linux numbers them; resolved wants these numbers.
const (
	afInet  = 2
	afInet6 = 10
)

// planResolved is what to tell systemd-resolved so that want holds for the
// link. Names of other links stay where they were: no default route. The
// link's own protocols and checks are off, since a pod network has no
// multicast names, and a cluster's zone has no signatures.
func planResolved(ifindex int32, want Config) []call {
	if want.IsZero() {
		return []call{
			{method: "RevertLink", args: []any{ifindex}},
			{method: "FlushCaches"},
		}
	}
	servers := make([]resolvedAddress, 0, len(want.Servers))
	for _, a := range want.Servers {
		family := int32(afInet6)
		if a.Is4() {
			family = afInet
		}
		servers = append(servers, resolvedAddress{family, a.AsSlice()})
	}
	return []call{
		{method: "SetLinkDNS", args: []any{ifindex, servers}},
		{method: "SetLinkDomains", args: []any{ifindex, planDomains(want)}},
		{method: "SetLinkDefaultRoute", args: []any{ifindex, false}, optional: true},
		{method: "SetLinkLLMNR", args: []any{ifindex, "no"}, optional: true},
		{method: "SetLinkMulticastDNS", args: []any{ifindex, "no"}, optional: true},
		{method: "SetLinkDNSSEC", args: []any{ifindex, "no"}, optional: true},
		{method: "SetLinkDNSOverTLS", args: []any{ifindex, "no"}, optional: true},
		{method: "FlushCaches"},
	}
}

// planDomains lists search domains first, since their order counts. A search
// domain is a route as well, so it is not repeated as one.
func planDomains(want Config) []resolvedDomain {
	var out []resolvedDomain
	seen := map[string]bool{}
	add := func(domains []string, routingOnly bool) {
		for _, d := range domains {
			if d = strings.Trim(d, "."); d != "" && !seen[d] {
				seen[d] = true
				out = append(out, resolvedDomain{d, routingOnly})
			}
		}
	}
	add(want.SearchDomains, false)
	add(want.MatchDomains, true)
	return out
}

// fewerDomains is for a resolved that finds the list too long: reverse names
// go first, then the namespaces from the end of the list.
func fewerDomains(domains []resolvedDomain, limit int) []resolvedDomain {
	var out []resolvedDomain
	for _, d := range domains {
		if !strings.HasSuffix(d.Domain, ".arpa") {
			out = append(out, d)
		}
	}
	return out[:min(len(out), limit)]
}

// String is the call as resolvectl's user would read it, for goldens and logs.
func (c call) String() string {
	var b strings.Builder
	b.WriteString(c.method)
	for _, arg := range c.args {
		switch arg := arg.(type) {
		case []resolvedAddress:
			for _, s := range arg {
				a, _ := netip.AddrFromSlice(s.Address)
				fmt.Fprintf(&b, " %d:%s", s.Family, a)
			}
		case []resolvedDomain:
			for _, d := range arg {
				b.WriteByte(' ')
				if d.RoutingOnly {
					b.WriteByte('~')
				}
				b.WriteString(d.Domain)
			}
		default:
			fmt.Fprintf(&b, " %v", arg)
		}
	}
	return b.String()
}
