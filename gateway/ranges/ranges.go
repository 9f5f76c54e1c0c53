// Package ranges says which ranges of addresses laptops are asked to route: by what the
// cluster declares and what was seen there (Pods, Services), or, where nothing may be
// read, by what every pod knows (GuessPods, GuessServices, Strays). Ranges open nothing.
// It is pure.
package ranges

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"podnet.dev/deploy"
)

// Most bounds what a laptop is asked to route, per kind.
const Most = 64

// Addresses that no published range covers are rounded to blocks: large enough
// that a new pod is mostly inside, small enough not to swallow a neighbour.
const (
	podBlock4, podBlock6         = 24, 120
	serviceBlock4, serviceBlock6 = 16, 112
)

// Pods are the pods' ranges: what an administrator said, for the families that he spoke
// of, else what nodes declare, else blocks around those pods that have been seen at
// addresses that are nobody's on the internet.
func Pods(said, declared []netip.Prefix, seen iter.Seq[netip.Addr]) []netip.Prefix {
	return published(override(said, declared), private(seen), podBlock4, podBlock6)
}

// Services are the Services' ranges: what the cluster declares, else blocks around those
// that have been seen.
func Services(declared []netip.Prefix, seen iter.Seq[netip.Addr]) []netip.Prefix {
	return published(declared, seen, serviceBlock4, serviceBlock6)
}

// published returns the ranges to publish: the declared ones and, for a family
// (IPv4, IPv6) that none of them is of, blocks around the observed addresses.
// Those are a last resort, because whoever may write EndpointSlices may make
// some up; they are gone with their last address. What no laptop should ever
// route is left out.
func published(declared []netip.Prefix, observed iter.Seq[netip.Addr], bits4, bits6 int) []netip.Prefix {
	all := slices.Clone(declared)
	blocks := map[netip.Prefix]struct{}{}
	has4, has6 := hasFamily(declared, netip.IPv4Unspecified()), hasFamily(declared, netip.IPv6Unspecified())
	for a := range observed {
		bits, declared := bits4, has4
		if a.Is6() {
			bits, declared = bits6, has6
		}
		if declared {
			continue
		}
		if p, err := a.Prefix(bits); err == nil {
			blocks[p] = struct{}{}
		}
	}
	for p := range blocks {
		all = append(all, p)
	}
	return Tidy(all)
}

// Tidy is what of ranges laptops may be asked to route, joined where they touch, and at
// most as many as there may be.
func Tidy(all []netip.Prefix) []netip.Prefix {
	all = slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return deploy.CheckRange(p) != nil })
	return limit(collapse(all), Most)
}

func hasFamily(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() })
}

// override puts what an administrator said in place of what objects declare,
// for the families that he spoke of.
func override(said, declared []netip.Prefix) []netip.Prefix {
	all := slices.Clone(said)
	for _, p := range declared {
		if !hasFamily(said, p.Addr()) {
			all = append(all, p)
		}
	}
	return all
}

// shared are the addresses for use behind a provider's NAT, RFC 6598. Some
// clusters on clouds give them to pods.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func isPrivate(a netip.Addr) bool { return a.IsPrivate() || shared.Contains(a) }

// private yields those addresses that are nobody's on the internet. Only around
// them is a block of pods published: else a made-up endpoint could take a public
// network from all laptops.
func private(all iter.Seq[netip.Addr]) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for a := range all {
			if isPrivate(a) && !yield(a) {
				return
			}
		}
	}
}

// Cover reports whether one of the sorted, disjoint prefixes contains a.
func Cover(sorted []netip.Prefix, a netip.Addr) bool {
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

// Parse reads those that are ranges.
func Parse(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// Texts is the reverse.
func Texts(prefixes []netip.Prefix) []string {
	var all []string
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return all
}
