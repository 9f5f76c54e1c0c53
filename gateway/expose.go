package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/exposure"
	"podnet.dev/gateway/exposure/serve"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// probeSilence is how long a laptop that probes may be silent before it is taken
// to have left: it probes the path it uses every second.
const probeSilence = 5 * time.Second

// exposer keeps exposed ports open, and what stands for them in the cluster, in
// step with what package exposure plans. The admitter drives it; run watches
// meanwhile which laptops are with us.
type exposer struct {
	o       Options
	book    *exposure.Book
	server  *serve.Server
	stats   func() ([]tunnel.PeerStats, error)
	id      func(key.Public) probe.ID                  // by which a laptop is known to probed
	probed  func(probe.ID) (time.Time, transport.Kind) // see paths.LastProbe
	changed func()                                     // asks for another look

	mu      sync.Mutex
	busy    bool // there are exposures
	laptops map[key.Public]probe.ID
	here    map[netip.Addr]bool // relay addresses of the laptops that are with us
}

func newExposer(o Options, stack *netstack.Stack, self netip.Addr) *exposer {
	x := &exposer{o: o, book: exposure.NewBook(o.Enrol.Keep)}
	x.server = serve.New(o.Log, laptopDialer{x, stack, self}, o.PodIPs)
	return x
}

// laptopDialer reaches laptops from the gateway's own address of the tunnel.
type laptopDialer struct {
	x     *exposer
	stack *netstack.Stack
	self  netip.Addr
}

// errNotHere: a laptop that is not with us is not waited for. Its clients come
// here only until they have heard of that.
var errNotHere = errors.New("the laptop is not connected to this gateway")

func (d laptopDialer) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !d.x.isHere(to.Addr()) {
		return nil, errNotHere
	}
	return d.stack.DialTCPFrom(ctx, d.self, to)
}

func (d laptopDialer) DialUDP(to netip.AddrPort) (serve.Datagrams, error) {
	if !d.x.isHere(to.Addr()) {
		return nil, errNotHere
	}
	return d.stack.DialUDPFrom(d.self, to)
}

func (x *exposer) isHere(laptop netip.Addr) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.here[laptop]
}

// exposed is what the exposer makes of a look at the world.
type exposed struct {
	plan   exposure.Plan
	leases map[string]time.Duration // of Peers by name
	ready  map[string]bool          // UIDs of those whose ports are open here and whose laptop is here
}

// look plans, and opens and closes ports accordingly. Whoever is out is out when
// it returns.
func (x *exposer) look(now time.Time, w world.Snapshot, c enrol.World, admitted []enrol.Admitted) exposed {
	laptops, leases := laptopsOf(w, admitted)
	world := exposure.World{
		Objects: make([]exposure.Object, len(w.Exposures)), Laptops: laptops,
		PolicyHolds: c.PolicyHolds, Connected: c.Connected, Leader: c.Leader,
	}
	for i, e := range w.Exposures {
		world.Objects[i] = e.Exposure
	}
	for _, s := range w.ExposedBy.Services {
		world.Services = append(world.Services, exposedService(s))
	}
	p := exposed{plan: x.book.Plan(now, world), leases: leases}

	var want []serve.Exposure
	for _, l := range p.plan.Live {
		if e, whole := served(l); whole {
			want = append(want, e)
		}
	}
	p.ready = x.server.Set(want)

	x.mu.Lock()
	defer x.mu.Unlock()
	was := x.busy
	x.busy, x.laptops = len(p.plan.Live) > 0, make(map[key.Public]probe.ID, len(laptops))
	for _, l := range laptops {
		x.laptops[l.Key] = x.id(l.Key)
	}
	if x.busy != was { // else run has looked less than a second ago
		x.pollLocked()
	}
	for _, l := range p.plan.Live {
		if !x.here[l.Laptop] {
			delete(p.ready, l.UID)
		}
	}
	return p
}

// served is what there is to serve of an exposure, and whether all of its ports
// are known.
func served(l exposure.Live) (e serve.Exposure, whole bool) {
	e = serve.Exposure{UID: l.UID, Name: l.Namespace + "/" + l.Name, Laptop: l.Laptop}
	for _, p := range l.Ports {
		if p.Pod == 0 {
			return e, false
		}
		e.Ports = append(e.Ports, serve.Port{Protocol: p.Protocol, Pod: p.Pod, Relay: p.Relay})
	}
	return e, true
}

// pollLocked looks who is with us.
func (x *exposer) pollLocked() {
	here := map[netip.Addr]bool{}
	if x.busy {
		peers, err := x.stats()
		if err != nil {
			return // the tunnel is closing
		}
		now, known := time.Now(), byKey(peers)
		for k, id := range x.laptops {
			at, _ := x.probed(id) // zero: a plain WireGuard client
			if isHere(known[k], now) && (at.IsZero() || now.Sub(at) < probeSilence) {
				here[k.RelayAddress6()] = true
			}
		}
	}
	x.here = here
}

// run watches, until ctx ends, which laptops are with us while there are
// exposures. Then it closes all ports.
func (x *exposer) run(ctx context.Context) error {
	defer x.server.Close()
	tick := time.NewTicker(herePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			x.poll()
		}
	}
}

func (x *exposer) poll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.busy {
		return
	}
	before := x.here
	if x.pollLocked(); !maps.Equal(before, x.here) {
		x.changed()
	}
}

// uidOf is the UID of the exposure for which an object is kept.
func uidOf(o client.Object) types.UID { return types.UID(o.GetLabels()[podnet.LabelExposure]) }
