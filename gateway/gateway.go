// Package gateway is podnet's side of the cluster: it admits the peers that the
// API server vouches for into a WireGuard tunnel, forwards their flows where
// they have access, and answers DNS. It needs no privilege, keeps its state in
// memory and rebuilds it from the API after a restart.
//
// What is known of the cluster is gateway/world's. Who is admitted is decided in
// gateway/enrol, who reaches what in gateway/policy, both without knowing Kubernetes;
// internal/forward moves the bytes. This package wires them, has the look at the world
// that they all follow, and says how it is: status of Peers, probes, metrics.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/dnsproxy"
	"podnet.dev/dnsproxy/kube"
	"podnet.dev/gateway/audit"
	"podnet.dev/gateway/egress"
	"podnet.dev/gateway/enrol"
	expose "podnet.dev/gateway/exposure/keep"
	"podnet.dev/gateway/fronts"
	"podnet.dev/gateway/ground"
	"podnet.dev/gateway/guard"
	"podnet.dev/gateway/meet"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/pressure"
	"podnet.dev/gateway/steering"
	steer "podnet.dev/gateway/steering/keep"
	"podnet.dev/gateway/usage"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/resident"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/version"
	"podnet.dev/internal/wake"
)

// retireLimit is how long a stopping gateway spends on taking itself off Peers.
const retireLimit = 5 * time.Second

// askAtOnce is how many questions of a peer the cluster's own DNS server may be
// working on.
const askAtOnce = 16

// questions is how many questions of all peers may be worked on at once. Each
// has some 10 KB for itself.
const questions = 1024

// Gateway is one gateway pod.
type Gateway struct {
	o      Options
	ground *ground.Ground

	client  client.Client
	contact *rest.RESTClient
	cache   cache.Cache

	forward *forward.Forwarder
	streams []net.Listener
	http    net.Listener
	desk    net.Listener // for administrators

	world  *world.World
	serves func(namespace string, proto policy.Proto, at netip.AddrPort) bool // whether a pod is there
	guard  *guard.Guard
	leader *leadership
	admit  *admitter
	zone   *kube.Zone
	dns    *dnsproxy.Server

	memory  *pressure.Reader
	traffic *usage.Traffic
	meters  meters
	events  *audit.Events

	synced    atomic.Bool // the cluster is known
	published atomic.Bool // and counts for policy
	stopping  atomic.Bool
	rebuild   atomic.Int64 // how long the last publication took, ns
}

