// Package keep keeps ties, agents and what agents are told in step with what package
// steering plans, and tells in the status of rules what became of them.
package keep

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/presence"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
)

// countsEvery is how often a rule's counts are written at most.
const countsEvery = 5 * time.Second

// Config is what a Keeper must be told: which gateway's it is, and what it drives.
type Config struct {
	Self        key.Public
	Own         []netip.AddrPort // where pods reach us by UDP
	Reserved    netip.Addr       // of the tunnel's, that can be nobody's
	Pod, PodUID string
	Keep        time.Duration // see steering.NewBook
	Log         *slog.Logger
	Write       Writer
	Stats       func() ([]tunnel.PeerStats, error)
	Relay       func(func(*packet.Packet) bool)
	Exits       func(map[netip.Addr]forward.Exit)
	Exit        func(steering.Egress) forward.Exit
	// Changed asks for another look.
	Changed func()
}

// Writer takes what is to be written, as write.Writer does.
type Writer interface {
	Status(ctx context.Context, key string, patches ...write.Patch)
	Remove(context.Context, client.Object)
}

// Keeper keeps what one gateway has of steering. Look, Leave, Act and Report are for one
// goroutine; Run watches the tunnel meanwhile.
type Keeper struct {
	o      Config
	log    *slog.Logger
	book   *steering.Book
	server *steering.Server
	tick   *time.Ticker // while there are agents

	// By a rule's UID: when its counts were written, and since when its status and
	// what we know are at odds.
	counted, since map[string]time.Time

	fresh    atomic.Pointer[map[netip.Addr]bool] // relay addresses of the laptops that are with us
	gateways atomic.Pointer[[]control.Gateway]

	mu      sync.Mutex
	plan    steering.Plan // without agents that the tunnel does not take
	laptops []key.Public
	places  map[netip.Addr]string // by an agent's tunnel address: where it sends from
	strange map[agentOfPod]bool   // agents that are not where their pod is
	ties    []steering.Tie        // those in force
}

// agentOfPod is an agent as a rule of a pod names it.
type agentOfPod struct {
	key key.Public
	pod string // UID
}

// New makes a Keeper. Run and Serve must be called to use it.
func New(o Config) *Keeper {
	s := &Keeper{o: o, log: o.Log, book: steering.NewBook(o.Keep), counted: map[string]time.Time{}, since: map[string]time.Time{}, tick: presence.NewTicker()}
	s.server = steering.NewServer(o.Log, s.allGateways)
	s.fresh.Store(&map[netip.Addr]bool{})
	return s
}

// Server is where agents say what they do.
func (s *Keeper) Server() *steering.Server { return s.server }

// Steered is what a Keeper makes of a look at the world.
type Steered struct {
	Plan   steering.Plan
	Agents []steering.Agent         // for the tunnel, each key once
	leases map[string]time.Duration // of Peers by name
}

// Look plans. Nothing has changed yet when it returns.
func (s *Keeper) Look(now time.Time, w world.Snapshot, c enrol.World, admitted []enrol.Admitted) Steered {
	laptops, leases := w.Laptops(admitted)
	seen := steering.World{
		Rules: make([]steering.Object, len(w.Rules)), Laptops: laptops,
		PolicyHolds: c.PolicyHolds, Connected: c.Connected,
		PodAddrs: func(uid string) []netip.Addr { return w.Pods[uid] },
		Connects: func(agent key.Public, uid string) bool {
			r, ok := s.server.Report(agent)
			return ok && r.PodUID == uid
		},
	}
	for i, r := range w.Rules {
		seen.Rules[i] = r.Rule
	}
	taken := map[netip.Addr]bool{s.o.Self.Address6(): true, s.o.Reserved: true}
	for _, p := range admitted {
		taken[p.Address6] = true
	}
	out := Steered{Plan: s.book.Plan(now, seen), leases: leases}
	for _, a := range out.Plan.Agents {
		// A user may write any key; it must not be in anybody's way. A key may
		// also be there for two pods.
		at := a.Key.Address6()
		if taken[at] || a.Key.IsZero() {
			continue
		}
		taken[at] = true
		out.Agents = append(out.Agents, a)
	}
	return out
}

