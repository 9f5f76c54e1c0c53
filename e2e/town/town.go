// Package town is a small cluster in this process, for the tests of what talks
// to a cluster: an API with podnet's objects in it, gateways that a test starts
// and kills, a name server and two Services behind them. The gateways, their
// tunnels and their paths are real; what is played is Kubernetes.
package town

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/dnsproxy"
	"podnet.dev/gateway/exposure/serve"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

var (
	// NameServer is where the gateways answer DNS: every A question with
	// Service, or what stands for it.
	NameServer = netip.MustParseAddr("198.18.0.1")
	// Service is the address of both Services.
	Service = netip.MustParseAddr("10.96.0.10")
)

// firstPod is the address of the first gateway's pod, as this machine has it.
var firstPod = netip.MustParseAddr("127.0.1.1")

const (
	// ShopURL serves "/blob?size=N", N bytes with their SHA-256 as trailer, and
	// takes "/sink", answering with the size and SHA-256 of the body.
	ShopURL = "http://web.shop.svc.cluster.local"
	// EchoName is the host of EchoAddr.
	EchoName = "echo.shop.svc.cluster.local"
	// EchoAddr sends back what it gets, by TCP.
	EchoAddr = EchoName + ":5432"
)

// Trouble is what may be wrong with a town. The zero value is none.
type Trouble struct {
	Away      bool // nobody reaches the API server
	Forbidden bool // the API server lets nobody read or write
	Deaf      bool // gateways answer probes, but no handshake
	Cut       bool // gateways admit nobody: every lease is over
	Revive    bool // a renewal ends Cut
	Unmapped  bool // names resolve to Service, whatever stands for it
}

// Town is a cluster. Its methods may be used by several goroutines.
type Town struct {
	t   testing.TB
	log *slog.Logger

	mu       sync.Mutex
	gateways map[string]*gateway // by pod
	peers    map[string]*v1alpha1.Peer
	pods     map[string]*pod
	rules    map[string]*v1alpha1.SteeringRule
	// exposures and where the names lead that they own, by name.
	exposures map[string]*exposed
	names     map[string]string
	uids      int
	pod       netip.Addr // of the next gateway, on this machine
	// podsChanged is closed, and another one made, when a pod or its agent has
	// changed.
	podsChanged chan struct{}
	// answer is what names resolve to: Service, or what stands for it.
	answer  netip.Addr
	agents  sync.WaitGroup
	last    netip.Addr // the tunnel address given last
	trouble Trouble
	refused int // calls, as Forbidden
}

// New makes a town with a gateway in each of the pods. It is gone when the test
// is over.
func New(t testing.TB, log *slog.Logger, pods ...string) *Town {
	t.Helper()
	w := &Town{t: t, log: log, gateways: map[string]*gateway{}, peers: map[string]*v1alpha1.Peer{}, last: NameServer,
		pods: map[string]*pod{}, rules: map[string]*v1alpha1.SteeringRule{}, exposures: map[string]*exposed{}, pod: firstPod, answer: Service, names: map[string]string{}, podsChanged: make(chan struct{})}
	for _, pod := range pods {
		w.Start(pod)
	}
	t.Cleanup(func() {
		for _, p := range w.pods {
			w.killAgent(p)
		}
		w.agents.Wait()
		for pod := range w.gateways {
			w.Kill(pod)
		}
	})
	return w
}

// gateway is one process: it is killed as a whole.
type gateway struct {
	private key.Private
	stack   *netstack.Stack
	bind    *transport.Bind
	tunnel  *tunnel.Tunnel
	streams net.Listener
	pod     netip.Addr
	// at is where a peer of the tunnel is, that has not spoken since Rekey.
	at     map[key.Public]string
	served *serve.Server
	// serve has both Services at an address, too.
	serve func(netip.Addr) error
	kill  func()
}