// Run runs a gateway until ctx ends. Then it sends its peers to other gateways,
// takes itself off all Peers, resets its flows and returns nil.
func Run(ctx context.Context, o Options) error {
	g, err := New(ctx, o)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// New makes a gateway whose sockets are open and whose tunnel knows no peer.
// Run must be called to use and to close it.
func New(ctx context.Context, o Options) (_ *Gateway, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	cluster := clusterDNS(&o)
	g := &Gateway{o: o, memory: pressure.NewReader(), traffic: usage.NewTraffic(o.Log), meters: newMeters()}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := g.reach(); err != nil {
		return nil, err
	}
	if g.ground, err = ground.Open(o.WireGuardPort, o.Log); err != nil {
		return nil, err
	}
	if err := g.listen(ctx); err != nil {
		return nil, err
	}
	g.world = world.New(g.o.world())
	g.serves = g.world.Policy.Serves
	g.leader = &leadership{o: g.o, log: o.Log, changed: g.world.LookAgain, heard: func() { g.guard.Heard() }}
	g.events = audit.NewEvents(g.client, o.Namespace, o.Pod, o.PodUID, o.Log, g.leader.leads.Load)
	g.guard = guard.New(g.client, g.o.Namespace, o.Log, g.world.LookAgain, g.events.Warn)
	g.forward = forward.New(g.ground.Stack, ground.Policy{Engine: g.world.Policy}, forward.Options{Log: o.Log, MaxFlows: o.Limits.Flows, Limits: usage.FlowLimits(o.Limits)})
	g.admit = &admitter{
		log: o.Log, world: g.world, guard: g.guard, leader: g.leader, client: g.client,
		write: write.New(g.client, o.Log, g.world.LookAgain),
		book:  enrol.NewBook(o.Enrol),
		self:  g.ground.Key,
		entry: podnet.Gateway{Pod: o.Pod, PodUID: o.PodUID, PublicKey: g.ground.Key.String(), StreamPort: int32(g.streamPort()), Version: version.Version},

		setPeers: g.ground.Tunnel.SetPeers, setMaps: g.forward.SetMaps, closePeer: g.forward.ClosePeer, recheck: g.forward.Recheck,
		audit:     audit.New(o.Log, g.events),
		setOwners: g.forward.SetOwners, traffic: g.traffic, stats: g.ground.Tunnel.Stats, limited: usage.NewLimited(g.forward.Usage),
		mayBegin: func() bool { return g.published.Load() && g.guard.Tried() },

		paths:  g.ground.Bind,
		probes: meet.NewProber(g.ground.Private, g.ground.Bind, o.Log),
		mapped: meet.NewReflector(o.STUN, g.ground.Tunnel.ListenPort(), g.ground.Bind.STUN, o.Log, g.world.LookAgain),
		absent: absences{},
	}
	g.admit.entry.ClusterEndpoints = addrPortTexts(g.clusterEndpoints())
	again := g.world.LookAgain
	g.admit.steer = steer.New(steer.Config{
		Self: g.ground.Key, Own: g.clusterEndpoints(), Reserved: ground.Service6, Pod: o.Pod, PodUID: o.PodUID, Keep: o.Enrol.Keep, Log: o.Log,
		Write: g.admit.write, Stats: g.ground.Tunnel.Stats, Relay: g.ground.Stack.Relay, Exits: g.forward.SetExits,
		Exit: func(e steering.Egress) forward.Exit {
			return egress.Exit{Agent: e.Agent, Self: g.ground.Key.Address6(), Rule: e.Rule, Stack: g.ground.Stack}
		},
		Changed: again,
	})
	g.admit.expose = expose.New(expose.Config{
		Namespace: g.o.Namespace, Pod: g.o.Pod, PodUID: g.o.PodUID, Node: g.o.Node, PodIPs: g.o.PodIPs, DNSDomain: g.o.DNSDomain,
		Keep: g.o.Enrol.Keep, Log: o.Log, Write: g.admit.write, Stack: g.ground.Stack, Self: g.ground.Key.Address6(), Stats: g.ground.Tunnel.Stats,
		ID: g.admit.probes.ID, Probed: g.ground.Bind.LastProbe, Changed: again,
	})
	g.admit.fronts = fronts.New(fronts.Config{
		Namespace: g.o.Namespace, Pod: g.o.Pod, PodUID: g.o.PodUID, Node: g.o.Node, PodIPs: g.o.PodIPs,
		Client: g.client, Write: g.admit.write, Log: o.Log,
		Self: func() control.Gateway {
			return control.Gateway{PublicKey: g.ground.Key, Endpoints: g.clusterEndpoints()}
		},
		Allow:  func(namespace string, at netip.AddrPort) bool { return g.serves(namespace, policy.TCP, at) },
		Report: g.admit.steer.Server().Report, Changed: again,
	})
	g.zone = kube.New(kube.Config{
		Domain: o.DNSDomain, Informers: g.cache, Visible: g.world.Policy.Visible, Map: g.forward.Map, Upstream: cluster,
		Quota:  kube.Quota{AtOnce: askAtOnce, PerSecond: o.Limits.PeerQuestions},
		MayAsk: g.world.Policy.MayAsk, Beside: g.world.Policy.Beside, Behind: g.guard.Behind,
		Addresses: []netip.Addr{ground.Service4, ground.Service6}, Log: o.Log,
	})
	g.dns = dnsproxy.NewServer(dnsproxy.Observed(g.zone, g.meters.answered), dnsproxy.Options{Log: o.Log, MaxInFlight: questions, MaxPerClient: questions / 8})
	return g, nil
}

// UseLogger sends what the Kubernetes libraries say to log. They have one
// logger per process, so this is for main to call, once and first.
func UseLogger(log *slog.Logger) {
	l := logr.FromSlogHandler(log.Handler())
	ctrllog.SetLogger(l)
	klog.SetLogger(l)
}

// clusterDNS is the cluster's own DNS server, for what the watch cannot know, nil when
// there is none.
func clusterDNS(o *Options) dnsproxy.Exchanger {
	o.FindDNS()
	if len(o.ClusterDNS) == 0 {
		return nil
	}
	return dnsproxy.NewCache(dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: o.ClusterDNS}))
}

