package osdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxReverse is how many reverse zones one prefix may become. The proxy hands
// on what is not the cluster's, so a coarser zone costs a detour and no truth.
const maxReverse = 16

// Domains are the match and search domains of a session: zone is the
// cluster's ("cluster.local"), namespaces are the visible ones, current is the
// session's own, prefixes are routed.
//
// Every namespace is a match domain because systemd-resolved, macOS and
// Windows complete names of one label only: "web.shop" has to reach the proxy
// as it is, and only a route for "shop" brings it there.
func Domains(zone string, namespaces []string, current string, prefixes []netip.Prefix) (match, search []string) {
	zone = strings.ToLower(strings.Trim(zone, "."))
	match = append(match, zone, "svc")
	for _, ns := range namespaces {
		match = append(match, strings.ToLower(ns))
	}
	slices.Sort(match[2:])
	for _, p := range prefixes {
		match = append(match, ReverseZones(p)...)
	}
	if current != "" {
		search = append(search, strings.ToLower(current)+".svc."+zone)
	}
	search = append(search, "svc."+zone, zone)
	return compact(match), search
}

// AliasDomains are the match domains of a session beside the one that has those
// of Domains: alias, which holds its names whatever other cluster has the same,
// and the reverse zones of what it routes.
func AliasDomains(alias string, prefixes []netip.Prefix) []string {
	match := []string{alias}
	for _, p := range prefixes {
		match = append(match, ReverseZones(p)...)
	}
	return compact(match)
}

// compact removes what is there already, keeping the order.
func compact(in []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(in, func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}

// ReverseZones are the zones of in-addr.arpa or ip6.arpa that hold the names
// of p's addresses. A prefix that ends inside a label becomes several.
func ReverseZones(p netip.Prefix) []string {
	if !p.IsValid() {
		return nil
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	step := 8 // bits per label
	if p.Addr().Is6() {
		step = 4
	}
	labels := (p.Bits() + step - 1) / step
	count := 1 << (labels*step - p.Bits())
	if count > maxReverse {
		labels--
		count = 1
	}
	out := make([]string, 0, count)
	for i := range count {
		out = append(out, reverseZone(p.Addr().AsSlice(), labels, step, i))
	}
	return out
}

// reverseZone names the zone of the first labels of addr, the last of them
// moved on by plus.
func reverseZone(addr []byte, labels, step, plus int) string {
	var b strings.Builder
	for i := labels - 1; i >= 0; i-- {
		v := int(addr[i*step/8])
		if step == 4 {
			v = v >> (4 * (1 - i%2)) & 0xf
		}
		if i == labels-1 {
			v += plus
		}
		if step == 4 {
			fmt.Fprintf(&b, "%x.", v)
		} else {
			fmt.Fprintf(&b, "%d.", v)
		}
	}
	if step == 4 {
		return b.String() + "ip6.arpa"
	}
	return b.String() + "in-addr.arpa"
}
