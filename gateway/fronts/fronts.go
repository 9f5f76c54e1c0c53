// Package fronts steers Services. It keeps a front in this gateway for each Service that
// has rules, where what the Service's clients send is decided, and what leads them
// there, in step with what package steering accepts. The leader does so; a gateway that
// led before serves on until its Services lead elsewhere. What is to be written for that
// is gateway/reroute's to plan.
package fronts

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/gateway/agent"
	"podnet.dev/gateway/front"
	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

const (
	// maxFronts bounds the Services that are steered at the same time, and as many
	// that were: each has a tunnel of its own, and some MiB for it.
	maxFronts = 32
	// takeOver is how long a front waits for its laptop before it takes a Service
	// over from another gateway's that may be alive.
	takeOver = 5 * time.Second
	// spread is how long after its slices a Service counts as steered everywhere:
	// kube-proxy writes its rules once a second by default.
	spread = 2 * time.Second
	// lingering is how long connections of a Service that is steered no more may
	// go on through the gateway.
	lingering = time.Hour
)

// Config is what Fronts must be told: which gateway's they are, and how they reach it.
type Config struct {
	Namespace, Pod, PodUID, Node string
	PodIPs                       []netip.Addr
	Client                       client.Client
	Write                        *write.Writer
	Log                          *slog.Logger
	// Self is the gateway as agents reach it.
	Self func() control.Gateway
	// Allow says whether a pod of the namespace is there.
	Allow func(namespace string, at netip.AddrPort) bool
	// Report is what an agent has told.
	Report func(key.Public) (steering.Report, bool)
	// Changed asks for another look.
	Changed func()
}

// Fronts are those of one gateway. Judge, Follow and Standing are for one goroutine.
type Fronts struct {
	o       Config
	log     *slog.Logger
	config  reroute.Config
	lead    func(context.Context, world.Service, reroute.Wish)
	rights  *rights
	life    context.Context // of what runs
	end     context.CancelFunc
	running sync.WaitGroup

	leaving atomic.Bool // nothing is steered any more
	busy    atomic.Bool // something of podnet's is left of some Service

	// Of Judge, Follow and Standing.
	all       map[types.UID]*fronted
	lingering []*fronted         // that were dropped, the oldest first
	overruled map[types.UID]bool // somebody has given these Services a selector while they were steered
	undecided map[types.UID]bool // it is not known yet whether these may be steered
}

// fronted is a Service with a front, or that may come to have one.
type fronted struct {
	key     key.Private
	pods    *front.Pods
	front   *agent.Front       // nil: it has none
	end     context.CancelFunc // ends the front, and what is open through it
	dead    *atomic.Bool       // the front has ended by itself
	began   time.Time
	settled time.Time // since when all clients are led to it; zero: they are not
	trouble string
}

// New makes Fronts. Run must be called to use them.
func New(o Config) *Fronts {
	f := &Fronts{
		o: o, log: o.Log, config: reroute.Config{Namespace: o.Namespace},
		rights: newRights(o.Client, o.Log, o.Namespace, o.Changed), all: map[types.UID]*fronted{}, overruled: map[types.UID]bool{}, undecided: map[types.UID]bool{},
	}
	f.lead = f.write
	f.life, f.end = context.WithCancel(context.Background())
	return f
}

// Run asks what this gateway may do, until ctx ends. Then it ends all fronts, and
// what is open through them.
func (f *Fronts) Run(ctx context.Context) error {
	f.rights.run(ctx)
	f.end()
	f.running.Wait()
	return nil
}

// Judge says of the rules for Services why they cannot be, and names their agents.
// Those of which it cannot be said yet are left out.
func (f *Fronts) Judge(s *world.Snapshot, leads bool) {
	clear(f.undecided)
	if !slices.ContainsFunc(s.Rules, world.Rule.Via) {
		clear(f.overruled)
		f.rights.want(nil)
		return
	}
	states, wanted := map[types.NamespacedName]reroute.State{}, map[types.UID]bool{}
	for _, one := range s.Services {
		states[one.Name] = one.State
	}
	rules := slices.Clone(s.Rules)
	slices.SortStableFunc(rules, func(a, b world.Rule) int {
		return cmp.Or(a.Rule.Created.Compare(b.Rule.Created), cmp.Compare(a.Rule.UID, b.Rule.UID))
	})
	s.Rules = rules[:0:0]
	namespaces := map[string]bool{}
	for _, r := range rules {
		if !r.Via() {
			s.Rules = append(s.Rules, r)
			continue
		}
		uid, ns := types.UID(r.Rule.PodUID), r.Rule.Namespace
		namespaces[ns] = true
		refused, decided := f.refuse(r, states[types.NamespacedName{Namespace: ns, Name: r.Object.Spec.Service}], leads)
		if !decided {
			f.undecided[uid] = true
			continue
		}
		if wanted[uid] = true; refused == "" && leads {
			if f.all[uid] == nil && len(f.all) >= maxFronts {
				refused = "The gateways steer as many Services as they can already."
			} else {
				r.Rule.Agent = f.key(uid)
			}
		}
		r.Rule.Refused = refused
		s.Rules = append(s.Rules, r)
	}
	maps.DeleteFunc(f.overruled, func(uid types.UID, _ bool) bool { return !wanted[uid] && !f.undecided[uid] })
	if !leads {
		namespaces = nil
	}
	f.rights.want(namespaces)
}

