package lease

import (
	"testing"
	"time"
)

func TestLease(t *testing.T) {
	const length = 300 * time.Second
	begin := time.Unix(1_700_000_000, 0)
	good := Circumstances{Policy: true, Connected: true}
	older, blind, away := good, good, good
	older.Initial, blind.Policy, away.Connected = true, false, false
	at := func(c Circumstances, d time.Duration) Circumstances { c.Now = begin.Add(d); return c }

	for name, c := range map[string]struct {
		first Circumstances
		ended bool
		then  func(*Lease)
		after time.Duration // the last moment at which it runs; -1: never
	}{
		"new":                         {first: good, after: length - 1},
		"older than the process":      {first: older, after: length/2 - 1},
		"over already":                {first: good, ended: true, after: -1},
		"nobody checked":              {first: blind, after: -1},
		"renewed":                     {first: good, then: func(l *Lease) { l.Sight(at(good, 100*time.Second), 2, length, false, false) }, after: 100*time.Second + length - 1},
		"seen again":                  {first: good, then: func(l *Lease) { l.Sight(at(good, 100*time.Second), 1, length, false, false) }, after: length - 1},
		"renewed while nobody checks": {first: good, then: func(l *Lease) { l.Sight(at(blind, 100*time.Second), 2, length, false, false) }, after: length - 1},
		"renewed when somebody does":  {first: blind, then: func(l *Lease) { l.Sight(at(good, 0), 2, length, false, false) }, after: length - 1},
		"thawed": {first: good, then: func(l *Lease) {
			l.Tick(at(away, 2*length))
			l.Thaw(begin.Add(2*length), length)
		}, after: 2*length + length/2 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lease
			l.Sight(at(c.first, 0), 1, length, c.ended, true)
			if c.then != nil {
				c.then(&l)
			}
			if c.after < 0 {
				if l.Tick(at(good, 0)); l.Running() {
					t.Fatal("it runs")
				}
				return
			}
			if next := l.Tick(at(good, c.after)); !l.Running() || !next.Equal(begin.Add(c.after+1)) {
				t.Fatalf("running %v, next look after %v, want %v", l.Running(), next.Sub(begin), c.after+1)
			}
			if next := l.Tick(at(good, c.after+1)); l.Running() || l.Unproven() || !next.IsZero() {
				t.Fatal("it runs on")
			}
			if !l.Deadline().Equal(begin.Add(c.after + 1)) {
				t.Errorf("it ended after %v", l.Deadline().Sub(begin))
			}
		})
	}
}

func TestFrozen(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	var l Lease
	l.Sight(Circumstances{Now: begin, Policy: true, Connected: true}, 1, time.Minute, false, true)
	if l.Tick(Circumstances{Now: begin.Add(FrozenLimit - 1)}); !l.Running() {
		t.Error("it ended before the limit")
	}
	if l.Tick(Circumstances{Now: begin.Add(FrozenLimit)}); l.Running() {
		t.Error("it runs on after the limit")
	}
}

func TestOutstayed(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		length time.Duration
		policy bool
		orphan bool
		stays  time.Duration
	}{
		"a person's":         {300 * time.Second, true, false, day},
		"a CI job's":         {120 * time.Second, true, false, 3 * time.Second},
		"an orphan":          {300 * time.Second, true, true, 300 * time.Second},
		"an orphan unproven": {300 * time.Second, false, true, day},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lease
			l.Sight(Circumstances{Now: begin, Policy: c.policy}, 1, c.length, c.policy, true)
			if yes, at := l.Outstayed(begin.Add(c.stays-1), day, c.length, c.orphan); yes || !at.Equal(begin.Add(c.stays)) {
				t.Errorf("before: %v, may go after %v", yes, at.Sub(begin))
			}
			if yes, _ := l.Outstayed(begin.Add(c.stays), day, c.length, c.orphan); !yes {
				t.Error("it stays")
			}
		})
	}
}
