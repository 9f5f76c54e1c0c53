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
	leases *lease.Ledger
	rules  map[string]*record // by UID
	// told are the agents of the last Plan; the time is when one that no rule
	// names any more is forgotten, zero for those that are named.
	told map[agentID]time.Time
}

// record is what is remembered of a rule. When the rule changes, which the API
// server forbids, it is another record.
type record struct {
	lease.Standing
	present bool
	egress  bool
	rule    steer.Rule
	size    int               // in bytes, as an agent is told it
	clashes map[*record]error // with older rules, once it was asked
}

// NewBook makes an empty Book. An expired rule stays for keep, for people to look
// at.
func NewBook(keep time.Duration) *Book {
	return &Book{leases: lease.NewLedger(keep), rules: map[string]*record{}, told: map[agentID]time.Time{}}
}

// Plan takes note of a World and says what follows.
func (b *Book) Plan(now time.Time, w World) Plan {
	laptops := make(map[string]Laptop, len(w.Laptops))
	for _, l := range w.Laptops {
		laptops[l.Name] = l
	}
	p := Plan{Verdicts: make([]Verdict, len(w.Rules))}
	b.sight(now, w, &p)
	order := w.byAge()
	pods := b.accept(w, order, &p)
	b.appoint(now, w, pods, laptops, &p)
	p.tie()
	p.leave(w, order, laptops)
	return p
}

func (p *Plan) wake(t time.Time) {
	if !t.IsZero() && (p.Next.IsZero() || t.Before(p.Next)) {
		p.Next = t
	}
}

// sight notes all rules and their leases.
func (b *Book) sight(now time.Time, w World, p *Plan) {
	claims := make([]lease.Claim, len(w.Rules))
	for i, o := range w.Rules {
		claims[i] = lease.Claim{UID: o.UID, User: o.User, Peer: o.Peer, Renew: o.Renew, Ended: o.Ended}
	}
	standings, next := b.leases.Look(now, w.PolicyHolds, w.Connected, w.Laptops, claims)
	p.wake(next)
	for _, r := range b.rules {
		r.present = false
	}
	for i, o := range w.Rules {
		r, known := b.rules[o.UID]
		if !known || r.egress != o.Egress || !reflect.DeepEqual(r.rule, o.Steer) {
			r = newRecord(o)
			b.rules[o.UID] = r
		}
		r.Standing, r.present = standings[i], true
		if r.Over {
			p.Delete = append(p.Delete, i)
		}
	}
	maps.DeleteFunc(b.rules, func(_ string, r *record) bool { return !r.present })
	for _, r := range b.rules {
		maps.DeleteFunc(r.clashes, func(older *record, _ error) bool { return !older.present })
	}
}

func newRecord(o Object) *record {
	// An agent is told a relay address and whether the laptop is here as well.
	const rest = len(`,"laptop":"fd70:6f64:6e65:7403:1111:1111:1111:1111","relayPort":65535,"here":true},`)
	text, _ := json.Marshal(o.Steer) // strings, numbers and a time, which may be too late for JSON but not for the API
	return &record{egress: o.Egress, rule: o.Steer, size: len(text) + rest, clashes: map[*record]error{}}
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
	if r.egress || older.egress || r.rule.Owner == older.rule.Owner || r.rule.Port != older.rule.Port {
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
	case !o.Egress && (o.RelayPort < 1024 || o.RelayPort == control.LivePort):
		return fmt.Errorf("relayPort: it is %d, and must be above 1023 and not %d", o.RelayPort, control.LivePort)
	case r.size > maxRule:
		return fmt.Errorf("matches: they take %d bytes, and may take %d", r.size, maxRule)
	}
	return nil
}
