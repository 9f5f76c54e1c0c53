package gateway

import (
	"time"

	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/lease"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

const (
	// hereTime is how old a laptop's handshake with us may be while we are the
	// way to it: WireGuard makes a new one every 120 s, and gives up after 180.
	hereTime = 180 * time.Second
	// herePoll is how often handshakes are looked at while anybody wants to know.
	herePoll = time.Second
)

// laptopsOf are the laptops that are admitted, and the leases of all Peers by
// name.
func laptopsOf(w world.Snapshot, admitted []enrol.Admitted) ([]lease.Laptop, map[string]time.Duration) {
	leases := make(map[string]time.Duration, len(w.Peers))
	for _, p := range w.Peers {
		leases[p.Peer.Name] = p.Peer.Lease
	}
	laptops := make([]lease.Laptop, len(admitted))
	for i, p := range admitted {
		laptops[i] = lease.Laptop{Name: p.Name, User: p.User, Key: p.Key, Lease: leases[p.Name]}
	}
	return laptops, leases
}

// isHere reports whether a laptop is with us, by what the tunnel tells of it.
func isHere(p tunnel.PeerStats, now time.Time) bool {
	return !p.LastHandshake.IsZero() && now.Sub(p.LastHandshake) < hereTime
}

// byKey finds peers.
func byKey(peers []tunnel.PeerStats) map[key.Public]tunnel.PeerStats {
	known := make(map[key.Public]tunnel.PeerStats, len(peers))
	for _, p := range peers {
		known[p.PublicKey] = p
	}
	return known
}
