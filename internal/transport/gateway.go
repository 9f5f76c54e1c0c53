package transport

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/probe"
)

// rekeyTimeout is WireGuard's pause between two initiations.
const rekeyTimeout = 5 * time.Second

// path is one way to a gateway.
type path interface {
	// send carries datagrams. It waits no longer than a moving stream makes
	// it, and returns errNotUp when there is nothing to carry them.
	send(bufs [][]byte, cancel <-chan struct{}) error
	// probe carries a control message, or fails, without waiting.
	probe(m []byte) error
	// leave tells that the datagrams go another way now.
	leave()
	// is reports whether what came by w came by this path.
	is(w way) bool
	traffic() paths.Traffic
	status() PathStatus
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
// WireGuard, which sends by its active path and owns what arrives by any.
// Which path is active follows from probes (internal/paths); one goroutine does
// what the paths.Set says.
type Gateway struct {
	address
	sourceless
	b      *Bind
	log    *slog.Logger
	number uint64 // the newest has the highest
	key    probe.Key
	only   Kind
	salt   uint64 // of TxIDs, so that no pong fits another Gateway's ping

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	once    sync.Once
	wake    chan struct{} // to run: look at the Set
	changed chan struct{}

	active  atomic.Pointer[activePath] // nil: none is live
	suspect atomic.Bool                // active is silent where it should not be
	resting atomic.Bool                // nothing goes out by active: who sends next wakes run
	held    held

	mu       sync.Mutex
	closed   bool
	set      *paths.Set
	paths    map[paths.ID]path
	nextID   paths.ID
	stream   *streamPath // nil: none
	udp      map[netip.AddrPort]*udpPath
	why      string
	draining bool
	observed netip.AddrPort
	moves    chan struct{} // closed, and made anew, when active changes
	told     told
	init     initiation
}

var _ conn.Endpoint = (*Gateway)(nil)

// activePath is an active path.
type activePath struct {
	path
	id paths.ID
}

// NewGateway makes a Gateway and begins to look for a path to it. From the first
// one on, the Bind takes UDP datagrams from the addresses of its Gateways only.
// Where two Gateways name the same address, datagrams that come from there are
// taken for the newer one's.
func (b *Bind) NewGateway(c GatewayConfig) *Gateway {
	b.mu.Lock()
	b.nextGate++
	g := &Gateway{
		address: address{synthetic(gatewayPrefix, b.nextGate)}, b: b, log: b.opt.Log, number: b.nextGate,
		key: c.Key, only: c.Only, salt: rand.Uint64(),
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), moves: make(chan struct{}),
		set: paths.New(paths.Config{Only: c.Only}), paths: map[paths.ID]path{}, udp: map[netip.AddrPort]*udpPath{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	b.gateways[g.dst] = g
	b.byKey[g.key.ID()] = append(slices.Clone(b.byKey[g.key.ID()]), g)
	b.epoch.Add(1)
	b.mu.Unlock()
	if c.Stream != nil && c.Only != UDP {
		g.mu.Lock()
		g.stream = newStreamPath(g, g.addLocked(APIServer), c.Stream)
		g.paths[g.stream.id] = g.stream
		g.mu.Unlock()
		g.wait.Go(func() { g.stream.run(g.ctx) })
	}
	g.wait.Go(g.run)
	return g
}

// addLocked makes a path known to the Set.
func (g *Gateway) addLocked(k Kind) paths.ID {
	g.nextID++
	g.set.Add(time.Now(), g.nextID, k)
	return g.nextID
}

// Endpoint is the Gateway's name for tunnel.Peer.Endpoint.
func (g *Gateway) Endpoint() string { return g.DstToString() }

// Rouse tells that the host's network has changed, or that it woke up: all
// paths are tried at once.
func (g *Gateway) Rouse() {
	g.mu.Lock()
	g.set.Rouse(time.Now())
	s := g.stream
	g.mu.Unlock()
	if s != nil {
		signal(s.doubt)
	}
	signal(g.wake)
}

// Close ends the paths and forgets the Gateway.
func (g *Gateway) Close() error {
	g.once.Do(func() {
		g.mu.Lock()
		g.closed = true
		if t := g.init.timer; t != nil {
			t.Stop()
		}
		for a, p := range g.udp {
			g.removeLocked(a, p)
		}
		g.mu.Unlock()
		g.active.Store(nil)
		g.cancel()
	})
	g.wait.Wait()
	b := g.b
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.gateways, g.dst)
	id := g.key.ID()
	b.byKey[id] = slices.DeleteFunc(slices.Clone(b.byKey[id]), func(o *Gateway) bool { return o == g })
	if len(b.byKey[id]) == 0 {
		delete(b.byKey, id)
	}
	b.epoch.Add(1)
	return nil
}

// run does what the Set says.
func (g *Gateway) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next time.Time
	for {
		g.mu.Lock()
		now := time.Now()
		if s := g.stream; s != nil && !next.IsZero() && now.Sub(next) > time.Second {
			signal(s.doubt) // we have slept
		}
		g.resting.Store(true) // what is sent after the counts were read wakes us
		todo := g.set.Tick(now, func(id paths.ID) paths.Traffic {
			if p := g.paths[id]; p != nil {
				return p.traffic()
			}
			return paths.Traffic{}
		})
		g.mu.Unlock()
		for _, a := range todo {
			g.do(a)
		}
		g.mu.Lock()
		g.tidyLocked(now)
		next = g.set.Next(now)
		if !g.set.Resting() {
			g.resting.Store(false)
		}
		g.mu.Unlock()

		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-g.wake:
		case <-g.ctx.Done():
			return
		}
	}
}