// FindDNS learns from the pod's resolv.conf the zone and the cluster's own DNS
// servers, unless they were given.
func (o *Options) FindDNS() {
	var found resolver
	if f, err := os.Open("/etc/resolv.conf"); err != nil {
		o.Log.Warn("could not read resolv.conf", "err", err)
	} else {
		found = readResolvConf(f)
		_ = f.Close()
	}
	if o.DNSDomain == "" {
		o.DNSDomain = found.domain
	}
	if o.DNSDomain == "" {
		o.DNSDomain = "cluster.local"
		o.Log.Warn("resolv.conf does not tell the cluster's zone: taking the usual one", "domain", o.DNSDomain)
	}
	if o.ClusterDNS == nil {
		o.ClusterDNS = found.servers
	}
}

// reach makes the clients for the API server.
func (g *Gateway) reach() error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), podnet.AddToScheme(scheme)); err != nil {
		return err
	}
	c := rest.CopyConfig(g.o.REST)
	c.QPS, c.Burst = 100, 200 // a thousand peers renewing make ten writes a second
	rest.AddUserAgent(c, "podnet-gateway")
	g.o.REST = c
	var err error
	if g.client, err = client.New(c, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("make API client: %w", err)
	}
	if g.cache, err = world.NewCache(g.o.REST, g.client, g.o.Namespace); err != nil {
		return fmt.Errorf("make API cache: %w", err)
	}
	plain := rest.CopyConfig(c)
	plain.NegotiatedSerializer = clientgoscheme.Codecs
	if g.contact, err = rest.UnversionedRESTClientFor(plain); err != nil {
		return fmt.Errorf("make API client: %w", err)
	}
	return nil
}

func (g *Gateway) listen(ctx context.Context) error {
	streams, without, err := ground.Loopback(ctx, g.o.StreamPort)
	if err != nil {
		return fmt.Errorf("listen for streams: %w", err)
	}
	if g.streams = streams; without != nil {
		g.o.Log.Info("no stream listener on IPv6 loopback", "err", without)
	}
	var lc net.ListenConfig
	if g.http, err = lc.Listen(ctx, "tcp", ":"+strconv.Itoa(g.o.HTTPPort)); err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	if g.desk, err = lc.Listen(ctx, "unix", deskAddress(g.streamPort())); err != nil {
		return fmt.Errorf("listen for administrators: %w", err)
	}
	return nil
}

func (g *Gateway) streamPort() int { return ground.Port(g.streams[0]) }

// HTTPAddr is where probes and metrics are served.
func (g *Gateway) HTTPAddr() net.Addr { return g.http.Addr() }

