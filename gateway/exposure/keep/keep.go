// Package keep keeps exposed ports open in this gateway, and what stands for them in the
// cluster, in step with what package exposure plans: a Service for each, which the
// leading gateway keeps, and an EndpointSlice of each gateway that leads to the laptop.
package keep

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/exposure"
	"podnet.dev/gateway/exposure/serve"
	"podnet.dev/gateway/presence"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// probeSilence is how long a laptop that probes may be silent before it is taken
// to have left: it probes the path it uses every second.
const probeSilence = 5 * time.Second

// Config is what a Keeper must be told: which gateway's it is, and how it reaches laptops
// and the API.
type Config struct {
	Namespace, Pod, PodUID, Node string
	PodIPs                       []netip.Addr
	DNSDomain                    string
	Keep                         time.Duration // see exposure.NewBook
	Log                          *slog.Logger
	Write                        Writer
	// Stack is the tunnel's, Self the gateway's own address there.
	Stack *netstack.Stack
	Self  netip.Addr
	Stats func() ([]tunnel.PeerStats, error)
	// ID is the name by which Probed knows a laptop; see transport.Bind.LastProbe.
	ID     func(key.Public) probe.ID
	Probed func(probe.ID) (time.Time, transport.Kind)
	// Changed asks for another look.
	Changed func()
}

// Writer takes what is to be written, as write.Writer does.
type Writer interface {
	Status(ctx context.Context, key string, patches ...write.Patch)
	Object(ctx context.Context, key, manager string, o runtime.ApplyConfiguration)
	Remove(context.Context, client.Object)
}

// Keeper keeps what one gateway has of exposures. Look, Report and Retire are for one
// goroutine; Run watches meanwhile which laptops are with us.
type Keeper struct {
	o      Config
	book   *exposure.Book
	server *serve.Server
	tick   *time.Ticker // while busy

	mu      sync.Mutex
	busy    bool // there are exposures
	laptops map[key.Public]probe.ID
	here    map[netip.Addr]bool // relay addresses of the laptops that are with us
}

// New makes a Keeper. Run must be called to close its ports.
func New(o Config) *Keeper {
	x := &Keeper{o: o, book: exposure.NewBook(o.Keep), tick: presence.NewTicker()}
	x.server = serve.New(o.Log, laptopDialer{x}, o.PodIPs)
	return x
}

// laptopDialer reaches laptops from the gateway's own address of the tunnel.
type laptopDialer struct{ x *Keeper }

// errNotHere: a laptop that is not with us is not waited for. Its clients come
// here only until they have heard of that.
var errNotHere = errors.New("the laptop is not connected to this gateway")

func (d laptopDialer) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !d.x.isHere(to.Addr()) {
		return nil, errNotHere
	}
	return d.x.o.Stack.DialTCPFrom(ctx, d.x.o.Self, to)
}

func (d laptopDialer) DialUDP(to netip.AddrPort) (serve.Datagrams, error) {
	if !d.x.isHere(to.Addr()) {
		return nil, errNotHere
	}
	return d.x.o.Stack.DialUDPFrom(d.x.o.Self, to)
}

func (x *Keeper) isHere(laptop netip.Addr) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.here[laptop]
}

// SetFull and Shed are Server's, for want of memory.
func (x *Keeper) SetFull(full bool)     { x.server.SetFull(full) }
func (x *Keeper) Shed(oneIn, least int) { x.server.Shed(oneIn, least) }

// Exposed is what a Keeper makes of a look at the world.
type Exposed struct {
	Plan   exposure.Plan
	Ready  map[string]bool          // UIDs of those whose ports are open here and whose laptop is here
	leases map[string]time.Duration // of Peers by name
}

// Look plans, and opens and closes ports accordingly. Whoever is out is out when
// it returns.
func (x *Keeper) Look(now time.Time, w world.Snapshot, c enrol.World, admitted []enrol.Admitted) Exposed {
	laptops, leases := w.Laptops(admitted)
	seen := exposure.World{
		Objects: make([]exposure.Object, len(w.Exposures)), Laptops: laptops,
		PolicyHolds: c.PolicyHolds, Connected: c.Connected, Leader: c.Leader,
	}
	for i, e := range w.Exposures {
		seen.Objects[i] = e.Exposure
	}
	for _, s := range w.ExposedBy.Services {
		seen.Services = append(seen.Services, exposedService(s))
	}
	p := Exposed{Plan: x.book.Plan(now, seen), leases: leases}

	var want []serve.Exposure
	for _, l := range p.Plan.Live {
		if e, whole := served(l); whole {
			want = append(want, e)
		}
	}
	p.Ready = x.server.Set(want)

	x.mu.Lock()
	defer x.mu.Unlock()
	was := x.busy
	x.busy, x.laptops = len(p.Plan.Live) > 0, make(map[key.Public]probe.ID, len(laptops))
	for _, l := range laptops {
		x.laptops[l.Key] = x.o.ID(l.Key)
	}
	if x.busy != was { // else Run has looked less than a second ago
		x.pollLocked()
		presence.Follow(x.tick, x.busy)
	}
	for _, l := range p.Plan.Live {
		if !x.here[l.Laptop] {
			delete(p.Ready, l.UID)
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
func (x *Keeper) pollLocked() {
	here := map[netip.Addr]bool{}
	if x.busy {
		peers, err := x.o.Stats()
		if err != nil {
			return // the tunnel is closing
		}
		now, known := time.Now(), presence.Of(peers)
		for k, id := range x.laptops {
			at, _ := x.o.Probed(id) // zero: a plain WireGuard client
			if known.Here(k, now) && (at.IsZero() || now.Sub(at) < probeSilence) {
				here[k.RelayAddress6()] = true
			}
		}
	}
	x.here = here
}

// Run watches, until ctx ends, which laptops are with us while there are
// exposures. Then it closes all ports.
func (x *Keeper) Run(ctx context.Context) error {
	defer x.server.Close()
	defer x.tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.tick.C:
			x.poll()
		}
	}
}

func (x *Keeper) poll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.busy {
		return
	}
	before := x.here
	if x.pollLocked(); !maps.Equal(before, x.here) {
		x.o.Changed()
	}
}

// uidOf is the UID of the exposure for which an object is kept.
func uidOf(o client.Object) types.UID { return types.UID(o.GetLabels()[podnet.LabelExposure]) }
