package gateway

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

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/presence"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
)

// countsEvery is how often a rule's counts are written at most.
const countsEvery = 5 * time.Second

// steerer keeps ties, agents and what agents are told in step with what package
// steering plans. The admitter drives it; run watches the tunnel meanwhile.
type steerer struct {
	log     *slog.Logger
	self    key.Public
	own     []netip.AddrPort // where pods reach us by UDP
	book    *steering.Book
	server  *steering.Server
	stats   func() ([]tunnel.PeerStats, error)
	relay   func(func(*packet.Packet) bool)
	exits   func(map[netip.Addr]forward.Exit)
	exit    func(steering.Egress) forward.Exit
	changed func() // asks for another look

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

func newSteerer(log *slog.Logger, self key.Public, own []netip.AddrPort, keep time.Duration) *steerer {
	s := &steerer{log: log, self: self, own: own, book: steering.NewBook(keep), counted: map[string]time.Time{}, since: map[string]time.Time{}}
	s.server = steering.NewServer(log, s.allGateways)
	s.fresh.Store(&map[netip.Addr]bool{})
	return s
}

// steered is what the steerer makes of a look at the world.
type steered struct {
	plan   steering.Plan
	agents []steering.Agent         // for the tunnel, each key once
	leases map[string]time.Duration // of Peers by name
}

// look plans. Nothing has changed yet when it returns.
func (s *steerer) look(now time.Time, w world.Snapshot, c enrol.World, admitted []enrol.Admitted) steered {
	laptops, leases := w.Laptops(admitted)
	world := steering.World{
		Rules: make([]steering.Object, len(w.Rules)), Laptops: laptops,
		PolicyHolds: c.PolicyHolds, Connected: c.Connected,
		PodAddrs: func(uid string) []netip.Addr { return w.Pods[uid] },
		Connects: func(agent key.Public, uid string) bool {
			r, ok := s.server.Report(agent)
			return ok && r.PodUID == uid
		},
	}
	for i, r := range w.Rules {
		world.Rules[i] = r.Rule
	}
	taken := map[netip.Addr]bool{s.self.Address6(): true, Service6: true}
	for _, p := range admitted {
		taken[p.Address6] = true
	}
	out := steered{plan: s.book.Plan(now, world), leases: leases}
	for _, a := range out.plan.Agents {
		// A user may write any key; it must not be in anybody's way. A key may
		// also be there for two pods.
		at := a.Key.Address6()
		if taken[at] || a.Key.IsZero() {
			continue
		}
		taken[at] = true
		out.agents = append(out.agents, a)
	}
	return out
}

// leave has the flows of who sends as a pod leave from there, or not at all. It is
// called before the tunnel has the peers of the plan: not a packet of theirs may
// leave as the gateway's.
func (s *steerer) leave(p steered, admitted []enrol.Admitted) {
	by := make(map[string]steering.Egress, len(p.plan.Egress))
	for _, e := range p.plan.Egress {
		by[e.Peer] = e
	}
	exits := map[netip.Addr]forward.Exit{}
	for _, l := range admitted {
		egress, elsewhere := by[l.Name]
		if !elsewhere {
			continue
		}
		for _, a := range addresses(l) {
			exits[a] = nil
			if egress.Agent.IsValid() {
				exits[a] = s.exit(egress)
			}
		}
	}
	s.exits(exits)
}

// act makes the plan count, once the tunnel has the peers for it.
func (s *steerer) act(p steered, w world.Snapshot, admitted []enrol.Admitted) {
	in := make(map[key.Public]bool, len(p.agents))
	for _, a := range p.agents {
		in[a.Key] = true
	}
	laptops := make([]key.Public, len(admitted))
	for i, l := range admitted {
		laptops[i] = l.Key
	}
	gateways := gatewaysFor(w, control.Gateway{PublicKey: s.self, Endpoints: s.own})
	s.gateways.Store(&gateways)

	s.mu.Lock()
	defer s.mu.Unlock()
	p.plan.Agents = slices.DeleteFunc(slices.Clone(p.plan.Agents), func(a steering.Agent) bool { return !in[a.Key] })
	s.plan, s.laptops = p.plan, laptops
	s.settleLocked(true)
}

// settleLocked has ties and agents follow from the plan, which may be a new one,
// and from where everybody is now.
func (s *steerer) settleLocked(replanned bool) {
	fresh, before := map[netip.Addr]bool{}, s.strange
	s.places, s.strange = map[netip.Addr]string{}, map[agentOfPod]bool{}
	if len(s.plan.Agents) > 0 {
		peers, err := s.stats()
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
			s.relay(table.claims)
		} else {
			s.relay(nil)
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
func (s *steerer) here(laptop netip.Addr) bool { return (*s.fresh.Load())[laptop] }

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

// run watches, until ctx ends, where agents and laptops are while there are
// agents, and asks for a look when an agent has something new to report.
func (s *steerer) run(ctx context.Context) error {
	tick := time.NewTicker(presence.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.server.Changed():
			s.changed()
		case <-tick.C:
			s.poll()
		}
	}
}

func (s *steerer) poll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.plan.Agents) == 0 {
		return
	}
	before := s.strange
	s.settleLocked(false)
	if !maps.Equal(before, s.strange) {
		s.changed()
	}
}

// serve lets agents in at l until ctx ends.
func (s *steerer) serve(ctx context.Context, l net.Listener) error {
	return s.server.Serve(ctx, located{l, s})
}

// located looks where an agent sends from before it is told anything.
type located struct {
	net.Listener
	s *steerer
}

func (l located) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.s.locate(c.RemoteAddr())
	}
	return c, err
}

func (s *steerer) locate(who net.Addr) {
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
func (s *steerer) allGateways() []control.Gateway {
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