// Leave has the flows of who sends as a pod leave from there, or not at all. It is
// called before the tunnel has the peers of the plan: not a packet of theirs may
// leave as the gateway's.
func (s *Keeper) Leave(p Steered, admitted []enrol.Admitted) {
	by := make(map[string]steering.Egress, len(p.Plan.Egress))
	for _, e := range p.Plan.Egress {
		by[e.Peer] = e
	}
	exits := map[netip.Addr]forward.Exit{}
	for _, l := range admitted {
		egress, elsewhere := by[l.Name]
		if !elsewhere {
			continue
		}
		for _, a := range l.Addresses() {
			exits[a] = nil
			if egress.Agent.IsValid() {
				exits[a] = s.o.Exit(egress)
			}
		}
	}
	s.o.Exits(exits)
}

// Act makes the plan count, once the tunnel has the peers for it.
func (s *Keeper) Act(p Steered, w world.Snapshot, admitted []enrol.Admitted) {
	in := make(map[key.Public]bool, len(p.Agents))
	for _, a := range p.Agents {
		in[a.Key] = true
	}
	laptops := make([]key.Public, len(admitted))
	for i, l := range admitted {
		laptops[i] = l.Key
	}
	gateways := gatewaysFor(w, control.Gateway{PublicKey: s.o.Self, Endpoints: s.o.Own})
	s.gateways.Store(&gateways)

	s.mu.Lock()
	defer s.mu.Unlock()
	p.Plan.Agents = slices.DeleteFunc(slices.Clone(p.Plan.Agents), func(a steering.Agent) bool { return !in[a.Key] })
	if wanted := len(p.Plan.Agents) > 0; wanted != (len(s.plan.Agents) > 0) {
		presence.Follow(s.tick, wanted)
	}
	s.plan, s.laptops = p.Plan, laptops
	s.settleLocked(true)
}

// settleLocked has ties and agents follow from the plan, which may be a new one,
// and from where everybody is now.
func (s *Keeper) settleLocked(replanned bool) {
	fresh, before := map[netip.Addr]bool{}, s.strange
	s.places, s.strange = map[netip.Addr]string{}, map[agentOfPod]bool{}
	if len(s.plan.Agents) > 0 {
		peers, err := s.o.Stats()
		if err != nil {
			return // the tunnel is closing
		}
		now, known := time.Now(), presence.Of(peers)
		for _, l := range s.laptops {
			if known.Here(l, now) {
				fresh[l.RelayAddress6()] = true
			}
		}
		for _, a := range s.plan.Agents {
			if at := known[a.Key].Endpoint; at != "" {
				s.places[a.Key.Address6()] = at
				one := agentOfPod{a.Key, a.PodUID}
				if s.strange[one] = elsewhere(at, a.Addrs); s.strange[one] && !before[one] {
					s.log.Warn("agent sends from elsewhere", "addr", at, "key", a.Key, "pod", a.Namespace+"/"+a.Pod, "addrs", a.Addrs)
				}
			}
		}
	}
	agents := slices.DeleteFunc(slices.Clone(s.plan.Agents), func(a steering.Agent) bool { return s.strange[agentOfPod{a.Key, a.PodUID}] })
	if ties := tiesOf(s.plan.Ties, agents); !slices.Equal(ties, s.ties) {
		s.ties = ties
		if table := newTies(ties); table != nil {
			s.o.Relay(table.claims)
		} else {
			s.o.Relay(nil)
		}
	}
	old := s.fresh.Swap(&fresh)
	switch {
	case replanned || !maps.Equal(before, s.strange):
		s.server.SetAgents(agents, s.here) // which looks at here as well
	case !maps.Equal(*old, fresh):
		s.server.Rehere()
	}
}

