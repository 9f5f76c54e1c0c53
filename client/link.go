package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// Paths that may be asked for.
const (
	PathAuto      = "auto"
	PathUDP       = "udp"
	PathAPIServer = "apiserver"
)

const (
	// pathTime is how long a gateway may take to answer on some path.
	pathTime = 8 * time.Second
	// udpGrace is how long UDP may still win when the stream answered first.
	udpGrace = 150 * time.Millisecond
	// headStart is what the gateway that is liked best has on the next.
	headStart = time.Second
	// greetTime is how long one handshake may take, greetTries how many are
	// made. WireGuard itself would try again after 5 s only.
	greetTime  = 1500 * time.Millisecond
	greetTries = 3
	// keepalive keeps NAT mappings open and tells a dead gateway from a silent
	// one; WireGuard's usual value.
	keepalive = 25 * time.Second
)

// link is the WireGuard device and the one gateway that it speaks to. The paths
// to that gateway are the transport's business, which gateway it is the
// session's.
type link struct {
	log    *slog.Logger
	name   string // of the interface
	only   transport.Kind
	bind   *transport.Bind
	tunnel wireGuard
	// dial opens a stream to a port of a gateway's pod.
	dial func(ctx context.Context, pod string, port uint16) (net.Conn, error)
	// rekeyed hears of the device's key when it becomes another one.
	rekeyed func(key.Public)

	// peers is held while the device's peers are changed.
	peers sync.Mutex

	mu      sync.Mutex
	current *remote // nil: none yet
	opened  map[*remote]bool
	// invited is the member that the gateways have been told to knock at; nil:
	// none. See invite.
	invited *member
	// rx and tx count what went to peers of the device that are no more.
	rx, tx uint64
}

// remote is one gateway process as reached with one key of ours.
type remote struct {
	*transport.Gateway
	l      *link
	of     *member
	entry  v1alpha1.Gateway
	public key.Public
	self   key.Public
	only   transport.Kind

	// endpoints and candidates are where it may be; l.mu guards them.
	endpoints, candidates []netip.AddrPort
}

// newLink starts the device. It owns dev, also when it fails.
func newLink(dev tun.Device, private key.Private, only transport.Kind, log *slog.Logger) (*link, error) {
	name, err := dev.Name()
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	bind := transport.NewBind(transport.Options{Log: log})
	t, err := tunnel.New(dev, bind, tunnel.Config{PrivateKey: private, Log: log})
	if err != nil {
		return nil, err
	}
	return linkOf(name, bind, t, only, log), nil
}

func linkOf(name string, bind *transport.Bind, t wireGuard, only transport.Kind, log *slog.Logger) *link {
	return &link{log: log, name: name, only: only, bind: bind, tunnel: t, opened: map[*remote]bool{}}
}

// open begins to look for paths to a gateway. The device knows nothing of it.
func (l *link) open(m *member, gw v1alpha1.Gateway) (*remote, error) {
	public, err := key.ParsePublic(gw.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("the key of gateway %s: %w", gw.Pod, err)
	}
	secret, err := probe.NewKey(m.private, public)
	if err != nil {
		return nil, fmt.Errorf("the key of gateway %s: %w", gw.Pod, err)
	}
	c := transport.GatewayConfig{Key: secret, Only: l.only}
	if l.only != transport.UDP {
		c.Stream = func(ctx context.Context) (net.Conn, error) { return l.dial(ctx, gw.Pod, uint16(gw.StreamPort)) }
	}
	r := &remote{Gateway: l.bind.NewGateway(c), l: l, of: m, public: public, self: m.private.Public(), only: l.only}
	l.mu.Lock()
	l.opened[r] = true
	l.mu.Unlock()
	r.aim(gw)
	return r, nil
}

// Close forgets the gateway.
func (r *remote) Close() error {
	r.l.mu.Lock()
	delete(r.l.opened, r)
	r.l.mu.Unlock()
	return r.Gateway.Close()
}

// aim tells where the gateway may be reached by UDP.
func (r *remote) aim(gw v1alpha1.Gateway) {
	r.entry = gw
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.endpoints, r.candidates = addresses(gw, slices.Concat(r.of.network.prefixes, r.of.network.routed()))
	r.pointLocked()
}

func (r *remote) pointLocked() {
	if r.only == transport.APIServer {
		return
	}
	all := r.endpoints
	if r.l.invited == r.of && (r.l.current == r || r.only == transport.UDP) {
		all = slices.Concat(r.endpoints, r.candidates)
	}
	r.SetUDP(all)
}

// invite lets pings go to the gateways' candidates, which have begun to knock at
// m's; with nil they end. The order matters where NATs are. A ping that reaches
// the gateway's NAT before the gateway has sent anything takes the very mapping
// that the gateway's own would have got; and one that leaves our NAT before the
// STUN servers were asked takes the port that would have been predicted. For the
// same reason a gateway that is only tried gets none, if there is a stream.
func (l *link) invite(m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.invited = m
	for r := range l.opened {
		r.pointLocked()
	}
}

// wait returns when a path is live: UDP, or the stream when UDP does not answer
// within a moment of it.
func (r *remote) wait(ctx context.Context) error {
	grace := time.NewTimer(0)
	grace.Stop()
	defer grace.Stop()
	streamed := false
	for {
		st := r.Status()
		switch st.Active.Kind {
		case transport.UDP:
			return nil
		case transport.APIServer:
			if !mayTurnUDP(st) {
				return nil
			}
			if !streamed {
				streamed = true
				grace.Reset(udpGrace)
			}
		default:
			if err := hopeless(st); err != nil {
				return err
			}
		}
		select {
		case <-r.Changed():
		case <-grace.C:
			if streamed = false; r.Status().Active.Kind != "" {
				return nil
			}
		case <-ctx.Done():
			return r.silence(ctx)
		}
	}
}

