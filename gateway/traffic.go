package gateway

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

// route is a way of bytes: whose, by which path, in which direction. The user of
// agents is "".
type route struct {
	user, path string
	up         bool // from the peer
}

func (r route) direction() string {
	if r.up {
		return "up"
	}
	return "down"
}

// device is whose a key is, and the name of its Peer.
type device struct{ user, peer string }

// traffic adds up what WireGuard's counters say, which go away with each peer, and
// tells where peers come from.
type traffic struct {
	log *slog.Logger

	mu     sync.Mutex
	owners map[key.Public]device
	last   map[key.Public]tunnel.PeerStats
	sums   map[route]uint64
	seen   map[string]time.Time // users
}

func newTraffic(log *slog.Logger) *traffic {
	return &traffic{log: log, owners: map[key.Public]device{}, last: map[key.Public]tunnel.PeerStats{}, sums: map[route]uint64{}, seen: map[string]time.Time{}}
}

// run reads the counters until ctx ends.
func (t *traffic) run(ctx context.Context, stats func() ([]tunnel.PeerStats, error)) error {
	for wake.After(ctx, trafficEvery) {
		if peers, err := stats(); err == nil { // or the tunnel is closing
			t.add(peers)
		}
	}
	return nil
}

// setOwners says whose the keys are. Those of nobody are agents'.
func (t *traffic) setOwners(owners map[key.Public]device) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners = owners
}

// add takes note of counters. A counter that is less than it was has begun anew.
func (t *traffic) add(peers []tunnel.PeerStats) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[key.Public]tunnel.PeerStats, len(peers))
	for _, p := range peers {
		next[p.PublicKey] = p
		old := t.last[p.PublicKey]
		owner, path := t.owners[p.PublicKey], agentPath
		if owner.user != "" {
			path = string(transport.EndpointKind(p.Endpoint))
		}
		if path == "" { // no word from it yet
			continue
		}
		if owner.user != "" && whereabouts(p.Endpoint) != whereabouts(old.Endpoint) {
			t.log.Info("peer's path", "peer", owner.peer, "user", owner.user, "path", path, "from", p.Endpoint)
		}
		if p.RxBytes < old.RxBytes || p.TxBytes < old.TxBytes {
			old = tunnel.PeerStats{}
		}
		t.sums[route{owner.user, path, true}] += p.RxBytes - old.RxBytes
		t.sums[route{owner.user, path, false}] += p.TxBytes - old.TxBytes
	}
	t.last = next
	for _, o := range t.owners {
		t.seen[o.user] = now
	}
	for user, last := range t.seen {
		if now.Sub(last) > trafficKept {
			delete(t.seen, user)
			maps.DeleteFunc(t.sums, func(r route, _ uint64) bool { return r.user == user })
		}
	}
}

func (t *traffic) totals() map[route]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.sums)
}

// devices are how many each user has.
func (t *traffic) devices() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string]int{}
	for _, o := range t.owners {
		all[o.user]++
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