func (w *Town) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Start begins a gateway process with a new key, and publishes it.
func (w *Town) Start(pod string) {
	w.t.Helper()
	g := &gateway{}
	var err error
	g.private, err = key.NewPrivate()
	w.must(err)
	stack, err := netstack.New(netstack.Config{MTU: 16384, Log: w.log})
	w.must(err)
	g.stack = stack
	self := g.private.Public().Address6()
	for _, a := range []netip.Addr{NameServer, self} {
		w.must(stack.AddAddress(a))
	}
	g.bind = transport.NewBind(transport.Options{Log: w.log})
	g.tunnel, err = tunnel.New(stack.Device(), g.bind, tunnel.Config{PrivateKey: g.private, Log: w.log})
	w.must(err)
	g.streams, err = net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	questions, err := stack.ListenUDP(netip.AddrPortFrom(NameServer, 53))
	w.must(err)

	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	shop := &http.Server{Handler: http.HandlerFunc(serveShop)}
	wg.Go(func() { _ = g.bind.ServeStreams(ctx, g.streams) })
	var echoes []net.Listener
	g.serve = func(a netip.Addr) error {
		if stack.IsLocal(a) {
			return nil
		}
		if err := stack.AddAddress(a); err != nil {
			return err
		}
		web, err := stack.ListenTCP(netip.AddrPortFrom(a, 80))
		if err != nil {
			return err
		}
		echo, err := stack.ListenTCP(netip.AddrPortFrom(a, 5432))
		if err != nil {
			return err
		}
		echoes = append(echoes, echo)
		wg.Go(func() { _ = shop.Serve(web) })
		wg.Go(func() { serveEcho(echo) })
		return nil
	}
	wg.Go(func() {
		names := dnsproxy.NewServer(dnsproxy.HandlerFunc(w.answerName), dnsproxy.Options{Log: w.log})
		_ = names.Serve(ctx, []net.PacketConn{questions}, nil)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	g.pod, w.pod = w.pod, w.pod.Next()
	g.served = serve.New(w.log, toLaptops{stack, self}, []netip.Addr{g.pod})
	g.kill = func() {
		stop()
		g.served.Close()
		_ = shop.Close()
		for _, echo := range echoes {
			_ = echo.Close()
		}
		_ = g.tunnel.Close()
		_ = stack.Close()
		wg.Wait()
	}
	w.gateways[pod] = g
	w.must(errors.Join(g.serve(Service), w.mapLocked(), w.admitLocked()))
}

// Kill ends a gateway without a word. Its entries stay in the API.
func (w *Town) Kill(pod string) {
	w.mu.Lock()
	g := w.gateways[pod]
	delete(w.gateways, pod)
	w.mu.Unlock()
	g.kill()
}

// Drain has a gateway ask its laptops to leave.
func (w *Town) Drain(pod string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gateways[pod].bind.Drain()
}

// Rekey has a gateway forget its WireGuard sessions. It knows where its peers are,
// and begins new ones when it has something to send.
func (w *Town) Rekey(pod string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.gateways[pod]
	peers, err := g.tunnel.Stats()
	w.must(err)
	g.at = map[key.Public]string{}
	for _, p := range peers {
		g.at[p.PublicKey] = p.Endpoint
	}
	w.must(errors.Join(g.tunnel.SetPeers(nil), w.admitLocked()))
	g.at = nil
}

// DialLaptop connects from a gateway to an address of a laptop's in the tunnel.
func (w *Town) DialLaptop(ctx context.Context, pod string, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	g := w.gateways[pod]
	w.mu.Unlock()
	return g.stack.DialTCPFrom(ctx, NameServer, to)
}

// Set makes t what is wrong, and nothing else.
func (w *Town) Set(t Trouble) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = t
	w.must(w.admitLocked())
}

// Refused is how many calls were Forbidden.
func (w *Town) Refused() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused
}

// Peers is every Peer there is.
func (w *Town) Peers() []*v1alpha1.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*v1alpha1.Peer
	for _, p := range w.peers {
		all = append(all, p.DeepCopy())
	}
	return all
}

// Forget removes all Peers, as a gateway does whose lease ran out, or an
// administrator.
func (w *Town) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers = map[string]*v1alpha1.Peer{}
	w.must(w.admitLocked())
}

// admitLocked makes every gateway admit every Peer, and every Peer name every
// gateway that lives; entries of the dead stay. mu is held.
func (w *Town) admitLocked() error {
	for pod, g := range w.gateways {
		var peers []tunnel.Peer
		var keys []probe.Key
		for _, p := range w.peers {
			public, err := key.ParsePublic(p.Spec.PublicKey)
			if err != nil {
				return err
			}
			k, err := probe.NewKey(g.private, public)
			if err != nil {
				return err
			}
			own := netip.MustParseAddr(p.Status.Address4)
			relay := public.RelayAddress6()
			peers = append(peers, tunnel.Peer{PublicKey: public, Endpoint: g.at[public], AllowedIPs: []netip.Prefix{netip.PrefixFrom(own, own.BitLen()), netip.PrefixFrom(relay, relay.BitLen())}})
			keys = append(keys, k)
			w.enterLocked(p, pod, g)
		}
		agents, ties := w.agentsLocked()
		for _, k := range agents {
			peers = append(peers, tunnel.Peer{PublicKey: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(k.Address6(), 128)}})
		}
		letPass(g.stack, ties)
		if w.trouble.Deaf || w.trouble.Cut {
			peers = nil
		}
		if w.trouble.Cut {
			keys = nil
		}
		if err := g.tunnel.SetPeers(peers); err != nil {
			return err
		}
		g.bind.Answer(keys)
		g.served.Set(w.servedLocked())
	}
	return nil
}

func (g *gateway) endpoint() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), g.tunnel.ListenPort())
}

// enterLocked writes a gateway, and how it stands with it, into a Peer. mu is
// held.
func (w *Town) enterLocked(p *v1alpha1.Peer, pod string, g *gateway) {
	at := []string{g.endpoint().String()}
	entry := v1alpha1.Gateway{Pod: pod, PublicKey: g.private.Public().String(), Endpoints: at, ClusterEndpoints: at, StreamPort: 51821}
	others := slices.DeleteFunc(slices.Clone(p.Status.Gateways), func(o v1alpha1.Gateway) bool { return o.Pod == pod })
	p.Status.Gateways = append(others, entry)
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAdmitted}
	if w.trouble.Cut {
		ready.Status, ready.Reason = metav1.ConditionFalse, v1alpha1.ReasonExpired
	}
	p.Status.Conditions = []metav1.Condition{ready}
}
