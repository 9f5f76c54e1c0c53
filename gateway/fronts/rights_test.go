package fronts

import (
	"log/slog"
	"testing"
	"time"
)

// TestRightsRest: nobody wakes before there is a namespace to be asked about.
func TestRightsRest(t *testing.T) {
	r := newRights(nil, slog.New(slog.DiscardHandler), "podnet-system", func() {})
	now := time.Now()
	expect := func(when string, rest time.Duration, due int) {
		t.Helper()
		if got := r.rest(now); got != rest || len(r.due(now)) != due {
			t.Errorf("%s: rests for %v, want %v; due %v, want %d", when, got, rest, r.due(now), due)
		}
	}
	expect("without a namespace", rightsInterval, 0)
	r.want(map[string]bool{"shop": true, "pay": true})
	if len(r.asked) != 1 {
		t.Error("a new namespace wakes nobody")
	}
	expect("not asked yet, or in vain", time.Second, 2)
	r.note("shop", right{at: now})
	r.note("pay", right{at: now, missing: "patch services"})
	expect("just asked", rightsRetry, 0)
	now = now.Add(rightsRetry)
	expect("when it may not", time.Second, 1)
	r.note("pay", right{at: now})
	expect("when it may", rightsInterval-rightsRetry, 0)
	now = now.Add(rightsInterval)
	expect("much later", time.Second, 2)
}
