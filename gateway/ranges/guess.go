package ranges

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// Where nobody may read which ranges the cluster has, they are told from the addresses
// that every pod knows: its own, and the API server's Service.
const (
	// podGuess4 and podGuess6 are how long a prefix around the gateway's own pod's
	// address is taken for the pods'. Nodes have a /24 and a /64 of it, mostly.
	podGuess4, podGuess6 = 16, 56
	// serviceWidest and serviceGuess6 bound the Services': kubeadm's is a /12, and a
	// /112 or /108.
	serviceWidest, serviceGuess6 = 12, 108
	// strayBlock4 and strayBlock6 are taken around addresses beyond all that.
	strayBlock4, strayBlock6 = 24, 120
)

// GuessPods are the pods' ranges: said by somebody, else told from the gateway's own
// addresses.
func GuessPods(said []netip.Prefix, own []netip.Addr) []netip.Prefix {
	all := slices.Clone(said)
	for _, a := range own {
		if p, err := a.Prefix(pick(a, podGuess4, podGuess6)); err == nil && !hasFamily(said, a) {
			all = append(all, p)
		}
	}
	return Tidy(all)
}

// GuessServices are the Services' ranges: said by somebody, else told from the API server's,
// which is the first address of its range. How long the range's prefix is it tells
// only so far: an even address begins a shorter one, too.
func GuessServices(said []netip.Prefix, api netip.Addr) []netip.Prefix {
	all := slices.Clone(said)
	if api.IsValid() && !hasFamily(said, api) {
		length := serviceGuess6
		if api.Is4() {
			b := api.As4()
			first := binary.BigEndian.Uint32(b[:]) - 1
			length = min(max(32-bits.TrailingZeros32(first), serviceWidest), 24)
		}
		if p, err := api.Prefix(length); err == nil {
			all = append(all, p)
		}
	}
	return Tidy(all)
}

// Strays are blocks around the addresses that no range has.
func Strays(ranges []netip.Prefix, addresses []netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addresses {
		if !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) }) && isPrivate(a) {
			if p, err := a.Prefix(pick(a, strayBlock4, strayBlock6)); err == nil {
				all = append(all, p)
			}
		}
	}
	return Tidy(all)
}

func pick(a netip.Addr, v4, v6 int) int {
	if a.Is4() {
		return v4
	}
	return v6
}
