package paths

import (
	"fmt"
	"time"
)

const (
	// raceTime is how long after a choice for want of another UDP may overtake a
	// stream without proving itself: where both are there, nothing is to begin
	// on the slower one.
	raceTime = 200 * time.Millisecond
	// steady is how long a path must be the better one of two that work.
	steady = 3 * time.Second
)

// choose picks the path that carries the datagrams.
//
//   - For want of an active path, the best that is alive is taken at once.
//   - UDP takes over from the stream when it has proved itself, or has answered
//     where the stream has not for a while.
//   - Otherwise an active path that works is left only for one that has been
//     clearly better for some time.
func (s *Set) choose(now time.Time, todo []Action) []Action {
	if old := s.active; old == nil || !old.alive() {
		return s.fill(now, todo)
	}
	var best *path
	for _, p := range s.paths {
		if p.phase != live || p == s.active || !s.beats(p) {
			p.better = time.Time{}
			continue
		}
		if p.better.IsZero() {
			p.better = now
		}
		if s.proved(now, p) && (best == nil || before(p, best)) {
			best = p
		}
	}
	if best == nil {
		return todo
	}
	why := fmt.Sprintf("round trip %s instead of %s", ms(best.base), ms(s.active.base))
	if best.kind == UDP && s.active.kind != UDP {
		why = "UDP answers"
	}
	return s.use(now, best, why, todo)
}

// fill finds a path where there is none.
func (s *Set) fill(now time.Time, todo []Action) []Action {
	var best *path
	for _, p := range s.paths {
		if p.alive() && (best == nil || before(p, best)) {
			best = p
		}
	}
	why := "it answered first"
	if s.active != nil {
		why = "the path before: " + s.active.died
	}
	switch {
	case best != nil:
		s.race = now.Add(raceTime)
		return s.use(now, best, why, todo)
	case s.active != nil:
		todo = append(todo, Drop{s.active.died})
		s.active = nil
		for _, p := range s.paths {
			p.hurry(now)
		}
	}
	return todo
}

// beats reports whether p is the better path at this moment.
func (s *Set) beats(p *path) bool {
	return outlives(p, s.active) || clearlyBetter(p, s.active) && !s.rival.keeps(p)
}

func (s *Set) use(now time.Time, p *path, why string, todo []Action) []Action {
	for _, q := range s.paths {
		q.better = time.Time{}
	}
	s.active, s.load = p, load{}
	p.due, p.keeps = now, fullEvery
	return append(todo, Use{p.id, why})
}

// holdOff is how long p must have been better than the active path.
func (s *Set) holdOff(now time.Time, p *path) time.Duration {
	switch {
	case s.active == nil || p.kind != UDP || s.active.kind == UDP:
		return steady
	case now.Before(s.race), outlives(p, s.active):
		return 0
	default:
		return p.hold
	}
}

func (s *Set) proved(now time.Time, p *path) bool {
	hold := s.holdOff(now, p)
	return now.Sub(p.better) >= hold && (p.streak >= proofPongs || hold == 0)
}

// clearlyBetter reports whether p is so much better than the active path that a
// move may pay. The two margins for a stream keep it from moving to and fro.
func clearlyBetter(p, active *path) bool {
	switch {
	case p.kind == active.kind:
		return p.base < active.base*4/5 && p.base+2*time.Millisecond < active.base
	case p.kind == UDP:
		return p.base <= bearable(active)*4/5
	default:
		return active.base > bearable(p)
	}
}

// outlives reports whether p answers by UDP where the active stream is silent: what
// cut UDP off may have cut off the stream as well, whose own repetitions come late
// when it is over.
func outlives(p, active *path) bool {
	return p.kind == UDP && active.kind != UDP && active.phase == suspect && p.heard.Sub(active.heard) > slackMax
}

// bearable is the round trip up to which UDP is better than a stream: one stream
// stalls as a whole when a packet of it is lost.
func bearable(stream *path) time.Duration {
	return max(2*stream.base, stream.base+50*time.Millisecond)
}

// before reports whether of two paths that are alive a is the better one.
func before(a, b *path) bool {
	switch {
	case (a.phase == live) != (b.phase == live):
		return a.phase == live
	case a.kind == b.kind:
		return a.base < b.base
	case a.kind == UDP:
		return a.base <= bearable(b)
	default:
		return b.base > bearable(a)
	}
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
}
