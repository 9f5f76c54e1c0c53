package gateway

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// maxRanges bounds what a laptop is asked to route, per kind.
const maxRanges = 64

// Addresses that no published range covers are rounded to blocks: large enough
// that a new pod is mostly inside, small enough not to swallow a neighbour.
const (
	podBlock4, podBlock6         = 24, 120
	serviceBlock4, serviceBlock6 = 16, 112
)

// ranges collects what the cluster's ranges are known or seen to be. What was
// only seen stays for as long as the gateway lives, so that a laptop's routes
// do not come and go with pods.
type ranges struct {
	seen map[netip.Prefix]struct{}
}

// update returns the ranges to publish: the declared ones, and blocks around
// addresses outside all of them.
func (r *ranges) update(declared []netip.Prefix, observed iter.Seq[netip.Addr], bits4, bits6 int) []netip.Prefix {
	known := collapse(declared)
	for a := range observed {
		if covers(known, a) {
			continue
		}
		bits := bits4
		if a.Is6() {
			bits = bits6
		}
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if r.seen == nil {
			r.seen = map[netip.Prefix]struct{}{}
		}
		r.seen[p] = struct{}{}
	}
	all := slices.Clone(known)
	for p := range r.seen {
		all = append(all, p)
	}
	return limit(collapse(all), maxRanges)
}

// covers reports whether one of the sorted, disjoint prefixes contains a.
func covers(sorted []netip.Prefix, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(sorted, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	if found {
		return true
	}
	return i > 0 && sorted[i-1].Contains(a)
}

// collapse sorts prefixes, drops those inside others and joins halves, without
// covering one address more.
func collapse(in []netip.Prefix) []netip.Prefix {
	all := slices.Clone(in)
	for i := range all {
		all[i] = all[i].Masked()
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range all {
		if len(out) > 0 && out[len(out)-1].Overlaps(p) {
			continue // sorted: the earlier one is the larger one
		}
		out = append(out, p)
		for len(out) > 1 {
			joined, ok := join(out[len(out)-2], out[len(out)-1])
			if !ok {
				break
			}
			out = append(out[:len(out)-2], joined)
		}
	}
	return out
}

// join makes one prefix of two halves.
func join(a, b netip.Prefix) (netip.Prefix, bool) {
	if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().Is4() != b.Addr().Is4() {
		return netip.Prefix{}, false
	}
	parent := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
	return parent, parent.Contains(b.Addr()) && parent.Addr() == a.Addr()
}

// limit joins the closest neighbours until at most n prefixes are left. It
// covers more than it was given, and never grows one beyond /8 (IPv4) or /32
// (IPv6): what does not fit then is left out, the smallest first.
func limit(sorted []netip.Prefix, n int) []netip.Prefix {
	for len(sorted) > n {
		best, at := netip.Prefix{}, -1
		for i := range sorted[:len(sorted)-1] {
			if p, ok := span(sorted[i], sorted[i+1]); ok && (at < 0 || room(p) < room(best)) {
				best, at = p, i
			}
		}
		if at < 0 {
			smallest := 0
			for i, p := range sorted {
				if room(p) < room(sorted[smallest]) {
					smallest = i
				}
			}
			sorted = slices.Delete(sorted, smallest, smallest+1)
			continue
		}
		sorted = collapse(append(slices.Delete(slices.Clone(sorted), at, at+2), best))
	}
	return sorted
}

// span is the smallest prefix around two of one family.
func span(a, b netip.Prefix) (netip.Prefix, bool) {
	if a.Addr().Is4() != b.Addr().Is4() {
		return netip.Prefix{}, false
	}
	least := 8
	if a.Addr().Is6() {
		least = 32
	}
	for bits := min(a.Bits(), b.Bits()); bits >= least; bits-- {
		if p := netip.PrefixFrom(a.Addr(), bits).Masked(); p.Contains(b.Addr()) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// room is the number of bits of addresses in a prefix.
func room(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

func texts(prefixes []netip.Prefix) []string {
	var all []string
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return all
}
