// Package paths decides which of several ways to a gateway carries a laptop's
// datagrams: it says when to ping which path, judges by the pongs which ones
// work in both directions and for which size of datagram, and picks one. It is
// pure: no sockets, no clock, no goroutines. internal/transport does what it
// says and tells it what came of it.
package paths

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is a way for datagrams.
type Kind string

const (
	// UDP is one datagram per message.
	UDP Kind = "udp"
	// APIServer is a stream through the Kubernetes API. It has to be dialled.
	APIServer Kind = "apiserver"
)

// ID names a path; the caller chooses it.
type ID int

// Config is what a Set is to know from the start.
type Config struct {
	// Only, if not empty, is the one kind of path to be used. Those of another
	// kind are ignored.
	Only Kind
}

// SmallestPing is the size in bytes of a ping that only asks for life.
const SmallestPing = 64

// Traffic counts the bytes that a path has carried since it was added. The
// counts never go back.
type Traffic struct {
	// Sent counts datagrams, without probes.
	Sent uint64
	// Received counts datagrams, without probes; of a stream every byte that was
	// read, whatever it was.
	Received uint64
}

// Receipt is what a pong by UDP tells of what was carried: bytes of datagrams, without
// probes and modulo 2^32, of which the gateway had Received and Sent so many by this
// path when it answered, and as many were Here as Traffic.Received when the answer
// came. Received and Sent are both 0 where a gateway does not tell, and by a stream.
type Receipt struct{ Received, Sent, Here uint32 }

// State is what is known of a path.
type State struct {
	// Live says that it has lately proved to work in both directions.
	Live bool
	// Suspect says that a live path is silent where it should not be.
	Suspect bool
	// RTT is the smoothed round trip; 0: never measured.
	RTT time.Duration
	// Datagram is the largest datagram in bytes that was seen to pass in both
	// directions, MinDatagram to MaxDatagram; 0 for a stream, which has no limit,
	// and for a path that is not live.
	Datagram int
	// Since is when it became live; zero: it is not.
	Since time.Time
	// LastHeard is when anything last came by it; zero: never.
	LastHeard time.Time
	// Unanswered counts the pings in a row that no pong has answered yet.
	Unanswered int
}

// Action is one thing to be done now: a Ping, Use, Drop or Redial.
type Action interface{ action() }

// Ping asks for a ping on a path. Its pong, of the same size, is to be reported
// with its Seq.
type Ping struct {
	ID   ID
	Seq  uint32
	Size int // of the datagram in bytes, SmallestPing to MaxDatagram
}

// Use moves the datagrams to a path.
type Use struct {
	ID  ID
	Why string // for people
}

// Drop says that no live path is left: nobody knows a way for the datagrams.
type Drop struct {
	Why string // for people: what became of the last one
}

// Redial asks for a new stream in the place of a dead one.
type Redial struct {
	ID  ID
	Why string // for people
}

func (Ping) action()   {}
func (Use) action()    {}
func (Drop) action()   {}
func (Redial) action() {}

// late is how much later than Next a Tick may come. One that is later says that
// this process did not run, so that pongs may wait unread.
const late = time.Second

// Set is the paths to one gateway. It is not safe for concurrent use.
//
// The caller drives it: Tick when Next says so, or sooner, and after every call of
// another method look at Next again, which may have become now.
type Set struct {
	config Config
	paths  []*path // in the order they were added
	jitter func(time.Duration) time.Duration

	active *path     // carries the datagrams; nil: none does
	race   time.Time // until when UDP may overtake the stream that was first
	load   load      // on the active path
	rival  rival     // the stream, where UDP loses datagrams

	soon    bool      // something has happened: Tick at once
	planned time.Time // when the next Tick was due as the last one ended; zero: never
}

// New makes an empty Set.
func New(c Config) *Set { return &Set{config: c, jitter: jitter} }

// jitter is d give or take a quarter, so that many laptops do not knock in step.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}

func (s *Set) find(id ID) *path {
	for _, p := range s.paths {
		if p.id == id {
			return p
		}
	}
	return nil
}

