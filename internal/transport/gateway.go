package transport

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/probe"
)

// path is one way to a gateway. It takes datagrams at any time; one that cannot
// carry them just now keeps or drops them, as it sees fit, and never blocks for
// longer than a moving stream makes it.
type path interface {
	send(bufs [][]byte, cancel <-chan struct{}) error
	status() PathStatus
	close() // waits for the path's goroutines
}

// PathStatus is how one path to a gateway does.
type PathStatus struct {
	Kind   Kind
	Remote string // address at the other end, as far as known
	Live   bool   // it has lately proved to work, in both directions
	RTT    time.Duration
	Since  time.Time // since when it is live; zero: it is not
	// Datagram is the largest datagram, in bytes, that is known to pass; 0: no
	// limit (a stream), or not known.
	Datagram  int
	RxBytes   uint64 // ciphertext from the gateway
	TxBytes   uint64
	Redials   int    // streams that had to be dialled anew
	Why       string // why it became the active one; empty: it is not
	LastError error  // why it is not live, or ended last; nil: never
}

// GatewayStatus is what a Gateway knows of its paths.
type GatewayStatus struct {
	Active   PathStatus   // carries the datagrams; Kind "": none is live
	Paths    []PathStatus // all, the active one first
	Draining bool         // the gateway asks to be left for another one
	// Observed is how the gateway sees our UDP; not valid: it has not said.
	Observed netip.AddrPort
}

// GatewayConfig is what a Gateway is made of.
type GatewayConfig struct {
	Key  probe.Key // of the two ends' WireGuard keys
	Only Kind      // the one kind of path to use; "": any
	// Stream dials the apiserver path; nil: there is none. It is called until
	// it succeeds, with back-off, and again whenever the stream has ended; it
	// must honour its context, which ends after 10 s at the latest.
	Stream func(context.Context) (net.Conn, error)
}

// Gateway is a remote gateway as seen from a laptop: a single conn.Endpoint to
// WireGuard, which sends on its active path and owns what arrives on any.
type Gateway struct {
	address
	sourceless
	b   *Bind
	log *slog.Logger

	mu      sync.Mutex
	active  path
	closed  bool
	changed chan struct{}
	init    initiation
}

var _ conn.Endpoint = (*Gateway)(nil)

// initiation is the last handshake initiation that was sent. WireGuard sends the
// next one 5 s later at the earliest, which is too long to wait when the path
// it took turns out to be dead.
type initiation struct {
	msg  []byte
	sent time.Time
}

// rekeyTimeout is WireGuard's pause between two initiations.
const rekeyTimeout = 5 * time.Second

// NewGateway makes a Gateway and begins to look for a path to it. From the first
// one on, the Bind takes UDP datagrams from the addresses of its Gateways only.
func (b *Bind) NewGateway(c GatewayConfig) *Gateway {
	b.mu.Lock()
	b.nextGate++
	g := &Gateway{address: address{synthetic(gatewayPrefix, b.nextGate)}, b: b, log: b.opt.Log, changed: make(chan struct{}, 1)}
	b.gateways[g.dst] = g
	b.epoch.Add(1)
	b.mu.Unlock()
	if c.Stream != nil && c.Only != UDP {
		g.UseStream(c.Stream)
	}
	return g
}

// SetUDP tells all UDP addresses at which the gateway may be, at most 32:
// published endpoints and candidates alike.
func (g *Gateway) SetUDP(addrs []netip.AddrPort) {
	if len(addrs) > 0 {
		g.UseUDP(addrs[0])
	}
}

// Rouse tells that the host's network has changed, or that it woke up.
func (g *Gateway) Rouse() {}

// Changed has something in it when something in Status has changed that a
// session cares about.
func (g *Gateway) Changed() <-chan struct{} { return g.changed }

// Wait waits until a path is live. Its error says what was tried and why that
// failed.
func (g *Gateway) Wait(ctx context.Context) error {
	for g.Status().Active.Kind == "" || !g.Status().Active.Live {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// Endpoint is the Gateway's name for tunnel.Peer.Endpoint.
func (g *Gateway) Endpoint() string { return g.DstToString() }

// UseUDP makes UDP to addr the active path.
func (g *Gateway) UseUDP(addr netip.AddrPort) {
	g.use(func() path { return newUDPPath(g, addr) })
}

// UseStream makes a stream the active path. dial is called until it succeeds,
// with back-off, and again whenever the stream has ended; it must honour its
// context, which ends after 10 s at the latest.
func (g *Gateway) UseStream(dial func(context.Context) (net.Conn, error)) {
	g.use(func() path { return newStreamPath(g, dial) })
}

func (g *Gateway) use(start func() path) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	old := g.active
	g.active = start()
	g.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// Status tells of the paths.
func (g *Gateway) Status() GatewayStatus {
	g.mu.Lock()
	p := g.active
	g.mu.Unlock()
	if p == nil {
		return GatewayStatus{}
	}
	st := p.status()
	return GatewayStatus{Active: st, Paths: []PathStatus{st}}
}

// Close ends the path and forgets the Gateway.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	old := g.active
	g.active = nil
	g.mu.Unlock()
	if old != nil {
		old.close()
	}
	g.b.mu.Lock()
	defer g.b.mu.Unlock()
	delete(g.b.gateways, g.dst)
	for a, p := range g.b.udpPaths {
		if p.g == g {
			delete(g.b.udpPaths, a)
		}
	}
	g.b.epoch.Add(1)
	return nil
}

// send is the Bind's Send to this endpoint.
func (g *Gateway) send(bufs [][]byte, cancel <-chan struct{}) error {
	g.mu.Lock()
	if len(bufs) == 1 && len(bufs[0]) == initiationSize && bufs[0][0] == msgInitiation {
		g.init.msg = append(g.init.msg[:0], bufs[0]...)
		g.init.sent = time.Now()
	}
	p := g.active
	g.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.send(bufs, cancel)
}

// pathUp is called by a path that has begun to carry datagrams. It repeats a
// handshake initiation that may have been lost with the path before, and has
// the tunnel show itself to the gateway on the new path.
func (g *Gateway) pathUp(p path) {
	g.mu.Lock()
	var again []byte
	if time.Since(g.init.sent) < rekeyTimeout {
		again = append(again, g.init.msg...)
	}
	g.mu.Unlock()
	if again != nil {
		p.send([][]byte{again}, nil)
	}
	g.b.notifyMoved()
}
