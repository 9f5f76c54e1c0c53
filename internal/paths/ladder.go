package paths

import (
	"slices"
	"time"
)

const (
	// MaxDatagram is what a path of 1500 bytes takes as UDP payload over IPv6.
	MaxDatagram = 1452
	// MinDatagram is the same for 1280 bytes, the least that IPv6 asks of a path
	// (RFC 8200, section 5). A path that takes less is of no use.
	MinDatagram = 1232

	// Each rung is asked for this many times before it counts as too large, and
	// this many times while none has passed.
	rounds, rounds0 = 3, 6
	// A path that takes less than the most is asked again after this time.
	climbEvery = time.Minute
)

// rungs are the sizes of datagram that a path is asked for, in bytes of UDP
// payload: paths of 1500, 1440, 1380 and 1280 bytes over IPv6, 20 less over IPv4.
var rungs = [...]int{MaxDatagram, 1392, 1332, MinDatagram}

// ladder finds the largest datagram that a UDP path takes in both directions.
// Nothing is believed but pongs, which are as long as their pings, since routers
// that should tell of too large packets often do not.
//
// A measurement is three quick rounds of pings, one for each rung above the best
// that has passed in it; rungs that do not come back where others do are too
// large. It is over at once when the top rung has passed, and takes three rounds
// more when none has. There is one when the path has become live, each minute while it takes less than the
// most, and one from the bottom when the path is roused or a full-size ping is
// lost where a smaller one behind it is not.
type ladder struct {
	proved int       // the largest that passes; 0: none yet
	best   int       // the largest that passed in this measurement
	first  uint32    // this measurement's pings have a later Seq
	made   int       // rounds of this measurement so far; 0: there is none
	due    time.Time // of the next round, the verdict or the next measurement; zero: never
	sent   []ping
}

// measure begins a measurement that takes datagrams of best bytes for proved.
func (l *ladder) measure(now time.Time, seq uint32, best int) {
	l.first, l.best, l.made, l.due = seq, best, 0, now
	l.rest()
}

// rest ends a measurement of which nothing more can come.
func (l *ladder) rest() {
	if l.best == MaxDatagram {
		l.made, l.due = 0, time.Time{}
	}
}

func (l *ladder) take(seq uint32) (ping, bool) {
	for i, g := range l.sent {
		if g.seq == seq {
			l.sent = slices.Delete(l.sent, i, i+1)
			return g, true
		}
	}
	return ping{}, false
}

// pong takes note of what has passed.
func (l *ladder) pong(g ping) {
	if g.size == SmallestPing || g.seq <= l.first {
		return
	}
	l.best = max(l.best, g.size)
	l.proved = max(l.proved, g.size)
	l.rest()
}

// judge looks for pings that were lost for their size, and for the end of a
// measurement. It reports false when not even the smallest datagram passes.
func (l *ladder) judge(now time.Time, p *path) bool {
	for g := l.untried(); g != nil && now.Sub(g.at) >= p.patience(); g = l.untried() {
		g.tried = true
		if g.size == l.proved && g.seq < p.answered && l.made == 0 {
			l.measure(now, p.seq, 0)
		}
	}
	if l.made < rounds || l.best == 0 && l.made < rounds0 || !passed(now, l.due) {
		return true
	}
	switch {
	case l.best > 0:
		if l.proved != l.best {
			p.due = now // the gateway learns it from the next ping
		}
		l.proved = l.best
		l.measure(now, p.seq, l.best)
		l.due = now.Add(climbEvery)
	case p.answered > l.first:
		return false
	default: // nothing came at all: that says nothing about sizes
		l.measure(now, p.seq, 0)
	}
	return true
}

// untried is the first ping of which it is not decided whether it was lost; nil:
// there is none.
func (l *ladder) untried() *ping {
	for i := range l.sent {
		if !l.sent[i].tried {
			return &l.sent[i]
		}
	}
	return nil
}

// missedAt is when the first unanswered ping counts as lost; zero: there is none.
func (l *ladder) missedAt(p *path) time.Time {
	if g := l.untried(); g != nil {
		return g.at.Add(p.patience())
	}
	return time.Time{}
}

// round is the sizes to be asked for now.
func (l *ladder) round(now time.Time, p *path) []int {
	l.made++
	l.due = now.Add(pingQuick)
	if l.made == rounds || l.made == rounds0 {
		l.due = now.Add(p.patience())
	}
	if i := slices.Index(rungs[:], l.best); i >= 0 {
		return rungs[:i]
	}
	return rungs[:]
}
