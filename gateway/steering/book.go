package steering

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/lease"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// Book remembers leases, and which agents are to end, from one World to the next.
type Book struct {
	keep   time.Duration
	begun  bool
	frozen bool
	rules  map[string]*record // by UID
	// told are the agents of the last Plan; the time is when one that no rule
	// names any more is forgotten, zero for those that are named.
	told map[agentID]time.Time
}

// record is what is remembered of a rule. When the rule changes, which the API
// server forbids, it is another record.
type record struct {
	lease.Lease
	length  time.Duration
	present bool
	rule    steer.Rule
	size    int               // in bytes, as an agent is told it
	clashes map[*record]error // with older rules, once it was asked
}

// NewBook makes an empty Book. An expired rule stays for keep, for people to look
// at.
func NewBook(keep time.Duration) *Book {
	return &Book{keep: keep, rules: map[string]*record{}, told: map[agentID]time.Time{}}
}

// Plan takes note of a World and says what follows.
func (b *Book) Plan(now time.Time, w World) Plan {
	c := lease.Circumstances{Now: now, Policy: w.PolicyHolds, Connected: w.Connected, Initial: !b.begun}
	b.begun = true
	if b.frozen && w.Connected {
		for _, r := range b.rules {
			r.Thaw(now, r.length)
		}
	}
	b.frozen = !w.Connected

	laptops := make(map[string]Laptop, len(w.Laptops))
	for _, l := range w.Laptops {
		laptops[l.Name] = l
	}
	p := Plan{Verdicts: make([]Verdict, len(w.Rules))}
	b.sight(c, w, laptops, &p)
	pods := b.accept(w, laptops, &p)
	b.appoint(now, w, pods, laptops, &p)
	p.tie()
	return p
}

func (p *Plan) wake(t time.Time) {
	if !t.IsZero() && (p.Next.IsZero() || t.Before(p.Next)) {
		p.Next = t
	}
}

// orphanLease is how long a rule counts whose Peer was never there to say.
const orphanLease = 300 * time.Second

// sight notes all leases.
func (b *Book) sight(c lease.Circumstances, w World, laptops map[string]Laptop, p *Plan) {
	for _, r := range b.rules {
		r.present = false
	}
	for i, o := range w.Rules {
		r, known := b.rules[o.UID]
		switch {
		case !known:
			r = newRecord(o.Steer)
			r.length = orphanLease
		case !reflect.DeepEqual(r.rule, o.Steer):
			r = newRecord(o.Steer)
			r.Lease, r.length = b.rules[o.UID].Lease, b.rules[o.UID].length
		}
		b.rules[o.UID] = r
		l, live := owner(o, laptops)
		if live {
			r.length = l.Lease // when it is gone, as it was
		}
		r.present = true
		r.Sight(c, o.Renew, r.length, o.Ended, !known)
		p.wake(r.Tick(c))
		if !r.Running() {
			over, at := r.Outstayed(c.Now, b.keep, r.length, !live)
			if over {
				p.Delete = append(p.Delete, i)
			} else {
				p.wake(at)
			}
		}
	}
	maps.DeleteFunc(b.rules, func(_ string, r *record) bool { return !r.present })
	for _, r := range b.rules {
		maps.DeleteFunc(r.clashes, func(older *record, _ error) bool { return !older.present })
	}
}

func newRecord(r steer.Rule) *record {
	// An agent is told a relay address and whether the laptop is here as well.
	const rest = len(`,"laptop":"fd70:6f64:6e65:7403:1111:1111:1111:1111","relayPort":65535,"here":true},`)
	text, _ := json.Marshal(r) // strings, numbers and a time, which may be too late for JSON but not for the API
	return &record{rule: r, size: len(text) + rest, clashes: map[*record]error{}}
}

// owner is the laptop that a rule names, if it is its user's and admitted.
func owner(o Object, laptops map[string]Laptop) (Laptop, bool) {
	l, ok := laptops[o.Peer]
	return l, ok && l.User == o.User
}

// refuse says why a rule's own lease keeps it from acting; the zero Verdict when
// it does not.
func (r *record) refuse() Verdict {
	switch {
	case r.Running():
		return Verdict{}
	case r.Unproven():
		return Verdict{Reason: podnet.ReasonPolicyMissing, Renew: r.Renew(),
			Message: "The admission policies were missing when this was written: renew it once they are back (podnet install)."}
	default:
		return Verdict{Reason: podnet.ReasonExpired, Renew: r.Renew(), Message: "The rule was not renewed in time."}
	}
}

// clash says what steer.Clash says, which is asked once.
func (r *record) clash(older *record) error {
	if r.rule.Owner == older.rule.Owner || r.rule.Port != older.rule.Port {
		return nil
	}
	err, asked := r.clashes[older]
	if !asked {
		err = steer.Clash(r.rule, older.rule)
		r.clashes[older] = err
	}
	return err
}

// valid says why a rule cannot be, whatever stands beside it.
func valid(o Object, r *record) error {
	switch {
	case o.Invalid != nil:
		return o.Invalid
	case o.RelayPort < 1024 || o.RelayPort == control.LivePort:
		return fmt.Errorf("relayPort: it is %d, and must be above 1023 and not %d", o.RelayPort, control.LivePort)
	case r.size > maxRule:
		return fmt.Errorf("matches: they take %d bytes, and may take %d", r.size, maxRule)
	}
	return nil
}
