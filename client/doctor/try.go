package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/internal/key"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/version"
)

const (
	// admitTime is for the gateway to see our Peer and answer, as in connect.
	admitTime = 9 * time.Second
	// tryTime is how long paths may take to prove themselves: some probes on a
	// bad line, or the dialling of a stream.
	tryTime = 4 * time.Second
	// lookEvery is how often they are looked at meanwhile.
	lookEvery = 50 * time.Millisecond
	// deleteTime is for taking back the enrolment.
	deleteTime = 5 * time.Second
	// lease in seconds is the shortest there is, for when nothing is taken back.
	lease = 60
	// maxCandidates is how many a Peer takes.
	maxCandidates = 16
)

// try enrols with a key of its own and probes every way to every gateway that
// admits it. No packet is sent into the cluster.
func (e *examination) try(ctx context.Context) (w ways, err error) {
	private, err := key.NewPrivate()
	if err != nil {
		return w, err
	}
	ns, name := e.Request.GatewayNamespace, cluster.PeerName(e.cluster.Whoami().User, "doctor")
	if err := e.enrol(ctx, ns, name, private.Public()); err != nil {
		return w, err
	}
	defer e.leave(ctx, ns, name)

	bind := transport.NewBind(transport.Options{Log: e.Log})
	port, stop, err := open(bind)
	if err != nil {
		return w, err
	}
	defer stop()
	gateways := make([]*transport.Gateway, 0, len(e.admitted.Status.Gateways))
	for _, g := range e.admitted.Status.Gateways {
		t, err := e.approach(bind, private, g)
		if err != nil {
			return w, err
		}
		defer t.Close()
		gateways = append(gateways, t)
	}
	e.mapped(ctx, bind, port, name, &w)
	watchPaths(ctx, gateways)
	for i, g := range e.admitted.Status.Gateways {
		w.gateways = append(w.gateways, seen(g, gateways[i].Status()))
	}
	return w, nil
}

func (e *examination) enrol(ctx context.Context, ns, name string, pub key.Public) error {
	ctx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	spec := v1alpha1.PeerSpec{PublicKey: pub.String(), LeaseSeconds: lease, Device: "doctor", ClientVersion: version.Version}
	err := e.cluster.CreatePeer(ctx, ns, name, spec)
	if err != nil {
		return err
	}
	e.admitted, err = e.cluster.Await(ctx, ns, name, nil)
	if err != nil {
		e.leave(ctx, ns, name)
	}
	return err
}

func (e *examination) leave(ctx context.Context, ns, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTime)
	defer cancel()
	if err := e.cluster.DeletePeer(ctx, ns, name); err != nil {
		e.Log.Info("peer of an examination stays until its lease ends", "peer", name, "err", err)
	}
}

// open makes a Bind work without a WireGuard device: somebody has to read for
// probes to be answered.
func open(b *transport.Bind) (port uint16, stop func(), err error) {
	fns, port, err := b.Open(0)
	if err != nil {
		return 0, nil, err
	}
	var wg sync.WaitGroup
	for _, receive := range fns {
		wg.Go(func() {
			n := b.BatchSize()
			bufs, sizes, eps := make([][]byte, n), make([]int, n), make([]conn.Endpoint, n)
			for i := range bufs {
				bufs[i] = make([]byte, 2048) // nobody sends us more than probes
			}
			for err := error(nil); !errors.Is(err, net.ErrClosed); {
				_, err = receive(bufs, sizes, eps)
			}
		})
	}
	return port, func() { _ = b.Close(); wg.Wait() }, nil
}

// approach begins to try every path to one gateway.
func (e *examination) approach(b *transport.Bind, private key.Private, g v1alpha1.Gateway) (*transport.Gateway, error) {
	pub, err := key.ParsePublic(g.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("the key of gateway %s: %w", g.Pod, err)
	}
	k, err := probe.NewKey(private, pub)
	if err != nil {
		return nil, fmt.Errorf("the key of gateway %s: %w", g.Pod, err)
	}
	t := b.NewGateway(transport.GatewayConfig{Key: k, Stream: func(ctx context.Context) (net.Conn, error) {
		return e.cluster.DialPod(ctx, e.Request.GatewayNamespace, g.Pod, uint16(g.StreamPort))
	}})
	t.SetUDP(parsed(slices.Concat(g.Endpoints, g.Candidates)))
	return t, nil
}

func parsed(texts []string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, t := range texts {
		if a, err := netip.ParseAddrPort(t); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// mapped asks the STUN servers that the gateway names how they see us, and
// tells the gateway, which then opens its own NAT for us.
func (e *examination) mapped(ctx context.Context, b *transport.Bind, port uint16, name string, w *ways) {
	servers := e.admitted.Status.Network.STUN
	if len(servers) == 0 {
		return
	}
	var answers []nat.Answer
	for _, s := range servers {
		m := mapping{server: s}
		at, err := resolve(ctx, s)
		var seen netip.AddrPort
		if err == nil {
			seen, err = b.STUN(ctx, at)
		}
		if m.err = err; err == nil {
			m.mapped = seen.String()
			answers = append(answers, nat.Answer{Server: at, Mapped: seen})
		}
		w.stun = append(w.stun, m)
	}
	found := nat.Look(port, answers)
	w.nat = string(found.Kind)
	candidates := nat.Candidates(own(port), found, nil, maxCandidates)
	if err := e.cluster.SetCandidates(ctx, e.Request.GatewayNamespace, name, candidates); err != nil {
		e.Log.Info("cannot tell the gateway where to send probes", "err", err)
	}
}

// resolve finds the address of a STUN server, IPv4 if it has one.
func resolve(ctx context.Context, server string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	i := max(0, slices.IndexFunc(all, func(a netip.Addr) bool { return a.Unmap().Is4() }))
	return netip.AddrPortFrom(all[i].Unmap(), uint16(n)), nil
}

// own are the addresses of this machine's interfaces with a port.
func own(port uint16) []netip.AddrPort {
	var all []netip.AddrPort
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, netip.AddrPortFrom(p.Addr().Unmap(), port))
		}
	}
	return all
}

// watchPaths waits until every path has proved all that it can, or for tryTime.
func watchPaths(ctx context.Context, all []*transport.Gateway) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	proved := func(p transport.PathStatus) bool {
		return p.Live && (p.Kind == transport.APIServer || p.Datagram >= probe.MaxSize)
	}
	for slices.ContainsFunc(all, func(g *transport.Gateway) bool {
		s := g.Status()
		return s.Active.Kind == "" || slices.ContainsFunc(s.Paths, func(p transport.PathStatus) bool { return !proved(p) })
	}) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// seen is what became of the ways to g, the stream first.
func seen(g v1alpha1.Gateway, s transport.GatewayStatus) gateway {
	out := gateway{pod: g.Pod, nat: g.NAT}
	for _, p := range s.Paths {
		w := way{kind: string(p.Kind), remote: p.Remote, live: p.Live, rtt: p.RTT, datagram: p.Datagram}
		w.candidate = p.Kind == transport.UDP && !slices.Contains(g.Endpoints, p.Remote)
		if p.LastError != nil {
			w.why = p.LastError.Error()
		}
		out.paths = append(out.paths, w)
	}
	slices.SortStableFunc(out.paths, func(a, b way) int {
		if a.kind != b.kind && a.kind == apiserver {
			return -1
		} else if a.kind != b.kind {
			return 1
		}
		return 0
	})
	return out
}
