package namespaced

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/dnsproxy"
	"podnet.dev/dnsproxy/claims"
	"podnet.dev/dnsproxy/kube"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/ground"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/usage"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/remap"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/version"
	"podnet.dev/internal/wake"
)

const (
	// again is how often it is asked whose the addresses are to which flows are open,
	// and what nobody needs any more is forgotten.
	again = claims.Fresh
	// settle is how long the answer about a name may wait until it is known whose its
	// addresses are.
	settle = 300 * time.Millisecond
	// farewell is for the word to get out that the gateway stops.
	farewell = time.Second
	// questions is how many may be worked on at once, and an eighth of it for one peer.
	questions = 1024
)

// askAtOnce is how many questions of one peer the cluster's DNS server may be asked at
// the same time.
const askAtOnce = 32

// Gateway is the gateway's process.
type Gateway struct {
	o       Options
	ground  *ground.Ground
	forward *forward.Forwarder
	streams []net.Listener
	desks   []net.Listener
	http    net.Listener

	claims *claims.Book
	policy *policy.Alone
	zone   *kube.Zone
	dns    *dnsproxy.Server
	roster *roster

	servers        []*dnsproxy.Forwarder
	pods, services []netip.Prefix
	recheck        chan struct{} // of one
	stopping       atomic.Bool

	// What enforce has told last. Only the roster calls it, one at a time.
	told      []enrol.Admitted
	toldMaps  map[netip.Addr]remap.Map
	toldRight bool
}

// Run runs a gateway until ctx ends.
func Run(ctx context.Context, o Options) error {
	g, err := New(ctx, o)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// New makes a gateway whose sockets are open. Run must be called to use and to close it.
func New(ctx context.Context, o Options) (_ *Gateway, err error) {
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	g := &Gateway{o: o, recheck: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := g.open(ctx); err != nil {
		return nil, err
	}
	g.pods, g.services = ranges.GuessPods(ranges.Parse(o.PodCIDRs), o.PodIPs), ranges.GuessServices(ranges.Parse(o.ServiceCIDRs), o.APIServer)
	// By TCP: whoever can forge an answer could open what he likes.
	sure := dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: o.ClusterDNS, StreamsOnly: true, Log: o.Log})
	quick := dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: o.ClusterDNS, Log: o.Log})
	g.servers = []*dnsproxy.Forwarder{sure, quick}
	g.claims = claims.New(claims.Config{
		Server: sure, Domain: o.DNSDomain, Namespace: o.Namespace, Lost: func() { wake.Up(g.recheck) }, Log: o.Log,
	})
	g.policy = policy.NewAlone(policy.Config{
		Tunnel: []netip.Prefix{o.Enrol.Pool, key.Prefix6, key.RelayPrefix6}, Self: slices.Concat(o.PodIPs, o.HostIPs),
	}, g.claims.Belongs)
	g.forward = forward.New(g.ground.Stack, ground.Policy{Engine: g.policy}, forward.Options{Log: o.Log, MaxFlows: o.Limits.Flows, Limits: usage.FlowLimits(o.Limits), Undecided: func(peer netip.Addr, dst netip.AddrPort) bool {
		return g.policy.Undecided(peer, policy.ICMP, dst)
	}})
	g.zone = kube.New(kube.Config{
		Domain: o.DNSDomain, Unwatched: true, Map: g.forward.Map, Upstream: g.claims.Exchanger(dnsproxy.NewCache(quick), settle), Quota: kube.Quota{AtOnce: askAtOnce, PerSecond: o.Limits.PeerQuestions},
		Visible: func(_ netip.Addr, namespace string) bool { return namespace == o.Namespace },
		Beside:  g.mayName, Addresses: []netip.Addr{ground.Service4, ground.Service6}, Log: o.Log,
	})
	// Not the zone itself: as nothing is watched no answer is ready at once.
	g.dns = dnsproxy.NewServer(dnsproxy.HandlerFunc(g.zone.ServeDNS), dnsproxy.Options{Log: o.Log, MaxInFlight: questions, MaxPerClient: questions / 8})
	g.roster = newRoster(o.Enrol, o.Log, time.Now())
	g.roster.entry = podnet.Gateway{Pod: o.Pod, PodUID: o.PodUID, PublicKey: g.ground.Key.String(), Endpoints: g.endpoints(), StreamPort: int32(ground.Port(g.streams[0])), Version: version.Version}
	g.roster.network, g.roster.enforce = g.network, g.enforce
	return g, nil
}