func mayTurnUDP(st transport.GatewayStatus) bool {
	for _, p := range st.Paths {
		if p.Kind == transport.UDP {
			return true
		}
	}
	return false
}

// silence is the error of a gateway that answers on no path.
func (r *remote) silence(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return context.Canceled
	}
	if r.only == transport.UDP {
		return &localapi.Error{Code: localapi.CodeTimeout, Message: "no UDP path to the gateway: " + noUDP(r.Status(), outlook{only: r.only, published: len(r.entry.Endpoints)}),
			Hint: "--path auto goes through the API server; podnet install --node-port opens a UDP port", Status: http.StatusGatewayTimeout}
	}
	return &localapi.Error{Code: localapi.CodeTimeout, Message: "no path to the gateway: " + failures(r.Status()),
		Hint: "kubectl port-forward must work, and the gateway's pod must run: podnet doctor", Status: http.StatusGatewayTimeout}
}

// find tries gateways, in the order of preference, until one answers on some
// path. The others are forgotten.
func (l *link) find(ctx context.Context, m *member, contenders []v1alpha1.Gateway) (*remote, error) {
	if len(contenders) == 0 {
		return nil, errors.New("there is no gateway to go to")
	}
	ctx, cancel := context.WithTimeout(ctx, pathTime)
	defer cancel()
	type answer struct {
		r   *remote
		err error
	}
	answers := make(chan answer, len(contenders))
	for i, gw := range contenders {
		go func() {
			start := time.NewTimer(time.Duration(i) * headStart)
			defer start.Stop()
			select {
			case <-start.C:
			case <-ctx.Done():
				answers <- answer{err: ctx.Err()}
				return
			}
			r, err := l.open(m, gw)
			if err == nil {
				if err = r.wait(ctx); err != nil {
					err = errors.Join(err, r.Close())
				}
			}
			answers <- answer{r, err}
		}()
	}
	var found *remote
	var why error
	for range contenders {
		switch a := <-answers; {
		case a.err != nil && why == nil:
			why = a.err
		case a.err != nil:
		case found == nil:
			found = a.r
			cancel()
		default:
			_ = a.r.Close() // a moment too late
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, why
}

// adopt makes r the device's gateway, with the key of m, and lets go of the one
// before. The handshake is under way when it returns.
func (l *link) adopt(m *member, r *remote) error {
	l.peers.Lock()
	defer l.peers.Unlock()
	if err := l.setLocked(m, r); err != nil {
		return err
	}
	l.mu.Lock()
	old := l.current
	l.current = r
	r.pointLocked()
	l.mu.Unlock()
	if old != nil && old != r {
		return old.Close()
	}
	return nil
}

// setLocked makes r a new peer of the device, so that a handshake goes out at
// once; l.peers is held.
func (l *link) setLocked(m *member, r *remote) error {
	if st, ok := l.peerStats(); ok {
		l.mu.Lock()
		l.rx, l.tx = l.rx+st.RxBytes, l.tx+st.TxBytes
		l.mu.Unlock()
	}
	if err := l.tunnel.SetPeers(nil); err != nil {
		return err
	}
	if l.tunnel.PublicKey() != r.self {
		if err := l.tunnel.SetPrivateKey(m.private); err != nil {
			return err
		}
		l.rekeyed(r.self)
	}
	return l.tunnel.SetPeers([]tunnel.Peer{r.peer(m)})
}

func (r *remote) peer(m *member) tunnel.Peer {
	return tunnel.Peer{PublicKey: r.public, Endpoint: r.Endpoint(), AllowedIPs: m.network.inside(), Keepalive: keepalive}
}

// allow follows m's network without touching the WireGuard session.
func (l *link) allow(m *member) error {
	l.peers.Lock()
	defer l.peers.Unlock()
	r := l.remote()
	if r.self != m.private.Public() {
		return nil // adopt will tell
	}
	return l.tunnel.SetPeers([]tunnel.Peer{r.peer(m)})
}

// greet waits for a handshake with r, and asks again when none comes. fresh says
// that the device has just been told of r.
func (l *link) greet(ctx context.Context, m *member, r *remote, fresh bool) error {
	var err error
	for i := range greetTries {
		if i > 0 || !fresh {
			if err := l.again(m, r); err != nil {
				return err
			}
		}
		wait, cancel := context.WithTimeout(ctx, max(greetTime, 4*r.Status().Active.RTT))
		err = l.tunnel.WaitHandshake(wait, r.public)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// errReplaced is returned when the gateway in use is another one by now.
var errReplaced = errors.New("another gateway is in use")

func (l *link) again(m *member, r *remote) error {
	l.peers.Lock()
	defer l.peers.Unlock()
	if l.remote() != r {
		return errReplaced
	}
	return l.setLocked(m, r)
}

// remote is the gateway in use; nil before the first.
func (l *link) remote() *remote {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// peerStats is what the device knows of its peer.
func (l *link) peerStats() (tunnel.PeerStats, bool) {
	all, err := l.tunnel.Stats()
	if err != nil || len(all) == 0 {
		return tunnel.PeerStats{}, false
	}
	return all[0], true
}

// counted are the bytes of the session in all, and the last handshake.
func (l *link) counted() (rx, tx uint64, handshake time.Time) {
	st, _ := l.peerStats()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rx + st.RxBytes, l.tx + st.TxBytes, st.LastHandshake
}

// Close ends the device and its gateway.
func (l *link) Close() error {
	var err error
	if r := l.remote(); r != nil {
		err = r.Close()
	}
	return errors.Join(err, l.tunnel.Close())
}
