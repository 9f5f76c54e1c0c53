package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/audit"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/exposure"
	expose "podnet.dev/gateway/exposure/keep"
	"podnet.dev/gateway/fronts"
	"podnet.dev/gateway/guard"
	"podnet.dev/gateway/meet"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/presence"
	"podnet.dev/gateway/steering"
	steer "podnet.dev/gateway/steering/keep"
	"podnet.dev/gateway/usage"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/key"
	"podnet.dev/internal/overview"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/remap"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/wake"
)

// gather is how long events are gathered at least before they are acted on: a
// connect writes several objects at once. mostGather bounds what that becomes
// when a look takes long; whoever is deleted must be out within 2 s.
const (
	gather     = 10 * time.Millisecond
	mostGather = 500 * time.Millisecond
)

// lookAgain bounds the time between two looks at the world, and so how old the
// heartbeat of a healthy gateway gets.
const lookAgain = 10 * time.Second

// admitter keeps tunnel, policy and status in step with what enrol plans. The
// fields below are what it drives.
type admitter struct {
	log    *slog.Logger
	world  *world.World
	guard  *guard.Guard
	leader *leadership
	client client.Client
	write  *write.Writer
	book   *enrol.Book
	self   key.Public
	entry  podnet.Gateway // ours; endpoints are the world's
	paths  paths
	probes *meet.Prober
	mapped *meet.Reflector
	steer  *steer.Keeper
	expose *expose.Keeper
	fronts *fronts.Fronts

	audit   *audit.Audit
	limited *usage.Limited
	traffic *usage.Traffic
	stats   func() ([]tunnel.PeerStats, error)
	moved   presence.Peers // at the last change of who is admitted

	setPeers  func([]tunnel.Peer) error
	setMaps   func(map[netip.Addr]remap.Map)
	closePeer func(netip.Addr)
	setOwners func(map[netip.Addr]string)
	recheck   func()
	mayBegin  func() bool // caches are synced and policy has been published

	shown     atomic.Pointer[[]overview.Peer] // to administrators
	heartbeat atomic.Int64                    // unix seconds of the last look
	counts    atomic.Pointer[counts]
	draining  atomic.Bool
	elsewhere atomic.Bool                // some admitted peer knows another gateway
	ids       atomic.Pointer[[]probe.ID] // of the admitted

	admitted []enrol.Admitted // what tunnel and policy were last told
	agents   []key.Public     // and of agents, the tunnel
	told     bool             // they were told anything
	absent   absences
}

// counts are for metrics: objects by reason.
type counts struct {
	peers     map[string]int
	accesses  map[string]int
	rules     map[string]int
	exposures map[string]int
}

// run looks at the world whenever it changes or time has passed, until ctx ends.
func (a *admitter) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	took := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-a.world.PeersChanged:
			// With a thousand peers somebody renews all the time; leave nine
			// tenths of the time to others.
			if !wake.After(ctx, max(gather, min(9*took, mostGather))) {
				return nil
			}
		}
		now := time.Now()
		a.heartbeat.Store(now.Unix())
		wait := lookAgain
		if !a.mayBegin() {
			wait = 50 * time.Millisecond
		} else if next := a.look(ctx, now); !next.IsZero() {
			// A little late rather than a little early.
			wait = min(wait, max(0, next.Sub(now))+time.Millisecond)
		}
		took = time.Since(now)
		timer.Reset(wait)
	}
}

