package client_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/dnsproxy"
	"podnet.dev/e2e/crowd"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

var (
	nameServer = netip.MustParseAddr("198.18.0.1")
	service    = netip.MustParseAddr("10.96.0.10")
)

// echoName is resolved by the session, as programs would have it.
const echoName = "echo.shop.svc.cluster.local."

// town is a cluster in this process: an API with our objects in it, and gateways
// that a test starts and kills. One laptop lives there.
type town struct {
	t   *testing.T
	log *slog.Logger

	mu        sync.Mutex
	gateways  map[string]*gateway // by pod
	peers     map[string]*v1alpha1.Peer
	last      netip.Addr // the tunnel address given last
	away      bool       // the API server
	forbidden bool       // to write anything
	refused   int        // writes, for that
	deaf      bool       // gateways answer probes, but no handshake
	cut       bool       // gateways admit nobody: the lease is over
	revive    bool       // a renewal brings it back
	hidden    bool       // gateways have candidates, and no endpoints
	lease     int32      // in seconds
}

// refusals is how many writes were forbidden.
func (w *town) refusals() (n int) {
	w.change(func() { n = w.refused })
	return n
}

func newTown(t *testing.T, pods ...string) *town {
	w := &town{t: t, log: slog.New(slog.DiscardHandler), gateways: map[string]*gateway{}, peers: map[string]*v1alpha1.Peer{}, last: nameServer, lease: 2}
	for _, pod := range pods {
		w.start(pod)
	}
	t.Cleanup(func() {
		for pod := range w.gateways {
			w.kill(pod)
		}
	})
	return w
}

// gateway is one process: it is killed as a whole.
type gateway struct {
	private key.Private
	bind    *transport.Bind
	tunnel  *tunnel.Tunnel
	streams net.Listener
	kill    func()
}

func (w *town) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// start begins a gateway process with a new key, and publishes it.
func (w *town) start(pod string) {
	w.t.Helper()
	g := &gateway{}
	var err error
	g.private, err = key.NewPrivate()
	w.must(err)
	stack, err := netstack.New(netstack.Config{MTU: 16384, Log: w.log})
	w.must(err)
	w.must(stack.AddAddress(nameServer))
	w.must(stack.AddAddress(service))
	g.bind = transport.NewBind(transport.Options{Log: w.log})
	g.tunnel, err = tunnel.New(stack.Device(), g.bind, tunnel.Config{PrivateKey: g.private, Log: w.log})
	w.must(err)
	g.streams, err = net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	questions, err := stack.ListenUDP(netip.AddrPortFrom(nameServer, 53))
	w.must(err)
	echo, err := stack.ListenTCP(netip.AddrPortFrom(service, 5432))
	w.must(err)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.bind.ServeStreams(ctx, g.streams) })
	wg.Go(func() { serveEcho(echo) })
	wg.Go(func() {
		_ = dnsproxy.NewServer(dnsproxy.HandlerFunc(answerName), dnsproxy.Options{Log: w.log}).Serve(ctx, []net.PacketConn{questions}, nil)
	})
	g.kill = func() {
		stop()
		_ = echo.Close()
		_ = g.tunnel.Close()
		_ = stack.Close()
		wg.Wait()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gateways[pod] = g
	w.admitLocked()
}

// kill ends a gateway without a word. Its entries stay in the API.
func (w *town) kill(pod string) {
	w.mu.Lock()
	g := w.gateways[pod]
	delete(w.gateways, pod)
	w.mu.Unlock()
	g.kill()
}

func answerName(_ context.Context, r *dnsproxy.Request) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r.Msg)
	if q := r.Msg.Question[0]; q.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: service.AsSlice()}}
	}
	return m
}

func serveEcho(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}

// admitLocked makes every gateway admit every Peer, and every Peer name every
// gateway that lives; entries of the dead stay. mu is held.
func (w *town) admitLocked() {
	for pod, g := range w.gateways {
		var peers []tunnel.Peer
		var keys []probe.Key
		for _, p := range w.peers {
			public, err := key.ParsePublic(p.Spec.PublicKey)
			w.must(err)
			own := netip.MustParseAddr(p.Status.Address4)
			peers = append(peers, tunnel.Peer{PublicKey: public, AllowedIPs: []netip.Prefix{netip.PrefixFrom(own, 32)}})
			k, err := probe.NewKey(g.private, public)
			w.must(err)
			keys = append(keys, k)
			endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), g.tunnel.ListenPort())
			entry := v1alpha1.Gateway{Pod: pod, PublicKey: g.private.Public().String(), Endpoints: []string{endpoint.String()}, StreamPort: 51821}
			all := slices.DeleteFunc(slices.Clone(p.Status.Gateways), func(o v1alpha1.Gateway) bool { return o.Pod == pod })
			p.Status.Gateways = append(all, entry)
			ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAdmitted}
			if w.cut {
				ready.Status, ready.Reason = metav1.ConditionFalse, v1alpha1.ReasonExpired
			}
			p.Status.Conditions = []metav1.Condition{ready}
		}
		if w.deaf || w.cut {
			peers = nil
		}
		if w.cut {
			keys = nil
		}
		w.must(g.tunnel.SetPeers(peers))
		g.bind.Answer(keys)
	}
}