// open makes the tunnel and listeners.
func (g *Gateway) open(ctx context.Context) (err error) {
	if g.ground, err = ground.Open(g.o.WireGuardPort, g.o.Log); err != nil {
		return err
	}
	if g.streams, err = g.loopback(ctx, g.o.StreamPort); err != nil {
		return fmt.Errorf("listen for streams: %w", err)
	}
	if g.desks, err = g.loopback(ctx, g.o.DeskPort); err != nil {
		return fmt.Errorf("listen for laptops: %w", err)
	}
	if g.http, err = new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(g.o.HTTPPort)); err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	return nil
}

func (g *Gateway) loopback(ctx context.Context, port int) ([]net.Listener, error) {
	all, without, err := ground.Loopback(ctx, port)
	if without != nil {
		g.o.Log.Info("no listener on IPv6 loopback", "port", ground.Port(all[0]), "err", without)
	}
	return all, err
}

// DeskAddr is where laptops call, HTTPAddr where probes do.
func (g *Gateway) DeskAddr() net.Addr { return g.desks[0].Addr() }

// HTTPAddr is where probes are answered.
func (g *Gateway) HTTPAddr() net.Addr { return g.http.Addr() }

// endpoints are the UDP addresses that lead here.
func (g *Gateway) endpoints() []string {
	all := slices.Clone(g.o.Advertise)
	for _, a := range g.o.HostIPs {
		if g.o.NodePort != 0 {
			all = append(all, netip.AddrPortFrom(a, uint16(g.o.NodePort)).String())
		}
	}
	return all
}

// network is what laptops are told of the cluster.
func (g *Gateway) network() podnet.Network {
	known := slices.Concat(g.pods, g.services)
	return podnet.Network{
		PodCIDRs: ranges.Texts(ranges.Tidy(slices.Concat(g.pods, ranges.Strays(known, g.claims.Addresses())))), ServiceCIDRs: ranges.Texts(g.services),
		DNSDomain: g.o.DNSDomain, DNSAddresses: []string{ground.Service4.String(), ground.Service6.String()},
	}
}

// Run runs the gateway until ctx ends, and closes it.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.close()
	g.o.Log.Info("gateway of a namespace starting", "namespace", g.o.Namespace, "pod", g.o.Pod, "key", g.ground.Key, "domain", g.o.DNSDomain,
		"udp", g.ground.Tunnel.ListenPort(), "stream", ground.Port(g.streams[0]), "desk", ground.Port(g.desks[0]), "pods", g.pods, "services", g.services)
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	life, stop := context.WithCancel(failed)
	defer stop()
	for _, run := range []func(context.Context) error{g.serveHTTP, g.serveDNS, g.zone.Run, g.forward.Run, g.ground.Tunnel.Watch, g.keepTime, g.keepAsking} {
		group.Go(func() error { return run(life) })
	}
	for _, l := range g.streams {
		group.Go(func() error { return g.ground.Bind.ServeStreams(life, l) })
	}
	for _, l := range g.desks {
		group.Go(func() error {
			return serveDesk(life, l, func(c desk.Call) desk.Answer { return g.roster.call(time.Now(), c) })
		})
	}
	group.Go(func() error {
		defer stop()
		select {
		case <-life.Done():
		case <-ctx.Done():
			g.stopping.Store(true)
			g.ground.Bind.Drain()
			wake.After(life, farewell)
		}
		return nil
	})
	err := group.Wait()
	g.o.Log.Info("gateway stopped", "err", err)
	return err
}

