package agent

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

func TestCounts(t *testing.T) {
	o := newObserver()
	a, b := ruleOf("a", laptopA, 1), ruleOf("b", laptopB, 2)
	b.Port = 9000
	o.follow([]control.Rule{a, b}, nil)
	see := o.at(serve.PortKey{Protocol: steer.TCP, Port: 8080})
	dead := errors.New("connection refused")
	for _, s := range []steer.Seen{
		{Rule: &a.Rule, Status: 200}, {Rule: &a.Rule, Out: 7},
		{Rule: &a.Rule, Status: 502, Err: dead}, {Rule: &a.Rule, Err: dead}, {Rule: &a.Rule, Status: 200, Out: 7, Err: dead},
		{}, {Err: dead},
		{Rule: &steer.Rule{Name: "gone"}, Status: 200},
	} {
		see.Seen(s)
	}
	told := map[string]control.Counts{}
	want := map[string]control.Counts{"a": {Matched: 5, Failed: 2, Passed: 2}}
	if got := o.changed(told, nil); !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	if got := o.changed(told, nil); got != nil {
		t.Errorf("told again: %v", got)
	}
	for laptop, want := range map[netip.Addr]int{laptopA: 1, laptopB: 0} {
		if got := o.changed(map[string]control.Counts{}, &laptop); len(got) != want {
			t.Errorf("of %s: %v", laptop, got)
		}
	}
	o.follow([]control.Rule{b}, nil)
	if got := o.changed(map[string]control.Counts{}, nil); got != nil {
		t.Errorf("of a rule that is gone: %v", got)
	}
}

// TestFlowsThatLeaveAreCounted: the counts are for gateways, as there is no laptop that
// is told of them.
func TestFlowsThatLeaveAreCounted(t *testing.T) {
	o := newObserver()
	o.follow(nil, []string{"out"})
	for _, err := range []error{nil, nil, errors.New("connection refused")} {
		o.left("out", err)
		o.left("gone", err)
	}
	told := map[string]control.Counts{}
	want := map[string]control.Counts{"out": {Matched: 3, Failed: 1}}
	if got := o.changed(told, nil); !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	if got := o.changed(map[string]control.Counts{}, &laptopA); got != nil {
		t.Errorf("a laptop is told %v", got)
	}
	o.follow(nil, nil)
	if got := o.changed(map[string]control.Counts{}, nil); got != nil {
		t.Errorf("of a rule that is gone: %v", got)
	}
}

// TestEvents: a laptop that does not read costs a bounded number of events of a
// bounded size, and hears how many it lost.
func TestEvents(t *testing.T) {
	o := newObserver()
	rule := ruleOf("a", laptopA, 1)
	rule.ToApp = true
	o.follow([]control.Rule{rule}, nil)
	see := o.at(serve.PortKey{Protocol: steer.TCP, Port: 8080})
	for range maxEvents + 5 {
		see.Seen(steer.Seen{Rule: &rule.Rule, Method: "GET", Target: "/" + strings.Repeat("x", steer.MaxHead), Err: errors.New("refused")})
	}
	q := o.queue(laptopA)
	if n, lost := len(q.waiting), q.takeLost(); n != maxEvents || lost != 5 || q.takeLost() != 0 {
		t.Errorf("%d wait, %d lost", n, lost)
	}
	e := <-q.waiting
	if e.Rule != "a" || e.Method != "GET" || len(e.Target) != maxText || e.Error != "refused" || !e.ByApp {
		t.Errorf("event %+v", e)
	}
}