// Add adds a path. One of kind UDP is tried at once, a stream only after Up. An
// ID that is there already, or of a kind that is not wanted, changes nothing.
func (s *Set) Add(now time.Time, id ID, k Kind) {
	if s.find(id) != nil || s.config.Only != "" && k != s.config.Only {
		return
	}
	p := &path{id: id, kind: k, hold: proof}
	if k == UDP {
		p.try(now)
	}
	s.paths = append(s.paths, p)
	s.soon = true
}

// Remove forgets a path.
func (s *Set) Remove(now time.Time, id ID) {
	s.with(id, func(p *path) {
		p.end("it was taken away")
		s.paths = slices.DeleteFunc(s.paths, func(q *path) bool { return q == p })
	})
}

// Up tells that a stream stands (also: that a new one stands in the place of the
// old one) or that it has ended. UDP paths are always up.
func (s *Set) Up(now time.Time, id ID, up bool) {
	s.with(id, func(p *path) {
		switch {
		case p.kind == UDP:
		case up:
			p.renew(now)
		default:
			p.end("the stream has ended")
		}
	})
}

// Pong tells that the pong of a path's Ping with this Seq has come by that path, and
// what it tells.
func (s *Set) Pong(now time.Time, id ID, seq uint32, r Receipt) {
	s.with(id, func(p *path) { p.pong(now, seq, r) })
}

// Knock tells that the gateway has pinged us by a path: the way from it is open,
// so a path that is not live is tried at once.
func (s *Set) Knock(now time.Time, id ID) {
	s.with(id, func(p *path) { p.knock(now) })
}

// Rouse tells that the host's network changed or that it woke up: every path is
// doubted, and tried at once.
func (s *Set) Rouse(now time.Time) {
	for _, p := range s.paths {
		p.rouse(now)
	}
	s.rival = rival{}
	s.soon = true
}

func (s *Set) with(id ID, f func(*path)) {
	if p := s.find(id); p != nil {
		f(p)
		s.soon = true
	}
}

// Tick says what to do now, in this order. traffic tells a path's counts. A Tick
// that is more than a second late (the process was stopped, the machine slept)
// counts as Rouse, and judges nothing by the pongs that could not be read.
func (s *Set) Tick(now time.Time, traffic func(ID) Traffic) []Action {
	if !s.planned.IsZero() && now.Sub(s.planned) > late {
		for _, p := range s.paths {
			p.forgive()
			p.rouse(now)
		}
	}
	var todo []Action
	for _, p := range s.paths {
		p.count(now, traffic(p.id))
		todo = p.judge(now, todo)
	}
	todo = s.choose(now, todo)
	todo = s.compare(now, todo)
	for _, p := range s.paths {
		todo = p.ask(now, s.active, s.jitter, todo)
	}
	s.soon = false
	s.planned = s.Next(now)
	return todo
}

// Next is when Tick is due; zero: not before another method was called. A time
// in the past means at once.
func (s *Set) Next(now time.Time) time.Time {
	if s.soon {
		return now
	}
	var next time.Time
	for _, p := range s.paths {
		next = earliest(next, p.next())
		if at := p.better.Add(s.holdOff(now, p)); !p.better.IsZero() && at.After(now) {
			next = earliest(next, at)
		}
	}
	return next
}

// Resting says that nothing goes out by the active path, and that the next Tick is
// not planned for what might: whoever sends the first datagram then is to call Tick
// at once. So silence after it is noticed in time, and a session that says a word
// each second does not have its counts looked at ten times.
func (s *Set) Resting() bool { return s.active == nil || s.active.look.IsZero() }

// Active is the path that carries the datagrams; false: there is none.
func (s *Set) Active() (ID, bool) {
	if s.active == nil {
		return 0, false
	}
	return s.active.id, true
}

// State tells of a path; the zero State of one that is not there.
func (s *Set) State(id ID) State {
	p := s.find(id)
	if p == nil {
		return State{}
	}
	return State{
		Live:       p.alive(),
		Suspect:    p.phase == suspect,
		RTT:        p.rtt,
		Datagram:   p.size.proved,
		Since:      p.since,
		LastHeard:  p.heard,
		Unanswered: max(len(p.sent), p.tries),
	}
}

// earliest is the first of some times, of which the zero ones mean never.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
