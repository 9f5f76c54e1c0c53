// Package usage tells what users make of a gateway: how much they move, by which paths,
// and at which of their limits they are. Keeping to limits is internal/forward's.
package usage

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/wake"
)

// trafficEvery is how often the tunnel's counters are read: what a peer moves
// between two looks counts for the path it uses at the second.
const trafficEvery = 5 * time.Second

// trafficKept is how long a user's sums are kept after the last device has left, so
// that who scrapes once a minute sees the last of them.
const trafficKept = time.Hour

// agentPath is the path in metrics of what goes to and from agents.
const agentPath = "agent"

// Route is a way of bytes: whose, by which path, in which direction. The user of
// agents is "".
type Route struct {
	User, Path string
	Up         bool // from the peer
}

// Direction is "up" or "down".
func (r Route) Direction() string {
	if r.Up {
		return "up"
	}
	return "down"
}

// Device is whose a key is, and the name of its Peer.
type Device struct{ User, Peer string }

// Traffic adds up what WireGuard's counters say, which go away with each peer, and
// tells where peers come from.
type Traffic struct {
	log *slog.Logger

	mu     sync.Mutex
	owners map[key.Public]Device
	last   map[key.Public]tunnel.PeerStats
	sums   map[Route]uint64
	seen   map[string]time.Time // users
}

// NewTraffic makes one of nothing.
func NewTraffic(log *slog.Logger) *Traffic {
	return &Traffic{log: log, owners: map[key.Public]Device{}, last: map[key.Public]tunnel.PeerStats{}, sums: map[Route]uint64{}, seen: map[string]time.Time{}}
}

// Run reads the counters until ctx ends.
func (t *Traffic) Run(ctx context.Context, stats func() ([]tunnel.PeerStats, error)) error {
	for wake.After(ctx, trafficEvery) {
		if peers, err := stats(); err == nil { // or the tunnel is closing
			t.Add(peers)
		}
	}
	return nil
}

// SetOwners says whose the keys are. Those of nobody are agents'.
func (t *Traffic) SetOwners(owners map[key.Public]Device) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners = owners
}

// Add takes note of counters. A counter that is less than it was has begun anew.
func (t *Traffic) Add(peers []tunnel.PeerStats) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[key.Public]tunnel.PeerStats, len(peers))
	for _, p := range peers {
		next[p.PublicKey] = p
		old := t.last[p.PublicKey]
		owner, path := t.owners[p.PublicKey], agentPath
		if owner.User != "" {
			path = string(transport.EndpointKind(p.Endpoint))
		}
		if path == "" { // no word from it yet
			continue
		}
		if owner.User != "" && whereabouts(p.Endpoint) != whereabouts(old.Endpoint) {
			t.log.Info("peer's path", "peer", owner.Peer, "user", owner.User, "path", path, "from", p.Endpoint)
		}
		if p.RxBytes < old.RxBytes || p.TxBytes < old.TxBytes {
			old = tunnel.PeerStats{}
		}
		t.sums[Route{owner.User, path, true}] += p.RxBytes - old.RxBytes
		t.sums[Route{owner.User, path, false}] += p.TxBytes - old.TxBytes
	}
	t.last = next
	for _, o := range t.owners {
		t.seen[o.User] = now
	}
	for user, last := range t.seen {
		if now.Sub(last) > trafficKept {
			delete(t.seen, user)
			maps.DeleteFunc(t.sums, func(r Route, _ uint64) bool { return r.User == user })
		}
	}
}

// Totals are the sums.
func (t *Traffic) Totals() map[Route]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.sums)
}

// Devices are how many each user has.
func (t *Traffic) Devices() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]int{}
	for _, o := range t.owners {
		all[o.User]++
	}
	return all
}

// whereabouts is where an endpoint is, whatever port a NAT gives it: an address, or the kind
// of a path that has none.
func whereabouts(endpoint string) string {
	kind := transport.EndpointKind(endpoint)
	if at, err := netip.ParseAddrPort(endpoint); err == nil && kind == transport.UDP {
		return at.Addr().String()
	}
	return string(kind)
}