// here reports whether the laptop with this relay address is with us.
func (s *Keeper) here(laptop netip.Addr) bool { return (*s.fresh.Load())[laptop] }

// elsewhere reports whether an endpoint of the tunnel is none of the addresses,
// as far as those of its family are known: EndpointSlices name those of the
// families that a Service has. What has no address, as a stream has none, is
// elsewhere.
func elsewhere(endpoint string, addrs []netip.Addr) bool {
	if len(addrs) == 0 {
		return false
	}
	at, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return true
	}
	a := at.Addr().Unmap()
	comparable := slices.ContainsFunc(addrs, func(known netip.Addr) bool { return known.Is4() == a.Is4() })
	return comparable && !slices.Contains(addrs, a)
}

// tiesOf drops the ties that none of these agents has a rule for.
func tiesOf(all []steering.Tie, agents []steering.Agent) []steering.Tie {
	type way struct{ agent, laptop netip.Addr }
	ways := map[way]map[uint16]bool{}
	for _, a := range agents {
		for _, r := range a.Rules {
			w := way{a.Key.Address6(), r.Laptop}
			if ways[w] == nil {
				ways[w] = map[uint16]bool{control.LivePort: true}
			}
			ways[w][r.RelayPort] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(t steering.Tie) bool { return !ways[way{t.Agent, t.Laptop}][t.Port] })
}

// Run watches, until ctx ends, where agents and laptops are while there are
// agents, and asks for a look when an agent has something new to report.
func (s *Keeper) Run(ctx context.Context) error {
	defer s.tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.server.Changed():
			s.o.Changed()
		case <-s.tick.C:
			s.poll()
		}
	}
}

func (s *Keeper) poll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.plan.Agents) == 0 {
		return
	}
	before := s.strange
	s.settleLocked(false)
	if !maps.Equal(before, s.strange) {
		s.o.Changed()
	}
}

// Serve lets agents in at l until ctx ends.
func (s *Keeper) Serve(ctx context.Context, l net.Listener) error {
	return s.server.Serve(ctx, located{l, s})
}

// located looks where an agent sends from before it is told anything.
type located struct {
	net.Listener
	s *Keeper
}

func (l located) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.s.locate(c.RemoteAddr())
	}
	return c, err
}

func (s *Keeper) locate(who net.Addr) {
	at, err := netip.ParseAddrPort(who.String())
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := slices.ContainsFunc(s.plan.Agents, func(a steering.Agent) bool { return a.Key.Address6() == at.Addr() })
	if ours && s.places[at.Addr()] == "" {
		s.settleLocked(false)
	}
}

// allGateways are what agents are told of.
func (s *Keeper) allGateways() []control.Gateway {
	if all := s.gateways.Load(); all != nil {
		return *all
	}
	return nil
}

// gatewaysFor are the gateways that Peers know, and own, in the order of their
// keys.
func gatewaysFor(w world.Snapshot, own control.Gateway) []control.Gateway {
	all, seen := map[key.Public]control.Gateway{own.PublicKey: own}, map[string]bool{}
	for _, p := range w.Peers {
		for _, g := range p.Object.Status.Gateways {
			if seen[g.PublicKey] {
				continue
			}
			if k, ok := liveGateway(w, g); ok && k != own.PublicKey {
				seen[g.PublicKey] = true
				all[k] = control.Gateway{PublicKey: k, Endpoints: world.AddrPorts(g.ClusterEndpoints)}
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b control.Gateway) int { return slices.Compare(a.PublicKey[:], b.PublicKey[:]) })
}

// liveGateway reads the key of an entry of a Peer's status, unless the gateway is
// going, gone, or nowhere to be reached from a pod.
func liveGateway(w world.Snapshot, g podnet.Gateway) (key.Public, bool) {
	k, err := key.ParsePublic(g.PublicKey)
	gone := w.Gateways != nil && w.Gateways[g.Pod] != g.PodUID
	return k, err == nil && !gone && !g.Draining && len(g.ClusterEndpoints) > 0
}
