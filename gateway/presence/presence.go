// Package presence tells which peers are with this gateway, by what its tunnel knows.
package presence

import (
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

const (
	// fresh is how old a laptop's handshake with us may be while we are the
	// way to it: WireGuard makes a new one every 120 s, and gives up after 180.
	fresh = 180 * time.Second
	// Poll is how often handshakes are looked at while anybody wants to know.
	Poll = time.Second
)

// NewTicker makes a ticker that rests until Follow has it tick.
func NewTicker() *time.Ticker {
	t := time.NewTicker(Poll)
	t.Stop()
	return t
}

// Follow has a ticker tick each Poll from now on if somebody wants to know, else rest:
// a gateway where nobody does is not woken for it.
func Follow(t *time.Ticker, wanted bool) {
	if wanted {
		t.Reset(Poll)
	} else {
		t.Stop()
	}
}

// Peers are those of a tunnel.
type Peers map[key.Public]tunnel.PeerStats

// Of finds peers.
func Of(peers []tunnel.PeerStats) Peers {
	known := make(Peers, len(peers))
	for _, p := range peers {
		known[p.PublicKey] = p
	}
	return known
}

// Here reports whether a laptop is with us.
func (p Peers) Here(laptop key.Public, now time.Time) bool {
	last := p[laptop].LastHandshake
	return !last.IsZero() && now.Sub(last) < fresh
}
