// Package nat draws conclusions from what STUN servers answer: which kind of NAT
// is in front of a UDP socket, and at which addresses others may reach it. It is
// pure: no sockets.
package nat

import (
	"net/netip"
	"slices"
)

// Kind is how a NAT chooses the outside port for an inside socket (RFC 4787,
// section 4.1).
type Kind string

const (
	// Unknown: no two servers at different addresses of one family have answered.
	Unknown Kind = ""
	// Independent: one outside address for all destinations, or no NAT at all.
	// Whoever knows it can reach the socket once that has sent to him.
	Independent Kind = "endpoint-independent"
	// Dependent: another outside address for each destination ("symmetric"). What
	// STUN servers saw is not what others will see.
	Dependent Kind = "endpoint-dependent"
)

// Answer is what one STUN server saw.
type Answer struct{ Server, Mapped netip.AddrPort }

// Finding is what a set of answers means.
type Finding struct {
	// Kind is Dependent when that is so for IPv4 or IPv6.
	Kind Kind
	// Mapped is the outside addresses that servers saw, each once.
	Mapped []netip.AddrPort
	// Predicted is where the next mappings may be, likeliest first, 5 at most for
	// each of IPv4 and IPv6; empty unless Kind is Dependent.
	Predicted []netip.AddrPort
}

const (
	// A NAT that hands out ports in sequence skips those that others have just
	// taken. Greater steps than this say that it hands them out at random.
	maxStep = 16
	// This many steps ahead are tried: the mapping to be guessed is the next one
	// only where nobody else has made any meanwhile.
	steps = 4
)

// Look judges the answers that one socket with this local port has got, in the
// order in which the servers were asked. Of several by one server the last one
// counts.
func Look(local uint16, answers []Answer) Finding {
	var f Finding
	for _, is4 := range []bool{true, false} {
		seen := latest(answers, is4)
		var mapped []netip.AddrPort
		for _, a := range seen {
			if !slices.Contains(mapped, a.Mapped) {
				mapped = append(mapped, a.Mapped)
			}
		}
		f.Mapped = append(f.Mapped, mapped...)
		switch {
		case len(mapped) > 1:
			f.Kind = Dependent
			f.Predicted = append(f.Predicted, predict(local, mapped)...)
		// Ports of one server's address say nothing about other addresses.
		case f.Kind == Unknown && slices.ContainsFunc(seen, func(a Answer) bool { return a.Server.Addr() != seen[0].Server.Addr() }):
			f.Kind = Independent
		}
	}
	return f
}

// latest is the last usable answer of each server of a family, in order.
func latest(answers []Answer, is4 bool) []Answer {
	var last []Answer
	for _, a := range answers {
		a.Server, a.Mapped = unmap(a.Server), unmap(a.Mapped)
		if a.Mapped.Addr().Is4() != is4 || !reachable(a.Mapped) {
			continue
		}
		last = slices.DeleteFunc(last, func(b Answer) bool { return b.Server == a.Server })
		last = append(last, a)
	}
	return last
}

// predict guesses the next mappings of a NAT that made these, in order: the
// next ports of a sequence, then the local port, which many NATs keep while
// nobody else has it.
func predict(local uint16, mapped []netip.AddrPort) []netip.AddrPort {
	last := mapped[len(mapped)-1]
	var guess []netip.AddrPort
	if d := step(mapped); d != 0 {
		for i := 1; i <= steps; i++ {
			if port := int(last.Port()) + i*d; port > 0 && port <= 0xffff {
				guess = append(guess, netip.AddrPortFrom(last.Addr(), uint16(port)))
			}
		}
	}
	if own := netip.AddrPortFrom(last.Addr(), local); local != 0 && !slices.Contains(mapped, own) && !slices.Contains(guess, own) {
		guess = append(guess, own)
	}
	return guess
}

// step is the smallest step by which ports follow one another; 0: they do not.
func step(mapped []netip.AddrPort) int {
	smallest := 0
	for i := range mapped[1:] {
		d := int(mapped[i+1].Port()) - int(mapped[i].Port())
		if d == 0 || max(d, -d) > maxStep || d*smallest < 0 {
			return 0
		}
		if smallest == 0 || max(d, -d) < max(smallest, -smallest) {
			smallest = d
		}
	}
	return smallest
}

// Candidates lists where a socket may be reached, likeliest first, at most limit,
// each once: own addresses of the host with the socket's port, what servers (f)
// and the other end (observed) have seen, and what is predicted. Addresses that
// nobody else can reach are left out.
//
// A host may have many addresses of its own, of bridges and the like. They come
// last, so that they are what a limit cuts off.
func Candidates(own []netip.AddrPort, f Finding, observed []netip.AddrPort, limit int) []string {
	order := [][]netip.AddrPort{f.Mapped, observed, own}
	if f.Kind == Dependent {
		order = [][]netip.AddrPort{observed, f.Predicted, f.Mapped, own}
	}
	var list []string
	for _, a := range slices.Concat(order...) {
		a = unmap(a)
		if s := a.String(); len(list) < limit && reachable(a) && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// nowhere lists addresses that mean nothing to anybody else: "this network" and
// the reserved ones (RFC 6890), and the tunnel's own (internal/key, gateway).
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("198.18.0.0/16"),
	netip.MustParsePrefix("fd70:6f64:6e65:7400::/62"),
}

func reachable(a netip.AddrPort) bool {
	ip := a.Addr()
	if a.Port() == 0 || !ip.IsGlobalUnicast() { // neither loopback, link-local, multicast nor unspecified
		return false
	}
	return !slices.ContainsFunc(nowhere, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
