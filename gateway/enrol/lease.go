package enrol

import "time"

// lease is how long an object counts.
//
//	        first seen                     deadline passed
//	 (new) ───────────▶ running ─────────────────────────▶ expired
//	   │                 ▲   ▲                                │
//	   │ policy missing  │   └────────── renew raised ────────┘
//	   ▼                 │
//	unproven ────────────┘ renew raised while the policy holds
//
// Deadlines are on this process' monotonic clock: the client's time and the
// gateway's wall clock have no say. Only a strictly greater renew prolongs, and
// only while the admission policies hold, because only then has the API server
// checked who raised it.
type lease struct {
	state     state
	renew     int64     // the greatest renew seen
	honoured  int64     // the last renew that prolonged
	renewedAt time.Time // when that was
	deadline  time.Time // end of the lease; when expired, when it ended
}

type state uint8

const (
	unproven state = iota // first seen while nobody checked its writer
	running
	expired
)

// circumstances are what a lease needs to know of the world.
type circumstances struct {
	now       time.Time
	policy    bool // the admission policies hold
	connected bool // the API server is there, so renewals can arrive
	initial   bool // these objects are older than this process
}

// sight notes an object's renew. ended tells what its status says: a lease with
// this renew has already expired, perhaps under another gateway.
func (l *lease) sight(c circumstances, renew int64, length time.Duration, ended, first bool) {
	switch {
	case first && ended:
		*l = lease{state: expired, renew: renew, honoured: renew, deadline: c.now}
	case first && !c.policy:
		*l = lease{state: unproven, renew: renew, deadline: c.now}
	case first && c.initial:
		// How old its last renewal is cannot be known. A living client renews
		// every third of a lease, so half a lease tells it from a dead one.
		l.prolong(c.now, renew, length/2)
	case first:
		l.prolong(c.now, renew, length)
	case renew > l.renew:
		l.renew = renew
		if c.policy {
			l.prolong(c.now, renew, length)
		}
	}
}

func (l *lease) prolong(now time.Time, renew int64, length time.Duration) {
	*l = lease{state: running, renew: renew, honoured: renew, renewedAt: now, deadline: now.Add(length)}
}

// FrozenLimit is how long a lease lasts at most while the API server is away
// and nobody can renew: an outage of the control plane must not become one of
// the data plane, nor a way to stay for ever.
const FrozenLimit = 60 * time.Minute

// tick lets the lease run out. It returns when to look again, zero for never.
func (l *lease) tick(c circumstances) time.Time {
	if l.state != running {
		return time.Time{}
	}
	end := l.deadline
	if limit := l.renewedAt.Add(FrozenLimit); !c.connected && limit.After(end) {
		end = limit
	}
	if c.now.Before(end) {
		return end
	}
	l.state, l.deadline = expired, c.now
	return time.Time{}
}

// thaw gives a lease that outlived its deadline while frozen the time to renew.
func (l *lease) thaw(now time.Time, length time.Duration) {
	if grace := now.Add(length / 2); l.state == running && l.deadline.Before(grace) {
		l.deadline = grace
	}
}
