// Package addressing decides at which addresses a laptop sees a cluster: at the
// cluster's own, or, where the laptop has something else there, at virtual ones
// that the gateway maps back.
//
// It is pure: it knows neither who reads the laptop's routes nor who sets them.
package addressing

import (
	"fmt"
	"net/netip"
	"slices"

	"podnet.dev/internal/remap"
)

// Modes that may be asked for.
const (
	Auto    = "auto"    // direct unless something collides
	Direct  = "direct"  // the cluster's own addresses
	Virtual = "virtual" // none of them
)

// Network is what the laptop has and a cluster must not take from it: a network
// of one of its interfaces, or what another session routes.
type Network struct {
	Prefix netip.Prefix
	// Interface has it, or Session, which is another session's name; one of both is
	// empty.
	Interface, Session string
}

// Wish is what a choice depends on, and all of it: the same wish, the same choice.
type Wish struct {
	Mode string
	// Cluster tells this cluster from others, as the URL of its API server does.
	// Its virtual addresses begin somewhere that depends on it, so that they are
	// the same tomorrow, and others than those of a cluster beside it.
	Cluster string
	// Prefixes are the cluster's own, without any inside another.
	Prefixes []netip.Prefix
	Taken    []Network
	// Avoid are addresses that the laptop reaches outside of the tunnel.
	Avoid []netip.Addr
	// Reserved says that the laptop's system routes 240.0.0.0/4, which RFC 1112
	// keeps for later.
	Reserved bool
	// Before is the choice so far. What there is of it that still can be stays:
	// open flows have its addresses.
	Before Choice
}

// Choice is the answer. Without pairs the cluster's addresses are its own.
type Choice struct {
	// Pairs are what is mapped, as remap.Parse takes it.
	Pairs []remap.Pair
	// Why says in a sentence why there are any.
	Why string
}

// Equal reports whether two choices map alike.
func (c Choice) Equal(o Choice) bool { return slices.Equal(c.Pairs, o.Pairs) }

// NoRoomError says that there is no free range of private addresses for one of
// the cluster's.
type NoRoomError struct {
	Real netip.Prefix
	Why  string // virtual addresses at all
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("no private range of this machine is free for as many addresses as %s has, and it needs other ones: %s", e.Real, e.Why)
}

// Code is localapi.CodeConflict.
func (e *NoRoomError) Code() string { return "conflict" }
func (e *NoRoomError) Hint() string {
	return "leave a network or VPN that has much of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16; ip route lists them"
}

// Decide chooses. A family of addresses is virtual as a whole: of two addresses
// that a name has, not one should be the cluster's own and the other not.
func Decide(w Wish) (Choice, error) {
	if w.Mode == Direct {
		return Choice{}, nil
	}
	var c Choice
	var mapped []netip.Prefix
	for _, six := range []bool{false, true} {
		all := slices.DeleteFunc(slices.Clone(w.Prefixes), func(p netip.Prefix) bool { return p.Addr().Is6() != six })
		why := w.why(all, six)
		if why == "" {
			continue
		}
		mapped = append(mapped, all...)
		if c.Why == "" {
			c.Why = why
		}
	}
	reals, err := cover(mapped)
	if err != nil {
		return Choice{}, err
	}
	if c.Pairs, err = w.pair(reals, c.Why); err != nil || len(c.Pairs) == 0 {
		return Choice{}, err
	}
	_, err = remap.Parse(c.Pairs)
	return c, err
}

// why a family of the cluster's prefixes is virtual; "": it is not.
func (w Wish) why(prefixes []netip.Prefix, six bool) string {
	if w.Mode == Virtual {
		return "asked for"
	}
	for _, n := range w.Taken {
		for _, p := range prefixes {
			if p.Overlaps(n.Prefix) {
				return collision(p, n)
			}
		}
	}
	if slices.ContainsFunc(w.Before.Pairs, func(p remap.Pair) bool { return p.Real.Addr().Is6() == six }) {
		return w.Before.Why
	}
	return ""
}

// collision tells of a prefix of the cluster's that the laptop has, too.
func collision(p netip.Prefix, n Network) string {
	switch {
	case n.Session != "" && n.Prefix == p:
		return fmt.Sprintf("the cluster's %s is also routed to the session %s", p, n.Session)
	case n.Session != "":
		return fmt.Sprintf("the cluster's %s overlaps %s of the session %s", p, n.Prefix, n.Session)
	case n.Prefix == p:
		return fmt.Sprintf("the cluster's %s is also the network of %s", p, n.Interface)
	}
	return fmt.Sprintf("the cluster's %s overlaps %s on %s", p, n.Prefix, n.Interface)
}

// A prefix that is longer than this is mapped with all that is around it: a cluster
// whose nodes have a prefix each publishes another one with each that joins, and
// that must not move those that there are. One length per family.
const (
	wide4, widest4 = 16, 8
	wide6, widest6 = 56, 32
)

// maxPairs is what a Peer may have.
const maxPairs = 16

// cover is a few prefixes that have all of the given ones in them, none inside
// another.
func cover(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	for four, six := wide4, wide6; four >= widest4; four, six = four-1, max(six-3, widest6) {
		var out []netip.Prefix
		for _, p := range prefixes {
			bits := four
			if p.Addr().Is6() {
				bits = six
			}
			p = netip.PrefixFrom(p.Addr(), min(bits, p.Bits())).Masked()
			if slices.ContainsFunc(out, func(o netip.Prefix) bool { return contains(o, p) }) {
				continue
			}
			out = append(slices.DeleteFunc(out, func(o netip.Prefix) bool { return contains(p, o) }), p)
		}
		if len(out) <= maxPairs {
			slices.SortFunc(out, netip.Prefix.Compare)
			return out, nil
		}
	}
	return nil, fmt.Errorf("the cluster has %d networks all over the address space: too many to map", len(prefixes))
}

func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// pair finds a virtual prefix for each real one.
func (w Wish) pair(reals []netip.Prefix, why string) ([]remap.Pair, error) {
	s := w.space()
	s.taken = append(s.taken, reals...)
	var pairs []remap.Pair
	var rest []netip.Prefix
	for _, r := range reals {
		i := slices.IndexFunc(w.Before.Pairs, func(p remap.Pair) bool { return contains(p.Real, r) })
		switch {
		case i < 0 || s.overlaps(w.Before.Pairs[i].Virtual):
			rest = append(rest, r)
		case !slices.Contains(pairs, w.Before.Pairs[i]):
			pairs = append(pairs, w.Before.Pairs[i])
		}
	}
	for _, p := range pairs {
		s.taken = append(s.taken, p.Virtual)
	}
	s.guard(w)
	// The largest first: small ones fit between them, not the reverse.
	slices.SortStableFunc(rest, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	for _, r := range rest {
		v, ok := s.place(r)
		if !ok {
			return nil, &NoRoomError{r, why}
		}
		pairs = append(pairs, remap.Pair{Real: r, Virtual: v})
	}
	slices.SortFunc(pairs, func(a, b remap.Pair) int { return a.Real.Compare(b.Real) })
	return pairs, nil
}
