// Package remap maps addresses of a cluster, the real ones, to those at which a
// laptop reaches them, the virtual ones, and back. Whole prefixes are mapped, and
// an address keeps its place in its prefix. So there is nothing to remember: who
// has the same pairs maps alike, at any time.
//
// It is pure, and knows neither who chooses the pairs nor what they are for.
package remap

import (
	"fmt"
	"net/netip"
	"slices"
)

// Pair is a prefix of the cluster and the one that stands for it, of the same
// family and length.
type Pair struct{ Real, Virtual netip.Prefix }

// String is the pair as people are told of it.
func (p Pair) String() string { return p.Real.String() + " at " + p.Virtual.String() }

// ParsePair reads a pair from its two prefixes, and judges neither.
func ParsePair(real, virtual string) (Pair, error) {
	r, err := netip.ParsePrefix(real)
	if err != nil {
		return Pair{}, fmt.Errorf("real %q: want a prefix such as 10.244.0.0/16", real)
	}
	v, err := netip.ParsePrefix(virtual)
	if err != nil {
		return Pair{}, fmt.Errorf("virtual %q: want a prefix such as 100.64.0.0/16", virtual)
	}
	return Pair{r, v}, nil
}

// Map is a set of pairs. The zero Map maps nothing.
type Map struct{ pairs []Pair } // a few: looking at each is quick

// never lists what no virtual prefix may have an address of.
var never = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("198.18.0.0/15"), "the tunnel's own addresses"}, // gateway, enrol
	{netip.MustParsePrefix("::/8"), "loopback and IPv4 in disguise"},       // RFC 4291, RFC 6052
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("fd70:6f64:6e65:7400::/62"), "the tunnel's own addresses"}, // internal/key, internal/transport
}

// Parse makes a Map of pairs, or tells which of them cannot be. No address may be
// in two prefixes: neither twice real, nor twice virtual, nor both, as a program
// that has a real address by other ways than DNS would then reach another host
// with it.
func Parse(pairs []Pair) (Map, error) {
	for i, p := range pairs {
		if err := p.check(); err != nil {
			return Map{}, err
		}
		for _, q := range pairs[:i] {
			switch {
			case p.Real.Overlaps(q.Real):
				return Map{}, fmt.Errorf("%s and %s: an address can have only one that stands for it", q.Real, p.Real)
			case p.Virtual.Overlaps(q.Virtual):
				return Map{}, fmt.Errorf("%s and %s: an address can stand for only one other", q, p)
			}
		}
		for _, q := range pairs {
			if p.Virtual.Overlaps(q.Real) {
				return Map{}, fmt.Errorf("%s: %s is the cluster's, and cannot be virtual as well", p, q.Real)
			}
		}
	}
	return Map{slices.Clone(pairs)}, nil
}

func (p Pair) check() error {
	for _, q := range []netip.Prefix{p.Real, p.Virtual} {
		switch {
		case !q.IsValid() || q.Addr().Is4In6():
			return fmt.Errorf("%s: not a prefix of IPv4 or IPv6", p)
		case q != q.Masked():
			return fmt.Errorf("%s: did you mean %s?", q, q.Masked())
		}
	}
	switch {
	case p.Real.Addr().BitLen() != p.Virtual.Addr().BitLen():
		return fmt.Errorf("%s: IPv4 does not stand for IPv6", p)
	case p.Real.Bits() != p.Virtual.Bits():
		return fmt.Errorf("%s: the prefixes must be of the same length", p)
	}
	for _, no := range never {
		if no.prefix.Overlaps(p.Virtual) {
			return fmt.Errorf("%s: %s has %s, which cannot stand for others", p, p.Virtual, no.what)
		}
	}
	return nil
}

// Real is what a virtual address stands for, and false for any other address.
func (m Map) Real(a netip.Addr) (netip.Addr, bool) {
	for _, p := range m.pairs {
		if p.Virtual.Contains(a) {
			return move(a, p.Virtual.Bits(), p.Real.Addr()), true
		}
	}
	return netip.Addr{}, false
}

// Stands reports whether an address is a virtual one.
func (m Map) Stands(a netip.Addr) bool {
	for i := range m.pairs {
		if m.pairs[i].Virtual.Contains(a) {
			return true
		}
	}
	return false
}

// Virtual is the address that stands for a real one, and false when none does.
func (m Map) Virtual(a netip.Addr) (netip.Addr, bool) {
	for _, p := range m.pairs {
		if p.Real.Contains(a) {
			return move(a, p.Real.Bits(), p.Virtual.Addr()), true
		}
	}
	return netip.Addr{}, false
}

// RealPrefix is what a prefix of virtual addresses stands for, and false when they
// are not all of one pair.
func (m Map) RealPrefix(p netip.Prefix) (netip.Prefix, bool) {
	for _, q := range m.pairs {
		if within(p, q.Virtual) {
			return netip.PrefixFrom(move(p.Addr(), q.Virtual.Bits(), q.Real.Addr()), p.Bits()).Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// VirtualPrefix is the prefix that stands for one of real addresses, and false when
// they are not all of one pair.
func (m Map) VirtualPrefix(p netip.Prefix) (netip.Prefix, bool) {
	for _, q := range m.pairs {
		if within(p, q.Real) {
			return netip.PrefixFrom(move(p.Addr(), q.Real.Bits(), q.Virtual.Addr()), p.Bits()).Masked(), true
		}
	}
	return netip.Prefix{}, false
}

func within(p, in netip.Prefix) bool { return p.Bits() >= in.Bits() && in.Contains(p.Addr()) }

// move puts the place that a has in its prefix of so many bits into the one that
// begins at to, which is of the same family.
func move(a netip.Addr, bits int, to netip.Addr) netip.Addr {
	from, into := a.AsSlice(), to.AsSlice()
	for i := range from {
		mask := byte(0xff) // of the place
		if n := bits - 8*i; n > 0 {
			mask >>= min(n, 8)
		}
		into[i] |= from[i] & mask
	}
	moved, _ := netip.AddrFromSlice(into)
	return moved
}

// Pairs are the map's, in the order that Parse was given.
func (m Map) Pairs() []Pair { return slices.Clone(m.pairs) }

// IsZero reports whether the map maps nothing.
func (m Map) IsZero() bool { return len(m.pairs) == 0 }

// Equal reports whether two maps are of the same pairs in the same order.
func (m Map) Equal(o Map) bool { return slices.Equal(m.pairs, o.pairs) }
