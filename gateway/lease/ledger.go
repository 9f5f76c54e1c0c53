package lease

import (
	"time"

	"podnet.dev/internal/key"
)

// Laptop is a peer that is admitted.
type Laptop struct {
	Name, User string
	Key        key.Public
	Lease      time.Duration
}

// Claim is an object that acts for a laptop as far as its lease is concerned.
type Claim struct {
	UID, User, Peer string
	Renew           int64
	// Ended: the status says that this very renew has expired.
	Ended bool
}

// Standing is how a Claim stands.
type Standing struct {
	*Lease
	// Laptop is the one that is named, if Live: if it is of the same user, and
	// admitted.
	Laptop Laptop
	Live   bool
	// Over: it expired long ago, and may go.
	Over bool
}

// Ledger keeps the leases of objects of one kind. They last as long as their
// Peers ask for.
type Ledger struct {
	keep          time.Duration
	begun, frozen bool
	entries       map[string]*entry // by UID
}

type entry struct {
	Lease
	length  time.Duration
	present bool
}

// NewLedger makes an empty Ledger. What has expired stays for keep, for people to
// look at.
func NewLedger(keep time.Duration) *Ledger {
	return &Ledger{keep: keep, entries: map[string]*entry{}}
}

// orphanLease is how long an object counts whose Peer was never there to say.
const orphanLease = 300 * time.Second

// Look notes all claims there are and says how each of them stands, and when to
// look again even if nothing changes: zero for never.
func (l *Ledger) Look(now time.Time, policy, connected bool, laptops []Laptop, claims []Claim) (all []Standing, next time.Time) {
	c := Circumstances{Now: now, Policy: policy, Connected: connected, Initial: !l.begun}
	l.begun = true
	if l.frozen && connected {
		for _, e := range l.entries {
			e.Thaw(now, e.length)
		}
	}
	l.frozen = !connected

	byName := make(map[string]Laptop, len(laptops))
	for _, laptop := range laptops {
		byName[laptop.Name] = laptop
	}
	for _, e := range l.entries {
		e.present = false
	}
	wake := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	all = make([]Standing, len(claims))
	for i, claim := range claims {
		e, known := l.entries[claim.UID]
		if !known {
			e = &entry{length: orphanLease}
			l.entries[claim.UID] = e
		}
		laptop, live := byName[claim.Peer]
		live = live && laptop.User == claim.User
		if live {
			e.length = laptop.Lease // when it is gone, as it was
		}
		e.present = true
		e.Sight(c, claim.Renew, e.length, claim.Ended, !known)
		wake(e.Tick(c))
		all[i] = Standing{Lease: &e.Lease, Laptop: laptop, Live: live}
		if !e.Running() {
			over, at := e.Outstayed(now, l.keep, e.length, !live)
			if all[i].Over = over; !over {
				wake(at)
			}
		}
	}
	for uid, e := range l.entries {
		if !e.present {
			delete(l.entries, uid)
		}
	}
	return all, next
}