// refuse says why a Service cannot be steered, "" if it can; undecided while the
// API server was not asked.
func (f *Fronts) refuse(r world.Rule, s reroute.State, leads bool) (why string, decided bool) {
	if s.Service != nil && string(s.Service.UID) != r.Rule.PodUID {
		s.Service = nil // a later one of that name
	}
	if s.Service != nil && reroute.Overruled(s.Service) {
		f.overruled[s.Service.UID] = true
	}
	if why := f.config.Refuse(s, uint16(r.Object.Spec.Port), f.o.PodIPs); why != "" {
		return why, true
	}
	if f.overruled[s.Service.UID] {
		return "Somebody has given the Service another selector while it was steered, which counts from now on.", true
	}
	if !leads {
		return "", true
	}
	return f.rights.refuse(r.Rule.Namespace)
}

// key is that of a Service's front.
func (f *Fronts) key(uid types.UID) key.Public {
	one := f.all[uid]
	if one == nil {
		private, err := key.NewPrivate()
		if err != nil {
			return key.Public{} // the rule waits for an agent
		}
		one = &fronted{key: private, pods: new(front.Pods)}
		f.all[uid] = one
	}
	return one.key.Public()
}

// Follow has fronts for exactly the Services that have accepted rules, and writes
// what it takes for their clients to come to them. It returns when to look again
// even if nothing changes, zero for never.
func (f *Fronts) Follow(ctx context.Context, now time.Time, s world.Snapshot, verdicts []steering.Verdict, leads bool) (next time.Time) {
	ruled, ports := map[types.UID]bool{}, map[types.UID][]uint16{}
	for i, r := range s.Rules {
		if !r.Via() {
			continue
		}
		uid := types.UID(r.Rule.PodUID)
		if ruled[uid] = true; verdicts[i].Accepted && !f.leaving.Load() {
			ports[uid] = append(ports[uid], uint16(r.Object.Spec.Port))
		}
	}
	busy := false
	for _, one := range s.Services {
		if one.State.Service == nil {
			continue
		}
		uid := one.State.Service.UID
		ruled[uid], busy = ruled[uid] || f.all[uid] != nil && f.all[uid].front != nil, busy || !one.State.Idle()
		if !f.undecided[uid] {
			next = wake.Earlier(next, f.keep(ctx, now, uid, one, ports[uid], leads, s.GatewayAddrs))
		}
	}
	for uid := range f.all {
		if !ruled[uid] && !f.undecided[uid] {
			f.drop(uid)
		}
	}
	f.busy.Store(busy)
	return next
}

// keep looks after one Service, some of whose ports have rules.
func (f *Fronts) keep(ctx context.Context, now time.Time, uid types.UID, s world.Service, ports []uint16, leads bool, gateways []netip.Addr) (next time.Time) {
	one, led := f.all[uid], s.State.Leads()
	here := slices.ContainsFunc(led, f.isSelf)
	if one != nil && one.front != nil {
		one.pods.Set(s.State.Pods())
		if one.dead.Load() {
			one.front = nil
		}
	}
	if !leads {
		if one != nil && !here {
			f.drop(uid)
		}
		return next
	}
	w := reroute.Wish{Steer: len(ports) > 0 && one != nil, Ports: ports}
	if w.Steer {
		w.Front = f.serve(now, uid, one, s, ports)
		report, connected := f.o.Report(one.key.Public())
		w.Begin = connected && slices.Contains(slices.Collect(maps.Values(report.InForce)), true)
		other := func(a netip.Addr) bool { return !f.isSelf(a) && slices.Contains(gateways, a) }
		w.Switch = w.Begin || !slices.ContainsFunc(led, other) || now.Sub(one.began) >= takeOver
		if !w.Switch {
			next = one.began.Add(takeOver)
		}
	}
	plan := f.config.Plan(s.State, w)
	if !plan.Empty() {
		f.lead(ctx, s, w)
	}
	if one == nil {
		return next
	}
	one.trouble = plan.Trouble
	switch {
	case !plan.Settled:
		one.settled = time.Time{}
	case one.settled.IsZero():
		one.settled = now
	}
	if at := one.settled.Add(spread); plan.Settled && now.Before(at) {
		next = wake.Earlier(next, at)
	}
	if !w.Steer && one.front != nil && !here && !reroute.Marked(s.State.Service) {
		f.drop(uid)
	}
	return next
}

