// Package nat draws conclusions from what STUN servers answer: which kind of NAT
// is in front of this machine, and at which addresses others may reach it. It is
// pure: no sockets.
package nat

import "net/netip"

// Kind is how a NAT chooses the outside port for an inside socket (RFC 4787,
// section 4.1).
type Kind string

const (
	// Unknown: fewer than two servers of one address family have answered.
	Unknown Kind = ""
	// Independent: one outside port for all destinations (or no NAT at all).
	// Others can reach it once they know it.
	Independent Kind = "endpoint-independent"
	// Dependent: another outside port for each destination ("symmetric"). What
	// STUN servers saw is not what others will see.
	Dependent Kind = "endpoint-dependent"
)

// Answer is what one STUN server saw.
type Answer struct{ Server, Mapped netip.AddrPort }

// Finding is what a set of answers means.
type Finding struct {
	Kind Kind
	// Mapped is the outside addresses that servers saw, each once.
	Mapped []netip.AddrPort
	// Predicted is where the next mapping may be, likeliest first; empty unless
	// Kind is Dependent.
	Predicted []netip.AddrPort
}

// Look judges answers that one socket with this local port has got, in the order
// in which the servers were asked.
func Look(local uint16, answers []Answer) Finding { return Finding{} }

// Candidates lists where a socket may be reached, best first, at most max, each
// once: own addresses of the host (with the socket's port), what the servers and
// the other end have seen, and what is predicted. Addresses that nobody else can
// reach are left out.
func Candidates(own []netip.AddrPort, f Finding, observed []netip.AddrPort, max int) []string {
	return nil
}