// look acts on the world as it is and returns when to look again.
func (a *admitter) look(ctx context.Context, now time.Time) time.Time {
	s := a.world.Snapshot()
	w := s.Enrolment()
	w.PolicyHolds, w.Connected, w.Leader = a.guard.Holds(), !a.guard.Away(), a.leader.leads.Load()
	plan := a.book.Plan(now, w)
	// Nobody has our key but us: who says so would spoil the tunnel for all.
	plan.Admitted = slices.DeleteFunc(plan.Admitted, func(p enrol.Admitted) bool { return p.Key == a.self })
	a.fronts.Judge(&s, w.Leader)
	steered := a.steer.Look(now, s, w, plan.Admitted)
	a.steer.Leave(steered, plan.Admitted)
	maps := mappings(s)
	a.setMaps(mapsOf(plan.Admitted, maps))
	a.enforce(plan.Admitted, steered.Agents)
	a.steer.Act(steered, s, plan.Admitted)

	author := author{entry: a.entry, network: s.Network, maps: maps, leads: w.Leader, now: now}
	a.write.Clear("Peer", ".status.network", &author.network)
	author.entry.Endpoints, author.entry.Draining = s.Endpoints, a.draining.Load()
	a.mapped.Describe(&author.entry)
	in := make(map[string]bool, len(plan.Admitted))
	for _, p := range plan.Admitted {
		in[p.UID] = true
	}
	a.invite(s, author, in)
	exposed := a.expose.Look(now, s, w, plan.Admitted)
	a.count(plan, steered.Plan, exposed.Plan)
	at := a.limited.Look(now)
	a.audit.Look(s, plan, steered.Plan)
	a.show(s, plan, steered.Plan, at)
	for i, p := range s.Peers {
		author.entry.Limits = at[p.Peer.User]
		a.write.Clear("Peer", ".status.gateways", &author.entry)
		entry := author.entryPatch(p.Object, in[p.Peer.UID])
		shared := author.sharedPatch(p.Object, plan.Peers[i])
		a.apply(ctx, "peer/"+p.Peer.UID, entry, shared)
	}
	for i, o := range s.Accesses {
		a.apply(ctx, "access/"+o.Access.UID, nil, author.accessPatch(o.Object, plan.Accesses[i]))
	}
	led := a.fronts.Follow(ctx, now, s, steered.Plan.Verdicts, w.Leader)
	disputed := a.steer.Report(ctx, now, w.Leader, steered, s, func(r world.Rule) (fronts.Standing, bool) {
		return a.fronts.Standing(now, types.UID(r.Rule.PodUID), s.Services)
	})
	if a.draining.Load() {
		exposed.Ready = nil // nobody new is sent to a gateway that stops
	}
	a.expose.Report(ctx, now, w.Leader, exposed, s)
	next := wake.Earlier(wake.Earlier(plan.Next, steered.Plan.Next), a.absent.note(now, s.Peers, s.Gateways))
	next = wake.Earlier(wake.Earlier(wake.Earlier(next, exposed.Plan.Next), disputed), led)
	if w.Leader {
		a.sweep(ctx, now, s.Peers)
		for _, i := range plan.DeletePeers {
			a.write.Remove(ctx, s.Peers[i].Object)
		}
		for _, i := range plan.DeleteAccesses {
			a.write.Remove(ctx, s.Accesses[i].Object)
		}
	}
	if !a.told {
		next = wake.Earlier(next, now.Add(time.Second))
	}
	return next
}

// invite lets the admitted probe us, and notes what a drain has to know.
func (a *admitter) invite(s world.Snapshot, own author, in map[string]bool) {
	var all []meet.Invitation
	elsewhere := false
	for _, p := range s.Peers {
		if in[p.Peer.UID] {
			all = append(all, meet.Invitation{Key: p.Peer.Key, Candidates: p.Object.Spec.Candidates})
			elsewhere = elsewhere || own.elsewhere(p.Object)
		}
	}
	a.probes.Set(all, s.Outside)
	a.elsewhere.Store(elsewhere)
	ids := a.probes.IDs()
	a.ids.Store(&ids)
}

// sweep takes gateways that are gone off the Peers.
func (a *admitter) sweep(ctx context.Context, now time.Time, peers []world.Peer) {
	for _, p := range peers {
		for _, g := range p.Object.Status.Gateways {
			if g.Pod != a.entry.Pod && a.absent.gone(now, g) {
				a.write.Status(ctx, "gone/"+g.Pod+"/"+p.Peer.UID, write.Patch{Manager: g.Pod, Object: sweepPatch(p.Object)})
			}
		}
	}
}

// enforce makes tunnel and policy admit exactly these. Whoever is out loses
// policy first, then the tunnel, then the open flows. Agents are in the tunnel,
// and may reach nothing by policy.
func (a *admitter) enforce(admitted []enrol.Admitted, agents []steering.Agent) {
	keys := make([]key.Public, len(agents))
	for i, one := range agents {
		keys[i] = one.Key
	}
	if a.told && slices.EqualFunc(admitted, a.admitted, sameAdmitted) && slices.Equal(keys, a.agents) {
		return
	}
	grants := make([]policy.Grant, len(admitted))
	peers := make([]tunnel.Peer, len(admitted), len(admitted)+len(agents))
	in := make(map[netip.Addr]bool, 2*len(admitted))
	for i, p := range admitted {
		addrs := p.Addresses()
		grants[i] = policy.Grant{Addrs: addrs, Namespaces: p.Namespaces, Cluster: p.Cluster, Routes: p.Routes, Domains: p.Domains}
		peers[i] = tunnel.Peer{PublicKey: p.Key}
		for _, ip := range addrs {
			in[ip] = true
			peers[i].AllowedIPs = append(peers[i].AllowedIPs, netip.PrefixFrom(ip, ip.BitLen()))
		}
		relay := p.Key.RelayAddress6() // where agents reach it, and from where it answers
		peers[i].AllowedIPs = append(peers[i].AllowedIPs, netip.PrefixFrom(relay, relay.BitLen()))
	}
	for _, k := range keys {
		ip := k.Address6()
		peers = append(peers, tunnel.Peer{PublicKey: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}, Prompt: true})
	}
	a.account(admitted)
	a.setOwners(ownersOf(admitted))
	a.world.Policy.SetGrants(grants)
	if err := a.setPeers(peers); err != nil {
		// Policy has shut out whoever had to go; the rest is for the next look.
		a.log.Error("could not set the tunnel's peers", "err", err)
		a.told = false
	} else {
		a.told = true
	}
	for _, p := range a.admitted {
		for _, ip := range p.Addresses() {
			if !in[ip] {
				a.closePeer(ip)
			}
		}
	}
	a.recheck()
	a.tell(admitted)
	a.admitted, a.agents = admitted, keys
}