func (f *Fronts) isSelf(a netip.Addr) bool { return slices.Contains(f.o.PodIPs, a) }

// serve has a front for a Service, at all the ports that are to lead to it.
func (f *Fronts) serve(now time.Time, uid types.UID, one *fronted, s world.Service, ports []uint16) reroute.Front {
	out := reroute.Front{Namespace: f.o.Namespace, Pod: f.o.Pod, PodUID: f.o.PodUID, Node: f.o.Node, Addrs: f.o.PodIPs}
	if one.front == nil {
		if err := f.begin(now, uid, one, s); err != nil {
			f.log.Error("could not stand before a Service", "service", s.Name, "err", err)
			return out
		}
	}
	var err error
	if out.Ports, err = one.front.Set(s.State.Carried(ports)); err != nil {
		f.log.Error("could not listen for a Service", "service", s.Name, "err", err)
	}
	return out
}

var errNoAddress = errors.New("the gateway has no address that pods reach")

func (f *Fronts) begin(now time.Time, uid types.UID, one *fronted, s world.Service) error {
	self := f.o.Self()
	if len(self.Endpoints) == 0 {
		return errNoAddress
	}
	namespace := s.Name.Namespace
	one.pods = &front.Pods{Allow: func(at netip.AddrPort) bool { return f.o.Allow(namespace, at) }}
	one.pods.Set(s.State.Pods())
	made, err := agent.NewFront(agent.FrontConfig{
		Service: string(uid), Key: one.key, Gateways: []control.Gateway{self},
		Listen: front.Listen, App: one.pods.Dial, Log: f.log.With("service", s.Name),
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(f.life)
	dead := new(atomic.Bool)
	one.front, one.end, one.dead, one.began = made, end, dead, now
	f.running.Go(func() {
		defer end()
		if err := made.Run(life); err != nil {
			f.log.Error("a front has ended", "service", s.Name, "err", err)
		}
		dead.Store(true)
		f.o.Changed()
	})
	f.log.Info("steering a Service", "service", s.Name, "key", one.key.Public())
	return nil
}

// drop lets a Service's front serve what is open through it, and no more.
func (f *Fronts) drop(uid types.UID) {
	one := f.all[uid]
	delete(f.all, uid)
	if one != nil && one.front != nil {
		one.front.Retire()
		time.AfterFunc(lingering, one.end)
		f.linger(one)
	}
}

// linger ends the oldest of those that were dropped where there would be too many:
// rules come and go as fast as somebody writes them.
func (f *Fronts) linger(one *fronted) {
	f.lingering = slices.DeleteFunc(f.lingering, func(o *fronted) bool { return o.dead.Load() })
	if len(f.lingering) == maxFronts {
		f.lingering[0].end()
		f.lingering = slices.Delete(f.lingering, 0, 1)
	}
	f.lingering = append(f.lingering, one)
}

// Leave has all Services lead to their pods again; Busy tells when they do.
func (f *Fronts) Leave() { f.leaving.Store(true) }

// Busy reports whether something of podnet's was left of some Service at the last look.
func (f *Fronts) Busy() bool { return f.busy.Load() }

// Standing is how it is with the front of a Service.
type Standing struct {
	Key      key.Public
	Selector map[string]string // of the Service before it was steered, nil when it is not
	Trouble  string            // what is in the way
	Led      bool              // all of the Service's clients come here
}

// Standing tells of the front of a Service, if this gateway has one.
func (f *Fronts) Standing(now time.Time, uid types.UID, services []world.Service) (Standing, bool) {
	one := f.all[uid]
	if one == nil {
		return Standing{}, false
	}
	s := Standing{Key: one.key.Public(), Trouble: one.trouble, Led: !one.settled.IsZero() && !now.Before(one.settled.Add(spread))}
	for _, o := range services {
		if o.State.Service != nil && o.State.Service.UID == uid && reroute.Marked(o.State.Service) {
			s.Selector = o.State.Selector()
		}
	}
	return s, true
}
