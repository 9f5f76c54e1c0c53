// Package lease keeps the time of objects that count only while somebody renews
// them. It is pure: it is told of the time and of what was seen.
package lease

import "time"

// Lease is how long an object counts. The zero Lease is of an object that was
// not seen yet.
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
type Lease struct {
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

// Circumstances are what a lease needs to know of the world.
type Circumstances struct {
	Now       time.Time
	Policy    bool // the admission policies hold
	Connected bool // the API server is there, so renewals can arrive
	Initial   bool // these objects are older than this process
}

// Running reports whether the object counts.
func (l *Lease) Running() bool { return l.state == running }

// Unproven reports whether the object does not count because nobody has checked
// its writer. One that neither runs nor is unproven has expired.
func (l *Lease) Unproven() bool { return l.state == unproven }

// Renew is the greatest renew seen, Honoured the last one that prolonged.
func (l *Lease) Renew() int64    { return l.renew }
func (l *Lease) Honoured() int64 { return l.honoured }

// Deadline is the end of a lease that runs; of another one, when it ended.
func (l *Lease) Deadline() time.Time { return l.deadline }

// Sight notes an object's renew. ended tells what its status says: a lease with
// this renew has already expired, perhaps under another gateway.
func (l *Lease) Sight(c Circumstances, renew int64, length time.Duration, ended, first bool) {
	switch {
	case first && ended:
		*l = Lease{state: expired, renew: renew, honoured: renew, deadline: c.Now}
	case first && !c.Policy:
		*l = Lease{state: unproven, renew: renew, deadline: c.Now}
	case first && c.Initial:
		// How old its last renewal is cannot be known. A living client renews
		// every third of a lease, so half a lease tells it from a dead one.
		l.prolong(c.Now, renew, length/2)
	case first:
		l.prolong(c.Now, renew, length)
	case renew > l.renew:
		l.renew = renew
		if c.Policy {
			l.prolong(c.Now, renew, length)
		}
	}
}

func (l *Lease) prolong(now time.Time, renew int64, length time.Duration) {
	*l = Lease{state: running, renew: renew, honoured: renew, renewedAt: now, deadline: now.Add(length)}
}

// FrozenLimit is how long a lease lasts at most while the API server is away
// and nobody can renew: an outage of the control plane must not become one of
// the data plane, nor a way to stay for ever.
const FrozenLimit = 60 * time.Minute

// Tick lets the lease run out. It returns when to look again, zero for never.
func (l *Lease) Tick(c Circumstances) time.Time {
	if l.state != running {
		return time.Time{}
	}
	end := l.deadline
	if limit := l.renewedAt.Add(FrozenLimit); !c.Connected && limit.After(end) {
		end = limit
	}
	if c.Now.Before(end) {
		return end
	}
	l.state, l.deadline = expired, c.Now
	return time.Time{}
}

// Thaw gives a lease that outlived its deadline while frozen the time to renew.
func (l *Lease) Thaw(now time.Time, length time.Duration) {
	if grace := now.Add(length / 2); l.state == running && l.deadline.Before(grace) {
		l.deadline = grace
	}
}

const (
	// short is the length below which a lease is taken for a CI job's (120 s).
	short = 180 * time.Second
	// jobKeep is how long a job's object stays when its lease is over: for a renewal
	// that was under way, and for the status to say that it has ended.
	jobKeep = 3 * time.Second
)

// Outstayed reports whether an object that does not count any more may go, and
// if not, when it may. It stays for keep, for people to look at. Once expired, one
// that is litter goes before: a CI job's (a short lease), for which nobody comes
// back, after jobKeep, and one without its owner after the length of its lease.
func (l *Lease) Outstayed(now time.Time, keep, length time.Duration, orphan bool) (yes bool, at time.Time) {
	switch {
	case l.state == expired && length < short:
		keep = min(keep, jobKeep)
	case l.state == expired && orphan:
		keep = min(keep, length)
	}
	at = l.deadline.Add(keep)
	return !now.Before(at), at
}
