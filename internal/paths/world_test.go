package paths

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A link is the network under one path.
type link struct {
	kind    Kind
	delay   time.Duration // each way
	loss    float64       // each way; a stream is late instead
	cutOut  bool          // laptop to gateway
	cutIn   bool
	largest int // datagram; 0: any
	held    []func()
	counts  Traffic
	gateway Traffic // as the other end counts
}

func (l *link) cut(yes bool) { l.cutOut, l.cutIn = yes, yes }

// A world is a Set with links, a gateway that answers pings, and a clock.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	start  time.Time
	now    time.Time
	set    *Set
	links  map[ID]*link
	events events
	made   int

	// What the laptop's user does: a datagram each echo, to be answered.
	echo time.Duration

	log     []string // Use, Drop and Redial
	pings   map[ID]int
	ticks   int
	sleeper time.Time // no Tick before
}

func newWorld(t *testing.T, seed uint64) *world {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), start: start, now: start, set: New(Config{}), links: map[ID]*link{}, pings: map[ID]int{}}
	w.set.jitter = func(d time.Duration) time.Duration { return d*3/4 + time.Duration(w.rng.Int64N(int64(d/2))) }
	return w
}

func (w *world) add(id ID, l *link) *link {
	w.links[id] = l
	w.set.Add(w.now, id, l.kind)
	if l.kind == APIServer {
		w.set.Up(w.now, id, true)
	}
	return l
}

type event struct {
	at time.Time
	n  int
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) {
	w.made++
	heap.Push(&w.events, event{w.now.Add(d), w.made, do})
}

// pass carries something across a link, one way.
func (w *world) pass(l *link, cut func() bool, size int, then func()) {
	lost := w.rng.Float64() < l.loss || l.largest > 0 && size > l.largest
	if l.kind == APIServer {
		deliver := func() { then() }
		switch {
		case cut():
			l.held = append(l.held, deliver)
		case lost:
			w.after(l.delay+2*l.delay+200*time.Millisecond, deliver)
		default:
			w.after(l.delay, deliver)
		}
		return
	}
	if !lost && !cut() {
		w.after(l.delay, func() {
			if !cut() {
				then()
			}
		})
	}
}

func (w *world) there(l *link, size int, then func()) {
	w.pass(l, func() bool { return l.cutOut }, size, then)
}

func (w *world) back(l *link, size int, then func()) {
	w.pass(l, func() bool { return l.cutIn }, size, then)
}

// heal brings a link back, and with it what its stream has held.
func (w *world) heal(l *link) {
	l.cut(false)
	for _, f := range l.held {
		w.after(l.delay, f)
	}
	l.held = nil
}

func (w *world) act(a Action) {
	switch a := a.(type) {
	case Ping:
		l := w.links[a.ID]
		w.pings[a.ID]++
		w.there(l, a.Size, func() {
			r := Receipt{Received: uint32(l.gateway.Received), Sent: uint32(l.gateway.Sent)}
			w.back(l, a.Size, func() {
				if l.kind == APIServer {
					l.counts.Received += uint64(a.Size)
				}
				r.Here = uint32(l.counts.Received)
				w.set.Pong(w.now, a.ID, a.Seq, r)
			})
		})
	case Use:
		w.note("use %d: %s", a.ID, a.Why)
		if !w.set.State(a.ID).Live {
			w.t.Errorf("%v: path %d is used and not live", w.age(), a.ID)
		}
	case Drop:
		w.note("drop: %s", a.Why)
	case Redial:
		w.note("redial %d: %s", a.ID, a.Why)
	}
}

func (w *world) age() time.Duration { return w.now.Sub(w.start) }

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%8.3f ", w.age().Seconds())+fmt.Sprintf(format, args...))
}

// send has datagrams of so many bytes go out by the link of the active path.
func (w *world) send(l *link, size uint64) {
	l.counts.Sent += size
	if w.set.Resting() {
		w.tick()
	}
}

// talk makes the user talk from now on.
func (w *world) talk(every time.Duration) {
	if w.echo = every; every == 0 {
		return
	}
	w.after(every, func() {
		if w.echo != every {
			return
		}
		if id, ok := w.set.Active(); ok {
			l := w.links[id]
			w.send(l, 100)
			w.there(l, 100, func() { w.back(l, 100, func() { l.counts.Received += 100 }) })
		}
		w.talk(every)
	})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	w.until(d, func() bool { return false })
}

// until lets time pass until something is so, at most for limit, and tells how
// long that took.
func (w *world) until(limit time.Duration, so func() bool) time.Duration {
	w.t.Helper()
	begin, end := w.now, w.now.Add(limit)
	for {
		if so() {
			return w.now.Sub(begin)
		}
		next := w.set.Next(w.now)
		if !next.IsZero() && next.Before(w.sleeper) {
			next = w.sleeper
		}
		tick := !next.IsZero()
		if len(w.events) > 0 && (!tick || w.events[0].at.Before(next)) {
			next, tick = w.events[0].at, false
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			return limit
		}
		if next.After(w.now) {
			w.now = next
		}
		if !tick {
			heap.Pop(&w.events).(event).do()
			continue
		}
		w.tick()
	}
}

func (w *world) tick() {
	w.t.Helper()
	w.ticks++
	for _, a := range w.set.Tick(w.now, func(id ID) Traffic { return w.links[id].counts }) {
		w.act(a)
	}
	if again := w.set.Next(w.now); !again.IsZero() && !again.After(w.now) {
		w.t.Fatalf("%v: Tick is due again at once", w.age())
	}
}

func (w *world) active() ID {
	id, ok := w.set.Active()
	if !ok {
		return -1
	}
	return id
}

func (w *world) uses(id ID) func() bool { return func() bool { return w.active() == id } }

// within fails the test when something is not so in time.
func (w *world) within(limit time.Duration, what string, so func() bool) time.Duration {
	w.t.Helper()
	d := w.until(limit, so)
	if !so() {
		w.t.Errorf("%v: not within %v: %s\n%v", w.age(), limit, what, w.log)
	}
	return d
}
