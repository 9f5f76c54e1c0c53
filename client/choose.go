package client

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/transport"
)

// What a session chooses, as pure functions: which gateway, which of its
// addresses, how large its packets, and what it says about that.

// rank sorts gateways by preference of one Peer: rendezvous hashing spreads the
// laptops over the replicas, and moves only those of a replica that is gone.
// Those that are about to stop are left out.
func rank(peer string, all []v1alpha1.Gateway) []v1alpha1.Gateway {
	score := func(g v1alpha1.Gateway) uint64 {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%s\x00%s", peer, g.Pod) // never fails
		// FNV's last bytes move its low bits only, and replicas differ in their
		// last byte; this spreads them (the finalizer of MurmurHash3).
		x := h.Sum64()
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		return x ^ x>>33
	}
	out := slices.DeleteFunc(slices.Clone(all), func(g v1alpha1.Gateway) bool { return g.Draining })
	slices.SortStableFunc(out, func(a, b v1alpha1.Gateway) int { return cmp.Compare(score(b), score(a)) })
	return out
}

// maxAddresses is how many UDP addresses of one gateway are tried.
const maxAddresses = 32

// addresses are where a gateway may be reached by UDP: its endpoints, and its
// candidates. Candidates inside the cluster's own networks are left out: once
// the routes are set, what is sent there goes into the tunnel itself.
func addresses(gw v1alpha1.Gateway, inside []netip.Prefix) (endpoints, candidates []netip.AddrPort) {
	var all []netip.AddrPort
	add := func(texts []string, within func(netip.Addr) bool) []netip.AddrPort {
		first := len(all)
		for _, e := range texts {
			a, err := netip.ParseAddrPort(e)
			if a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()); err == nil && !slices.Contains(all, a) && !within(a.Addr()) && len(all) < maxAddresses {
				all = append(all, a)
			}
		}
		return slices.Clone(all[first:])
	}
	endpoints = add(gw.Endpoints, func(netip.Addr) bool { return false })
	candidates = add(gw.Candidates, func(a netip.Addr) bool {
		return slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(a) })
	})
	return endpoints, candidates
}

// MTUs of the TUN, in bytes (ADR 0007). WireGuard adds 32 to a packet. A stream
// has no limit, and large packets spare work at both ends (ADR 0003).
const (
	mtuUDP    = 1420 // a datagram of 1452: Ethernet's 1500 less IPv6 and UDP
	mtuStream = 16384
	mtuLeast  = 1280 // IPv6 needs it; transport cuts what is too large for a path
	overhead  = 32
)

// mtu of the TUN. was is the one so far. A session that is on a stream for now
// keeps what UDP had: the flows have settled on it, and UDP may be back soon.
func mtu(mayUDP bool, active transport.PathStatus, was int) int {
	switch {
	case !mayUDP:
		return mtuStream
	case active.Kind == transport.UDP && active.Datagram > overhead:
		return min(max(mtuLeast, active.Datagram-overhead), mtuUDP)
	case was > mtuUDP:
		return mtuUDP
	}
	return was
}

// outlook is what is known of the ways to the gateway in use.
type outlook struct {
	only      transport.Kind // asked for by --path
	published int            // UDP endpoints of the gateway
	stun      bool           // there are STUN servers
	asked     bool           // and they have been asked
	ours      nat.Finding    // what they said to us
	theirs    nat.Kind       // and to the gateway
	// refused is what our candidates met with in the API.
	refused error
	// hope says that the session may come to be by UDP. A gateway that has just
	// begun publishes its addresses one by one: once true, it stays.
	hope bool
}

// mayUDP says whether there is any way to UDP.
func (o outlook) mayUDP(st transport.GatewayStatus) bool {
	return o.only != transport.APIServer && (o.stun || mayTurnUDP(st))
}

// worksByUDP says whether a path by UDP works, in use or not.
func worksByUDP(st transport.GatewayStatus) bool {
	return slices.ContainsFunc(st.Paths, func(p transport.PathStatus) bool { return p.Kind == transport.UDP && p.Live })
}

// reason says why the session is where it is, "" when there is nothing to
// explain: by UDP, or as asked.
func reason(st transport.GatewayStatus, o outlook) string {
	switch st.Active.Kind {
	case transport.UDP:
		return ""
	case "":
		return "no path answers: " + failures(st)
	}
	if o.only == transport.APIServer {
		return ""
	}
	return string(transport.APIServer) + ": " + noUDP(st, o)
}

