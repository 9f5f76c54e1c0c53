package transport

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/probe"
)

const (
	// A laptop pings its paths every 2 s, and dead ones every 4 s or so. What
	// it has not pinged for wayFor is no way to it any more.
	wayFor = time.Minute
	// recent is for what a notice should reach.
	recent = 10 * time.Second
	// maxWays is how many UDP addresses and streams are remembered of each
	// laptop. It uses one or two.
	maxWays = 8
)

// answers is the gateway's side of probing. It knows whom to answer, answers by
// the way the question came, and remembers what questions tell of the ways back.
type answers struct {
	b        *Bind
	draining atomic.Bool
	known    atomic.Pointer[map[probe.ID]*prober]

	mu  sync.RWMutex
	udp map[netip.AddrPort]*udpWay
}

// prober is a laptop that may ask.
type prober struct {
	key probe.Key

	// Under answers.mu.
	at      time.Time // of the last ping
	kind    Kind      // that it came by
	udpAt   time.Time // of the last one by UDP
	udp     []netip.AddrPort
	streams []*carrier
	second  time.Time // since when addresses are counted that were not known,
	fresh   int       // and how many there were
}

// udpWay is a UDP address from which an authentic ping has come.
type udpWay struct {
	p     *prober
	to    netip.Addr // ours
	at    time.Time
	limit int // the longest datagram that passes, in bytes

	received, sent atomic.Uint64 // bytes of datagrams, without probes
	pings          atomic.Uint64

	quiet silence
	held  held        // of what was sent there while it was quiet
	long  repetitions // of what was sent there
	shake shake
}

// sends takes note of what is being sent there, the longest of it n bytes.
func (w *udpWay) sends(now time.Time, bufs [][]byte, n int) {
	if w.quiet.lasts(now, w.received.Load()+w.pings.Load()) {
		w.held.add(now, bufs)
	}
	if n > paths.MinDatagram {
		w.long.note(now, bufs)
	}
	if len(bufs) == 1 && len(bufs[0]) > 0 && bufs[0][0] == msgResponse {
		w.shake.response(bufs[0])
	}
}

func (a *answers) prober(id probe.ID) *prober {
	if known := a.known.Load(); known != nil {
		return (*known)[id]
	}
	return nil
}

// Answer makes the Bind answer the probes made with these keys and no others.
func (b *Bind) Answer(keys []probe.Key) {
	gone := b.answers.set(keys)
	b.epoch.Add(1)
	for _, id := range gone {
		b.Punch(id, nil)
	}
}

// set returns whose probes are not answered any more.
func (a *answers) set(keys []probe.Key) (gone []probe.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := make(map[probe.ID]*prober, len(keys))
	for _, k := range keys {
		if p := a.prober(k.ID()); p != nil && p.key == k {
			next[k.ID()] = p
		} else {
			next[k.ID()] = &prober{key: k}
		}
	}
	if known := a.known.Swap(&next); known != nil {
		for id, p := range *known {
			if next[id] != p {
				gone = append(gone, id)
			}
		}
	}
	for addr, w := range a.udp {
		if next[w.p.key.ID()] != w.p {
			delete(a.udp, addr)
		}
	}
	return gone
}

// heard acts on an authentic probe of a laptop.
func (a *answers) heard(p *prober, w way, m probe.Message) {
	if m.Kind != probe.Ping {
		return // the pong to a ping that has already done its work in NATs
	}
	now := time.Now()
	shrunk := a.remember(p, w, m.Limit, now)
	pong := probe.Message{
		Kind: probe.Pong, FromGateway: true, Draining: a.draining.Load(),
		TxID: m.TxID, Observed: w.from, Size: m.Size,
	}
	if known := a.way(w.from); w.c == nil && known != nil {
		pong.Received, pong.Sent = uint32(known.received.Load()), uint32(known.sent.Load())
	}
	a.b.tell(w, p.key.Append(nil, pong))
	if w.c == nil {
		a.repeat(w, now, shrunk)
	}
}