func (g *Gateway) do(a paths.Action) {
	switch a := a.(type) {
	case paths.Ping:
		g.ping(a)
	case paths.Use:
		g.mu.Lock()
		p := g.paths[a.ID]
		g.mu.Unlock()
		if p != nil {
			g.use(&activePath{p, a.ID}, a.Why)
		}
	case paths.Drop:
		g.use(nil, a.Why)
	case paths.Redial:
		g.mu.Lock()
		s := g.stream
		g.mu.Unlock()
		if s != nil && s.id == a.ID {
			s.redial(a.Why)
		}
	}
}

func (g *Gateway) ping(a paths.Ping) {
	g.mu.Lock()
	p, limit := g.paths[a.ID], g.set.State(a.ID).Datagram
	g.mu.Unlock()
	if p == nil {
		return
	}
	// A ping that cannot be sent is one that is not answered.
	p.probe(g.key.Append(nil, probe.Message{
		Kind: probe.Ping, TxID: g.txID(a.ID, a.Seq), Limit: limit, Size: a.Size,
	}))
}

// txID is a number that no other ping with this key has.
func (g *Gateway) txID(id paths.ID, seq uint32) uint64 {
	return g.salt ^ (uint64(id)<<32 | uint64(seq))
}

// use makes p, nil for none, the active path.
func (g *Gateway) use(p *activePath, why string) {
	old := g.active.Swap(p)
	g.mu.Lock()
	closed := g.closed
	if closed {
		g.active.Store(nil)
	}
	g.why = why
	close(g.moves)
	g.moves = make(chan struct{})
	g.mu.Unlock()
	if old != nil {
		old.leave()
	}
	if closed {
		return
	}
	if p == nil {
		g.log.Debug("no path", "err", why)
		return
	}
	st := p.status()
	g.log.Debug("path", "path", st.Kind, "addr", st.Remote, "reason", why)
	g.moved(p.path)
}

