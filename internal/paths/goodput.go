package paths

import (
	"fmt"
	"math"
	"time"
)

// What a path moves is more than whether it answers: where datagrams are lost by
// chance, a flow inside backs off for each, and a stream whose ends do not (BBR) moves
// many times as much. Whether they do is not to be known from here, so it is tried:
//
//	UDP, and losses hold the load back
//	        |
//	        v          moves no more
//	  the stream is  -----------------> UDP, for a pause that doubles
//	     tried
//	        | moves more
//	        v         less than UDP did, or nothing
//	  the stream is  -----------------> UDP
//	      kept
const (
	// Loads are looked at a span at a time, and a load that UDP holds back for
	// heldBack of them in a row is tried by the stream: for one span in which what
	// is inside finds out, and one that counts.
	span     = 4 * time.Second
	heldBack = 3
	// leastLoad in bytes a second, leastLost in bytes and a round trip of leastTrip
	// are what is worth a try. On a shorter way what is lost is soon repeated.
	leastLoad = 250e3
	leastLost = 2 * MaxDatagram
	leastTrip = 5 * time.Millisecond
	// A stream must move this many times what UDP did.
	worth = 1.25
	// The pause after a try that was of no use, which doubles up to tryMax.
	tryPause = 2 * time.Minute
	tryMax   = 32 * time.Minute
)

// account sums what the datagrams of a UDP path have lost, by what both ends count of
// them. Datagrams that are being sent are counted late, so at times it tells less than
// it is; and, where they overtake each other, more for a moment.
type account struct {
	open bool
	seq  uint32 // of the last ping that counted
	sent uint32 // what we had sent before it
	last Receipt
	lost int64 // bytes, both ways
}

// enter takes note of what the answer to a ping tells.
func (a *account) enter(g ping, r Receipt) {
	if r.Received == 0 && r.Sent == 0 || a.open && g.seq < a.seq {
		return
	}
	if a.open {
		out, arrived := g.sent-a.sent, r.Received-a.last.Received
		in, came := r.Sent-a.last.Sent, r.Here-a.last.Here
		if max(out, arrived, in, came) < math.MaxInt32 { // else somebody counts anew
			a.lost += int64(out) - int64(arrived) + int64(in) - int64(came)
		}
	}
	a.open, a.seq, a.sent, a.last = true, g.seq, g.sent, r
}

// load is what the active path moves, a span at a time.
type load struct {
	from    time.Time // the span's begin; zero: there is none yet
	carried uint64    // by the path until then, in bytes
	lost    int64     // until then, as far as was known
	most    int64     // the most that was known to be lost in the span

	rate     float64 // of the last span, in bytes a second
	lossRate float64 // and of what was lost in it
	spans    int     // that are over
	held     int     // in how many of the last ones losses held it back
	heldRate float64 // and their mean rate
}

// look reports whether a span is over.
func (l *load) look(now time.Time, p *path) bool {
	l.most = max(l.most, p.account.lost)
	took := now.Sub(l.from)
	if took < span {
		return false
	}
	over := !l.from.IsZero()
	if over {
		l.rate = float64(p.carried()-l.carried) / took.Seconds()
		l.lossRate = float64(l.most-l.lost) / took.Seconds()
		l.spans++
		l.lost = l.most
	} else {
		l.lost = p.account.lost
	}
	l.from, l.carried, l.most = now, p.carried(), math.MinInt64
	return over
}

// judge takes note of whether losses held back what p moved in the last span.
func (l *load) judge(p *path) {
	if !l.heldBackBy(p) {
		l.held, l.heldRate = 0, 0
		return
	}
	l.heldRate = (l.heldRate*float64(l.held) + l.rate) / float64(l.held+1)
	l.held++
}

// heldBackBy says so of a load that is worth it, on a way that is long enough, whose
// losses come from no queue (that would be seen in the round trip), and which moves about
// what one flow can that halves its window for every loss: RFC 5348, section 3.1, in
// short.
func (l *load) heldBackBy(p *path) bool {
	if l.rate < leastLoad || l.lossRate*span.Seconds() < leastLost || p.base < leastTrip || p.rtt > p.base*5/4+3*time.Millisecond {
		return false
	}
	flow := MaxDatagram / p.base.Seconds() * math.Sqrt(1.5*l.rate/l.lossRate)
	return l.rate >= flow/2
}

// rival is the stream while it is tried, or kept, in the place of a UDP path that works.
// The zero rival is none.
type rival struct {
	stream *path
	kept   bool
	udp    float64       // what UDP moved, in bytes a second
	next   time.Time     // no try before
	pause  time.Duration // after this one
}

// keeps reports whether p, which works, is to wait for what the stream moves.
func (r *rival) keeps(p *path) bool { return r.stream != nil && p.kind == UDP }

// compare tries whether the stream moves more than a UDP path that loses datagrams, and
// ends that.
func (s *Set) compare(now time.Time, todo []Action) []Action {
	r, p := &s.rival, s.active
	if r.stream != nil && r.stream != p {
		r.stream = nil // it has fallen silent, and another path has taken over
	}
	if p == nil || !s.load.look(now, p) {
		return todo
	}
	switch {
	case p.kind == UDP:
		s.load.judge(p)
		if stream := s.stream(); s.load.held >= heldBack && !now.Before(r.next) && stream != nil && stream.base <= bearable(p) {
			r.pause = min(max(2*r.pause, tryPause), tryMax)
			r.stream, r.kept, r.udp, r.next = stream, false, s.load.heldRate, now.Add(r.pause)
			return s.use(now, stream, fmt.Sprintf("UDP loses %.2g %% of its datagrams, and moved no more than %.3g Mbit/s", 100*s.load.lossRate/s.load.rate, r.udp*8/1e6), todo)
		}
	case r.stream == nil || !r.kept && s.load.spans < 2:
	case r.kept && s.load.rate >= r.udp:
	case !r.kept && s.load.rate >= worth*r.udp:
		r.kept, r.pause, r.next = true, 0, now
	default:
		r.stream = nil
	}
	return todo
}

// stream is the one that works; nil: there is none.
func (s *Set) stream() *path {
	for _, p := range s.paths {
		if p.kind == APIServer && p.phase == live {
			return p
		}
	}
	return nil
}