// close gives back whatever New has opened.
func (g *Gateway) close() {
	for _, l := range slices.Concat(g.streams, g.desks) {
		_ = l.Close()
	}
	if g.http != nil {
		_ = g.http.Close()
	}
	if g.ground != nil {
		g.ground.Close()
	}
	for _, f := range g.servers {
		_ = f.Close()
	}
}

// enforce makes tunnel and policy admit exactly these. Whoever is out loses policy
// first, then the tunnel, then the open flows. It reports whether that has worked.
func (g *Gateway) enforce(all admitted) bool {
	if g.toldRight && slices.EqualFunc(all.peers, g.told, same) && mapsEqual(all.maps, g.toldMaps) {
		return true
	}
	g.forward.SetMaps(all.maps)
	var addresses []netip.Addr
	var peers []tunnel.Peer
	var keys []probe.Key
	in := map[netip.Addr]bool{}
	for _, p := range all.peers {
		if p.Key == g.ground.Key {
			continue // nobody has our key but us: who says so would spoil the tunnel for all
		}
		one := tunnel.Peer{PublicKey: p.Key}
		for _, a := range p.Addresses() {
			in[a] = true
			addresses = append(addresses, a)
			one.AllowedIPs = append(one.AllowedIPs, netip.PrefixFrom(a, a.BitLen()))
		}
		peers = append(peers, one)
		if k, err := probe.NewKey(g.ground.Private, p.Key); err == nil {
			keys = append(keys, k)
		}
	}
	g.policy.SetPeers(addresses)
	err := g.ground.Tunnel.SetPeers(peers)
	if g.toldRight = err == nil; err != nil {
		g.o.Log.Error("could not set the tunnel's peers", "err", err) // the next look tries again
	}
	g.ground.Bind.Answer(keys)
	for _, p := range g.told {
		for _, a := range p.Addresses() {
			if !in[a] {
				g.forward.ClosePeer(a)
			}
		}
	}
	g.told, g.toldMaps = all.peers, all.maps
	return g.toldRight
}

func same(a, b enrol.Admitted) bool {
	return a.UID == b.UID && a.Key == b.Key && a.Address4 == b.Address4
}

func mapsEqual(a, b map[netip.Addr]remap.Map) bool {
	if len(a) != len(b) {
		return false
	}
	for k, m := range a {
		if o, ok := b[k]; !ok || !m.Equal(o) {
			return false
		}
	}
	return true
}

// keepTime looks at the roster when a lease ends.
func (g *Gateway) keepTime(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			g.roster.look(time.Now())
		case at := <-g.roster.next:
			wait := time.Hour
			if !at.IsZero() { // a little late rather than a little early
				wait = min(wait, max(0, time.Until(at))+time.Millisecond)
			}
			timer.Reset(wait)
		}
	}
}

// keepAsking has policy follow what the cluster's DNS server says.
func (g *Gateway) keepAsking(ctx context.Context) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.claims.Sweep()
		case <-g.recheck:
		}
		g.forward.Recheck() // which asks about every address that somebody uses
	}
}

// mayName reports whether a peer may be told the name of an address.
func (g *Gateway) mayName(peer, a netip.Addr) bool {
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	g.claims.Settle(ctx, peer, []netip.Addr{a})
	belongs, _ := g.claims.Belongs(peer, a)
	return belongs
}

func (g *Gateway) serveDNS(ctx context.Context) error { return g.ground.ServeDNS(ctx, g.dns) }

// serveHTTP answers the kubelet's probes: who listens is there, who stops is not ready.
func (g *Gateway) serveHTTP(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if g.stopping.Load() {
			http.Error(w, "the gateway is stopping", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, strings.Join([]string{"ok", "namespace mode: " + g.o.Namespace}, "\n"))
	})
	return ground.ServeHTTP(ctx, g.http, mux)
}