// Run runs the gateway until ctx ends, and closes it.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.close()
	g.o.Log.Info("gateway starting", "pod", g.o.Pod, "key", g.ground.Key, "domain", g.o.DNSDomain, "udp", g.ground.Tunnel.ListenPort(), "stream", g.streamPort())

	// All but the admitter outlive ctx, so that it can say goodbye.
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	life, stop := context.WithCancel(failed)
	defer stop()
	admitting, endAdmission := context.WithCancel(life)
	defer endAdmission()
	leading, resign := context.WithCancel(life)
	defer resign()

	for _, run := range []func(context.Context) error{
		g.serveHTTP, g.serveDNS, g.forward.Run, g.ground.Tunnel.Watch, g.publishChanges, g.cache.Start, g.zone.Run, g.guard.RunPolicies, g.admit.mapped.Run,
		g.serveAgents, g.admit.steer.Run, g.admit.expose.Run, g.admit.fronts.Run,
		func(ctx context.Context) error { return g.guard.RunContact(ctx, g.alive) },
		g.keepWithinMemory, g.serveDesk, g.events.Run,
		func(ctx context.Context) error { return g.traffic.Run(ctx, g.ground.Tunnel.Stats) },
		func(ctx context.Context) error { return resident.Follow(ctx, g.admit.live) },
		func(ctx context.Context) error {
			return g.world.Watch(ctx, g.cache, g.client.RESTMapper(), func() { g.synced.Store(true); wake.Up(g.world.NetChanged) })
		},
	} {
		group.Go(func() error { return run(life) })
	}
	for _, l := range g.streams {
		group.Go(func() error { return g.ground.Bind.ServeStreams(life, l) })
	}
	group.Go(func() error { return g.leader.run(leading) })
	group.Go(func() error {
		select {
		case <-life.Done():
		case <-ctx.Done():
			g.stopping.Store(true)
			g.admit.leave(life)
			resign() // another one has to allocate addresses from now on
			g.admit.drain(life)
			endAdmission()
		}
		return nil
	})
	group.Go(func() error {
		defer stop()
		err := g.admit.run(admitting)
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), retireLimit)
		defer cancel()
		g.admit.retire(bye)
		return err
	})
	err := group.Wait()
	g.o.Log.Info("gateway stopped", "err", err)
	return err
}

// close gives back whatever New has opened.
func (g *Gateway) close() {
	for _, l := range g.streams {
		_ = l.Close()
	}
	if g.http != nil {
		_ = g.http.Close()
	}
	if g.desk != nil {
		_ = g.desk.Close()
	}
	if g.ground != nil {
		g.ground.Close()
	}
}

// maxClusterEndpoints is how many a Peer's schema takes.
const maxClusterEndpoints = 4

// clusterEndpoints are where pods reach this gateway's WireGuard port.
func (g *Gateway) clusterEndpoints() []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range g.o.PodIPs[:min(len(g.o.PodIPs), maxClusterEndpoints)] {
		all = append(all, netip.AddrPortFrom(a, g.ground.Tunnel.ListenPort()))
	}
	return all
}

func addrPortTexts(all []netip.AddrPort) []string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return texts
}

func (g *Gateway) alive(ctx context.Context) error {
	return g.contact.Get().AbsPath("/version").Do(ctx).Error()
}

// publishChanges makes changes of the cluster count for policy, and for open
// flows. In a large cluster it leaves nine tenths of the time to others, but no
// change waits longer for that than mostGather.
func (g *Gateway) publishChanges(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.world.NetChanged:
		}
		if !g.synced.Load() {
			continue // watch kicks when it is
		}
		began := time.Now()
		told := g.world.Publish()
		g.forward.Recheck()
		took := time.Since(began)
		g.rebuild.Store(int64(took))
		first := !g.published.Swap(true)
		if told || first {
			g.world.LookAgain()
		}
		if !wake.After(ctx, max(gather, min(9*took, mostGather))) {
			return nil
		}
	}
}

func (g *Gateway) serveDNS(ctx context.Context) error { return g.ground.ServeDNS(ctx, g.dns) }

// serveAgents listens for the agents of steered pods, inside the tunnel.
func (g *Gateway) serveAgents(ctx context.Context) error {
	l, err := g.ground.Stack.ListenTCP(netip.AddrPortFrom(g.ground.Key.Address6(), control.Port))
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	return g.admit.steer.Serve(ctx, l)
}

func (g *Gateway) serveHTTP(ctx context.Context) error {
	return ground.ServeHTTP(ctx, g.http, g.handler())
}
