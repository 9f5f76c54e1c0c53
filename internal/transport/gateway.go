package transport

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// path is one way to a gateway. It takes datagrams at any time; one that cannot
// carry them just now keeps or drops them, as it sees fit, and never blocks for
// longer than a moving stream makes it.
type path interface {
	send(bufs [][]byte, cancel <-chan struct{}) error
	status() PathStatus
	close() // waits for the path's goroutines
}

// PathStatus is how a Gateway's active path does.
type PathStatus struct {
	Kind   Kind   // "": no path yet
	Remote string // address at the other end, as far as known
	// Up says that datagrams can be handed over. For UDP that proves nothing;
	// only a handshake does.
	Up        bool
	Since     time.Time // when the path, or its present stream, came up
	RxBytes   uint64    // ciphertext from the gateway since the path was chosen
	TxBytes   uint64
	Redials   int   // streams that had to be dialled anew
	LastError error // why the last stream ended or a dial failed; nil: never
}

// Gateway is a remote gateway as seen from a laptop: a single conn.Endpoint to
// WireGuard, which sends on its active path and owns what arrives on any.
type Gateway struct {
	address
	sourceless
	b   *Bind
	log *slog.Logger

	mu     sync.Mutex
	active path
	closed bool
	init   initiation
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

// NewGateway makes a Gateway without a path. From the first one on, the Bind
// takes UDP datagrams from the addresses of its Gateways only.
func (b *Bind) NewGateway() *Gateway {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nextGate++
	g := &Gateway{address: address{synthetic(gatewayPrefix, b.nextGate)}, b: b, log: b.opt.Log}
	b.gateways[g.dst] = g
	b.epoch.Add(1)
	return g
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

// Status tells of the active path.
func (g *Gateway) Status() PathStatus {
	g.mu.Lock()
	p := g.active
	g.mu.Unlock()
	if p == nil {
		return PathStatus{}
	}
	return p.status()
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