// moved is for when datagrams go a way on which they have not gone before. It
// sends what has waited, repeats a handshake initiation that may have been lost
// with the path before, and has the tunnel show itself to the gateway. What has
// waited goes on waiting when it goes into a stream: what cut UDP off may have cut
// the stream off as well.
func (g *Gateway) moved(p path) {
	first := g.held.show(time.Now())
	if _, udp := p.(*udpPath); udp {
		first = g.held.take(time.Now())
	}
	g.mu.Lock()
	if m := g.init.waiting(); m != nil {
		first = append(first, m)
	}
	g.mu.Unlock()
	// The path may be slow to take it, and probing must go on meanwhile.
	g.wait.Go(func() {
		if len(first) > 0 {
			p.send(first, g.ctx.Done())
		}
		g.b.notifyMoved()
	})
}

// send is the Bind's Send to this endpoint.
func (g *Gateway) send(bufs [][]byte, cancel <-chan struct{}) error {
	if len(bufs) == 1 && len(bufs[0]) == initiationSize && bufs[0][0] == msgInitiation {
		g.initiated(bufs[0])
	}
	if p := g.active.Load(); p != nil {
		if err := p.send(bufs, cancel); err != errNotUp {
			if g.resting.Load() && g.resting.Swap(false) {
				signal(g.wake)
			}
			if g.suspect.Load() {
				g.held.add(time.Now(), bufs)
			}
			return err
		}
	}
	g.held.add(time.Now(), bufs)
	return nil
}

// suspectLocked takes note of whether the active path is silent where it should
// not be. When it is not any more, what went by it meanwhile is repeated: by UDP it
// may be lost. A stream that still stands has lost nothing.
func (g *Gateway) suspectLocked(now time.Time) {
	a := g.active.Load()
	suspect := a != nil && g.set.State(a.id).Suspect
	if was := g.suspect.Swap(suspect); !was || suspect || a == nil {
		return
	}
	lost := g.held.take(now)
	if u, udp := a.path.(*udpPath); udp {
		g.againLocked(u, lost)
	}
}

// againLocked sends by a path what may have been lost there.
func (g *Gateway) againLocked(p *udpPath, lost [][]byte) {
	if len(lost) > 0 && !g.closed {
		// Probing must go on meanwhile.
		g.wait.Go(func() { p.send(lost, nil) })
	}
}

// heard acts on an authentic probe of the gateway. It runs where datagrams are
// received.
func (g *Gateway) heard(w way, m probe.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	now := time.Now()
	switch m.Kind {
	case probe.Pong:
		tx := m.TxID ^ g.salt
		id := paths.ID(tx >> 32)
		p := g.paths[id]
		if p == nil || !p.is(w) {
			return
		}
		g.set.Pong(now, id, uint32(tx), paths.Receipt{Received: m.Received, Sent: m.Sent, Here: uint32(p.traffic().Received)})
		if w.c == nil && m.Observed.IsValid() {
			g.observed = m.Observed
		}
	case probe.Ping:
		if w.c == nil {
			g.knockedLocked(now, w.from)
		}
		g.b.tell(w, g.key.Append(nil, probe.Message{Kind: probe.Pong, TxID: m.TxID, Size: m.Size}))
	}
	g.draining = g.draining || m.Draining
	signal(g.wake)
}

// streamChanged tells the Set whether a stream stands; fresh says that it is a
// new one, to which the datagrams under way, and the gateway, have to be moved.
func (g *Gateway) streamChanged(p *streamPath, fresh bool) {
	g.mu.Lock()
	// Whoever ends may tell later than whoever took its place.
	g.set.Up(time.Now(), p.id, p.current() != nil)
	g.mu.Unlock()
	if a := g.active.Load(); fresh && a != nil && a.id == p.id {
		g.moved(p)
	}
	signal(g.wake)
}

// tidyLocked passes on what the Set has learned.
func (g *Gateway) tidyLocked(now time.Time) {
	g.suspectLocked(now)
	for a, p := range g.udp {
		st := g.set.State(p.id)
		p.limitLocked(now, st.Datagram)
		if p.found && !st.Live && now.Sub(p.knocked) > foundFor {
			g.removeLocked(a, p)
		}
	}
	if next := g.tellLocked(); !next.equal(g.told) {
		g.told = next
		signal(g.changed)
	}
}