// repeat sends once more what went to an address that had fallen silent and has
// pinged again, and what was too long for a path that has shrunk. Nothing goes
// anywhere else: a ping may be a replay.
func (a *answers) repeat(w way, now time.Time, shrunk bool) {
	known := a.way(w.from)
	if known == nil {
		return
	}
	lost := known.held.take(now)
	if shrunk {
		lost = append(lost, known.long.take(now)...)
	}
	known.long.tidy(now)
	if len(lost) > 0 {
		a.b.Send(lost, a.b.newUDPEndpoint(w.from, w.to))
	}
}

// way is what is known of a UDP address; nil: nobody who probes is there.
func (a *answers) way(addr netip.AddrPort) *udpWay {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.udp[addr]
}

// remember takes note of a ping, and reports whether shorter datagrams pass where it
// came from than before.
func (a *answers) remember(p *prober, w way, limit int, now time.Time) (shrunk bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.at, p.kind = now, w.kind()
	if w.c != nil {
		if !slices.Contains(p.streams, w.c) {
			p.streams = append(p.streams[max(0, len(p.streams)-maxWays+1):], w.c)
		}
		return false
	}
	p.udpAt = now
	// A path is not used before it has carried MinDatagram.
	limit = max(limit, paths.MinDatagram)
	if old := a.udp[w.from]; old != nil && old.p == p {
		shrunk = limit < old.limit
		old.at, old.to, old.limit = now, w.to, limit
		old.pings.Add(1)
		return shrunk
	}
	// Each new one makes the receivers look at all their senders again, which
	// a laptop must not have them do all the time.
	if now.Sub(p.second) >= time.Second {
		p.second, p.fresh = now, 0
	}
	if p.fresh++; p.fresh > maxWays {
		return false
	}
	p.udp = slices.DeleteFunc(p.udp, func(addr netip.AddrPort) bool {
		old := a.udp[addr]
		gone := old == nil || old.p != p
		if !gone && now.Sub(old.at) > wayFor {
			delete(a.udp, addr)
			gone = true
		}
		return gone
	})
	if len(p.udp) == maxWays {
		slices.SortFunc(p.udp, func(x, y netip.AddrPort) int { return a.udp[x].at.Compare(a.udp[y].at) })
		delete(a.udp, p.udp[0])
		p.udp = p.udp[1:]
	}
	p.udp = append(p.udp, w.from)
	a.udp[w.from] = &udpWay{p: p, to: w.to, at: now, limit: limit}
	a.b.epoch.Add(1) // pieces are welcome from there now
	return false
}

// forget ends what is known of a stream.
func (a *answers) forget(c *carrier) {
	known := a.known.Load()
	if known == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range *known {
		p.streams = slices.DeleteFunc(p.streams, func(s *carrier) bool { return s == c })
	}
}

// limit is the longest datagram that reaches a laptop at addr, in bytes; 0: none of
// those that probe is there.
func (a *answers) limit(addr netip.AddrPort) int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if w := a.udp[addr]; w != nil {
		return w.limit
	}
	return 0
}

// LastProbe tells when, and by which kind of path, the owner of a key last
// probed this Bind; zero: never.
func (b *Bind) LastProbe(id probe.ID) (at time.Time, kind Kind) {
	p := b.answers.prober(id)
	if p == nil {
		return time.Time{}, ""
	}
	b.answers.mu.RLock()
	defer b.answers.mu.RUnlock()
	return p.at, p.kind
}

// Drain makes the Bind ask those who probe it to go to another gateway, now and
// with each answer.
func (b *Bind) Drain() {
	a := &b.answers
	a.draining.Store(true)
	known := a.known.Load()
	if known == nil {
		return
	}
	for _, p := range *known {
		var ways []way
		a.mu.RLock()
		for _, addr := range p.udp {
			if w := a.udp[addr]; w != nil && w.p == p && time.Since(w.at) < recent {
				ways = append(ways, way{from: addr, to: w.to})
			}
		}
		for _, c := range p.streams {
			ways = append(ways, way{c: c})
		}
		a.mu.RUnlock()
		notice := p.key.Append(nil, probe.Message{Kind: probe.Notice, FromGateway: true, Draining: true})
		for _, w := range ways {
			b.tell(w, notice)
		}
	}
}