// account takes note of what those who are about to go have moved, and says whose
// the keys are from now on.
func (a *admitter) account(admitted []enrol.Admitted) {
	if peers, err := a.stats(); err == nil { // or the tunnel is closing
		a.traffic.Add(peers)
		a.moved = presence.Of(peers)
	}
	owners := make(map[key.Public]usage.Device, len(admitted))
	for _, p := range admitted {
		owners[p.Key] = usage.Device{User: p.User, Peer: p.Name}
	}
	a.traffic.SetOwners(owners)
}

// ownersOf says whose each address is.
func ownersOf(admitted []enrol.Admitted) map[netip.Addr]string {
	owners := make(map[netip.Addr]string, 2*len(admitted))
	for _, p := range admitted {
		for _, ip := range p.Addresses() {
			owners[ip] = p.User
		}
	}
	return owners
}

// live is how many peers are admitted.
func (a *admitter) live() int {
	if ids := a.ids.Load(); ids != nil {
		return len(*ids)
	}
	return 0
}

// tell logs who came and who went.
func (a *admitter) tell(admitted []enrol.Admitted) {
	before := make(map[string]enrol.Admitted, len(a.admitted))
	for _, p := range a.admitted {
		before[p.UID] = p
	}
	for _, p := range admitted {
		old, known := before[p.UID]
		delete(before, p.UID)
		switch {
		case !known:
			a.log.Info("peer admitted", "peer", p.Name, "user", p.User, "device", p.Device, "key", p.Key, "addr", p.Address4, "namespaces", p.Namespaces, "cluster", p.Cluster, "routes", p.Routes, "domains", p.Domains)
		case !sameAdmitted(old, p):
			a.log.Info("peer's access changed", "peer", p.Name, "user", p.User, "addr", p.Address4, "namespaces", p.Namespaces, "cluster", p.Cluster)
		}
	}
	for _, p := range before {
		t := a.moved[p.Key]
		a.log.Info("peer cut", "peer", p.Name, "user", p.User, "device", p.Device, "key", p.Key, "addr", p.Address4,
			"path", string(transport.EndpointKind(t.Endpoint)), "from", t.Endpoint, "up", t.RxBytes, "down", t.TxBytes)
	}
}

func sameAdmitted(a, b enrol.Admitted) bool {
	return a.UID == b.UID && a.Key == b.Key && a.Address4 == b.Address4 && a.Cluster == b.Cluster && slices.Equal(a.Namespaces, b.Namespaces) && a.Beyond.Equal(b.Beyond)
}

// apply writes an object's status: our own entry first, so that whoever waits for
// Ready finds a gateway there.
func (a *admitter) apply(ctx context.Context, key string, entry, shared *unstructured.Unstructured) {
	a.write.Status(ctx, key, write.Patch{Manager: a.entry.Pod, Object: entry}, write.Patch{Manager: write.Shared, Object: shared})
}

// retire takes this gateway off all Peers, as a laptop that is told so need not
// find out, and off the ways to exposed ports. ctx bounds it.
func (a *admitter) retire(ctx context.Context) {
	a.write.Idle() // what was wished before must not come after
	s := a.world.Snapshot()
	own := author{entry: a.entry}
	for _, p := range s.Peers {
		a.apply(ctx, "peer/"+p.Peer.UID, own.entryPatch(p.Object, false), nil)
	}
	a.expose.Retire(ctx, s)
	a.write.Close()
}

func (a *admitter) count(plan enrol.Plan, steered steering.Plan, exposed exposure.Plan) {
	c := &counts{peers: map[string]int{}, accesses: map[string]int{}, rules: map[string]int{}, exposures: map[string]int{}}
	for _, v := range plan.Peers {
		c.peers[reason(v)]++
	}
	for _, v := range plan.Accesses {
		c.accesses[reason(v)]++
	}
	for _, v := range steered.Verdicts {
		c.rules[v.Reason]++
	}
	for _, v := range exposed.Verdicts {
		c.exposures[v.Reason]++
	}
	a.counts.Store(c)
}

func reason(v enrol.Verdict) string {
	if v.Pending {
		return "Pending"
	}
	return v.Reason
}
