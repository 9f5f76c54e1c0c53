package transport

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"podnet.dev/internal/probe"
)

const (
	// punchEvery is between two pings to an address, of which a burst has
	// punchBurst. The laptop tries for as long on its side.
	punchEvery = 200 * time.Millisecond
	punchBurst = 25
	// A laptop that is there but not by UDP is knocked for again: NATs and
	// links come back without anybody's telling.
	punchAgain = 2 * time.Second
	// maxPunch is how many addresses of a laptop are pinged.
	maxPunch = 16
	// punchBudget is how many pings go out in punchEvery, for all laptops: 64
	// kB/s. The rest waits for its turn.
	punchBudget = 200
)

// puncher opens the way for laptops: a NAT in front of the gateway lets in what
// comes from where the gateway has sent to.
type puncher struct {
	b *Bind

	mu      sync.Mutex
	wishes  map[probe.ID]*wish
	running bool
	wait    sync.WaitGroup
}

// wish is the addresses at which a laptop may be.
type wish struct {
	to   []netip.AddrPort
	left []int // pings of the burst, for each
	last time.Time
}

// Punch sends pings to addresses at which the owner of a key may be, so that
// NATs on the way let his through: 5 a second for 5 s to each, at most 16, and
// again when they change; slowly again for as long as he probes by other ways
// only. nil ends it. Others than those whom the Bind answers are not pinged.
// That the addresses are harmless is for the caller to see to.
func (b *Bind) Punch(id probe.ID, to []netip.AddrPort) {
	u := &b.puncher
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(to) == 0 {
		delete(u.wishes, id)
		return
	}
	next := &wish{}
	old := u.wishes[id]
	for _, addr := range to[:min(len(to), maxPunch)] {
		left := punchBurst
		if old != nil {
			if i := slices.Index(old.to, addr); i >= 0 {
				left = old.left[i]
			}
		}
		next.to, next.left = append(next.to, addr), append(next.left, left)
	}
	u.wishes[id] = next
	u.startLocked()
}

// start goes on after the Bind was closed and opened.
func (u *puncher) start() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.startLocked()
}

func (u *puncher) startLocked() {
	closed := u.b.closed.Load()
	if u.running || closed == nil || len(u.wishes) == 0 {
		return
	}
	u.running = true
	u.wait.Go(func() { u.run(*closed) })
}

// run pings until the Bind closes or nobody wishes it any more.
func (u *puncher) run(closed <-chan struct{}) {
	tick := time.NewTicker(punchEvery)
	defer tick.Stop()
	for {
		todo, ok := u.round(time.Now())
		if !ok {
			return
		}
		for _, p := range todo {
			u.b.tell(way{from: p.to}, p.by.key.Append(nil, probe.Message{
				Kind: probe.Ping, FromGateway: true, TxID: rand.Uint64(),
				Draining: u.b.answers.draining.Load(),
			}))
		}
		select {
		case <-tick.C:
		case <-closed:
			u.mu.Lock()
			u.running = false
			u.mu.Unlock()
			return
		}
	}
}

// knock is a ping to send.
type knock struct {
	by *prober
	to netip.AddrPort
}

// round is the pings that are due. It reports false when there will be no more.
func (u *puncher) round(now time.Time) (todo []knock, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.wishes) == 0 {
		u.running = false
		return nil, false
	}
	for id, w := range u.wishes { // in random order, which is fair
		p := u.b.answers.prober(id)
		if p == nil {
			continue
		}
		again := now.Sub(w.last) >= punchAgain && u.b.answers.missedByUDP(p, now)
		sent := false
		for i, to := range w.to {
			if len(todo) == punchBudget {
				break
			}
			if w.left[i] > 0 || again {
				w.left[i] = max(0, w.left[i]-1)
				todo = append(todo, knock{p, to})
				sent = true
			}
		}
		if sent {
			w.last = now
		}
	}
	return todo, true
}

// missedByUDP reports whether a laptop is there, but not by UDP.
func (a *answers) missedByUDP(p *prober, now time.Time) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return now.Sub(p.at) < recent && now.Sub(p.udpAt) >= recent/2
}
