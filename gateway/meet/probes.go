// Package meet has a gateway and its peers find each other by UDP: whose probes are
// answered, where NATs are asked to let a peer through, and how the cluster's NAT shows
// the gateway to the world. The peer chooses the path.
package meet

import (
	"log/slog"
	"net/netip"
	"slices"

	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
)

// Paths is what a gateway can do about paths.
type Paths interface {
	// Answer makes the probes made with these keys be answered, and no others.
	Answer([]probe.Key)
	// Punch pings the places where a peer may be, so that NATs let it through,
	// until UDP works; none ends it.
	Punch(probe.ID, []netip.AddrPort)
}

// Prober tells the paths who may probe, and where peers that hide behind a NAT
// say that they are.
type Prober struct {
	private key.Private
	paths   Paths
	log     *slog.Logger

	known map[key.Public]*caller
}

// NewProber makes one of the gateway with this key, which knows nobody.
func NewProber(private key.Private, paths Paths, log *slog.Logger) *Prober {
	return &Prober{private: private, paths: paths, log: log, known: map[key.Public]*caller{}}
}

// caller is an admitted peer that may probe.
type caller struct {
	key        probe.Key
	sane       bool // it has a key; a hostile public key has none
	candidates []string
}

// Invitation is what an admitted peer says of itself.
type Invitation struct {
	Key        key.Public
	Candidates []string
}

// Set makes exactly these peers' probes be answered, and those places pinged
// where they may be by UDP. outside tells which addresses may be sent to.
func (p *Prober) Set(peers []Invitation, outside func(netip.Addr) bool) {
	changed := false
	present := make(map[key.Public]bool, len(peers))
	for _, in := range peers {
		present[in.Key] = true
		if p.known[in.Key] != nil {
			continue
		}
		k, err := probe.NewKey(p.private, in.Key)
		if err != nil {
			p.log.Warn("a peer cannot be probed", "key", in.Key, "err", err)
		}
		p.known[in.Key] = &caller{key: k, sane: err == nil}
		changed = true
	}
	for k, c := range p.known {
		if !present[k] {
			p.invite(c, nil, outside)
			delete(p.known, k)
			changed = true
		}
	}
	if changed {
		p.paths.Answer(p.keys())
	}
	for _, in := range peers {
		p.invite(p.known[in.Key], in.Candidates, outside)
	}
}

// invite pings a peer where it says it is, which takes a word only when it says
// something new.
func (p *Prober) invite(c *caller, candidates []string, outside func(netip.Addr) bool) {
	if c.sane && !slices.Equal(c.candidates, candidates) {
		c.candidates = candidates
		p.paths.Punch(c.key.ID(), harmless(candidates, outside))
	}
}

func (p *Prober) keys() []probe.Key {
	var all []probe.Key
	for _, c := range p.known {
		if c.sane {
			all = append(all, c.key)
		}
	}
	return all
}

// IDs are the names by which LastProbe knows the peers.
func (p *Prober) IDs() []probe.ID {
	all := make([]probe.ID, 0, len(p.known))
	for _, c := range p.known {
		if c.sane {
			all = append(all, c.key.ID())
		}
	}
	return all
}

// ID is the name by which LastProbe knows a peer; the zero ID is nobody's.
func (p *Prober) ID(k key.Public) (id probe.ID) {
	if c := p.known[k]; c != nil && c.sane {
		id = c.key.ID()
	}
	return id
}

const (
	// maxCandidates is how many places of a peer are pinged, as many as the
	// Peer's schema takes.
	maxCandidates = 16
	// leastPort keeps pings away from the services of the old internet; a laptop
	// sends from above.
	leastPort = 1024
)

// harmless picks from what a peer says the addresses where a laptop may be and
// nothing else is that we know of.
func harmless(candidates []string, outside func(netip.Addr) bool) []netip.AddrPort {
	var all []netip.AddrPort
	for _, text := range candidates[:min(len(candidates), maxCandidates)] {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if at.Port() >= leastPort && at.Addr().IsGlobalUnicast() && outside(at.Addr()) && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}