// forget removes the laptop's Peer, as a gateway does whose lease ran out, or an
// administrator.
func (w *town) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers = map[string]*v1alpha1.Peer{}
	w.admitLocked()
}

// only is the one Peer there is.
func (w *town) only() *v1alpha1.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.peers {
		return p.DeepCopy()
	}
	return &v1alpha1.Peer{}
}

func (w *town) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.admitLocked()
}

// resident is the town as the laptop sees it, over a wire that can fail.
type resident struct {
	*town
	wire *crowd.Wire
}

func (r resident) Check(context.Context) error { return nil }
func (r resident) Whoami() cluster.Identity {
	return cluster.Identity{Context: "town", Namespace: "shop", Server: "https://town", User: "alice"}
}
func (r resident) Remotes() []netip.Addr                        { return nil }
func (r resident) Namespaces(context.Context) ([]string, error) { return []string{"shop"}, nil }
func (r resident) Redial()                                      {}

// call is what every call to the API meets first.
func (r resident) call() error {
	if r.away {
		return &cluster.UnreachableError{Server: "https://town", Err: errors.New("connection refused")}
	}
	if r.forbidden {
		r.refused++
		return &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Group: "podnet.dev", Resource: "peers", Namespace: "podnet-system"}}
	}
	return nil
}

func (r resident) CreatePeer(_ context.Context, _, name string, spec v1alpha1.PeerSpec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.call(); err != nil {
		return err
	}
	r.last = r.last.Next()
	r.peers[name] = &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec, Status: v1alpha1.PeerStatus{
		Address4: r.last.String(),
		Network: &v1alpha1.Network{PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"}, DNSDomain: "cluster.local",
			DNSAddresses: []string{nameServer.String()}},
	}}
	r.admitLocked()
	return nil
}

func (r resident) edit(name string, f func(*v1alpha1.Peer)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.call(); err != nil {
		return err
	}
	p := r.peers[name]
	if p == nil {
		return cluster.ErrGone
	}
	f(p)
	return nil
}

func (r resident) RenewPeer(_ context.Context, _, name string, renew int64) error {
	return r.edit(name, func(p *v1alpha1.Peer) {
		p.Spec.Renew = renew
		r.cut = r.cut && !r.revive
		r.admitLocked()
	})
}

func (r resident) SetCandidates(_ context.Context, _, name string, list []string) error {
	return r.edit(name, func(p *v1alpha1.Peer) { p.Spec.Candidates = list })
}

func (r resident) DeletePeer(_ context.Context, _, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peers, name)
	r.admitLocked()
	return nil
}

func (r resident) Peer(_ context.Context, _, name string) (copied *v1alpha1.Peer, err error) {
	err = r.edit(name, func(p *v1alpha1.Peer) {
		copied = p.DeepCopy()
		for i := range copied.Status.Gateways {
			g := &copied.Status.Gateways[i]
			via, err := r.wire.Via(netip.MustParseAddrPort(g.Endpoints[0]))
			if err == nil {
				g.Endpoints = []string{via.String()}
			}
			if r.hidden {
				g.Endpoints, g.Candidates = nil, g.Endpoints
			}
		}
	})
	return copied, err
}

func (r resident) Await(ctx context.Context, ns, name string, _ []string) (*v1alpha1.Peer, error) {
	return r.Peer(ctx, ns, name)
}

func (r resident) CreateAccess(context.Context, string, string, v1alpha1.AccessScope) error {
	return nil
}
func (r resident) RenewAccess(context.Context, string, string, v1alpha1.AccessScope, int64) error {
	return nil
}
func (r resident) DeleteAccess(context.Context, string, string) error { return nil }

func (r resident) DialPod(ctx context.Context, _, pod string, _ uint16) (net.Conn, error) {
	r.mu.Lock()
	g, err := r.gateways[pod], r.call()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errors.New("pod " + pod + " does not exist")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", g.streams.Addr().String())
	if err != nil {
		return nil, err
	}
	return r.wire.Stream(c), nil
}