// noUDP says why there is no UDP path, the likeliest thing to do something about
// first.
func noUDP(st transport.GatewayStatus, o outlook) string {
	silent := ""
	for _, p := range st.Paths {
		if p.Kind != transport.UDP {
			continue
		}
		if p.Live && !p.Suspect {
			return "faster than UDP to " + p.Remote
		}
		if silent == "" {
			silent = "UDP to " + p.Remote + " not answered"
			if p.LastError != nil && !errors.Is(p.LastError, transport.ErrNotAnswered) {
				silent = "UDP to " + p.Remote + ": " + p.LastError.Error()
			}
		}
	}
	switch {
	case o.published == 0 && !o.stun:
		return "no UDP endpoint is published and no STUN server is configured"
	case o.stun && o.refused != nil:
		return "our addresses could not be written for the gateway: " + o.refused.Error()
	case o.stun && o.asked && len(o.ours.Mapped) == 0:
		return join(silent, "no STUN server answers")
	case o.stun && o.ours.Kind == nat.Dependent:
		return join("the NAT in front of this machine gives every destination another port (symmetric)", silent)
	case o.stun && o.theirs == nat.Dependent:
		return join("the NAT in front of the gateway gives every destination another port (symmetric)", silent)
	case silent != "":
		return silent
	}
	return "the gateway has no UDP address yet"
}

func join(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
}

// failures says what became of each path.
func failures(st transport.GatewayStatus) string {
	var texts []string
	for _, p := range st.Paths {
		if text := failure(p); !slices.Contains(texts, text) && len(texts) < 4 {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 {
		return "the gateway has no address"
	}
	return strings.Join(texts, "; ")
}

func failure(p transport.PathStatus) string {
	name := string(p.Kind)
	if p.Kind == transport.UDP {
		name += " " + p.Remote
	}
	if p.LastError == nil {
		return name + " does not answer"
	}
	return name + ": " + p.LastError.Error()
}

// pathName names a path for people.
func pathName(p transport.PathStatus) string {
	switch p.Kind {
	case transport.UDP:
		return "udp " + p.Remote
	case "":
		return "none"
	}
	return string(p.Kind)
}

// hopeless is why waiting on has no point: every path there is was refused in a
// way that asking again does not change. nil: wait.
func hopeless(st transport.GatewayStatus) error {
	var why error
	for _, p := range st.Paths {
		var version transport.VersionError
		switch {
		case errors.As(p.LastError, &version):
			why = &localapi.Error{Code: localapi.CodeTooOld, Message: "the gateway speaks another version of the protocol: " + p.LastError.Error(),
				Hint: "install the same version on both sides: podnet version, podnet install"}
		case p.LastError != nil && isOver(p.LastError):
			why = p.LastError
		default:
			return nil
		}
	}
	return why
}

// describe is what a status says of the paths.
func describe(st transport.GatewayStatus, o outlook) localapi.Path {
	a := st.Active
	p := localapi.Path{Kind: string(a.Kind), Remote: a.Remote, Reason: reason(st, o), RTTMs: milliseconds(a.RTT), Others: []localapi.OtherPath{}}
	if !a.Since.IsZero() {
		since := a.Since.Round(time.Millisecond)
		p.Since = &since
	}
	if a.Kind == transport.UDP && a.Datagram > overhead {
		p.MTU = a.Datagram - overhead
	}
	for _, other := range st.Paths {
		p.Redials += other.Redials
		if a.Kind != "" && other.Kind == a.Kind && other.Remote == a.Remote {
			continue
		}
		l := localapi.OtherPath{Kind: string(other.Kind), Remote: other.Remote, Live: other.Live, RTTMs: milliseconds(other.RTT)}
		switch {
		case other.Live:
		case other.LastError != nil:
			l.Error = other.LastError.Error()
		default:
			l.Error = "not answered"
		}
		p.Others = append(p.Others, l)
	}
	slices.SortStableFunc(p.Others, func(a, b localapi.OtherPath) int { return cmp.Compare(btoi(b.Live), btoi(a.Live)) })
	return p
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
