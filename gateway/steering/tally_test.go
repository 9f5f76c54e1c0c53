package steering

import (
	"net/netip"
	"testing"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

func TestTally(t *testing.T) {
	s := newTally()
	one, two := key.Public{1}, key.Public{2}
	for _, step := range []struct {
		what   string
		agent  key.Public
		counts map[string]control.Counts
		want   control.Counts
	}{
		{"first", one, map[string]control.Counts{"web": {Matched: 3, Failed: 1, Passed: 10}}, control.Counts{Matched: 3, Failed: 1, Passed: 10}},
		{"more", one, map[string]control.Counts{"web": {Matched: 5, Failed: 1, Passed: 12}}, control.Counts{Matched: 5, Failed: 1, Passed: 12}},
		{"another agent", two, map[string]control.Counts{"web": {Passed: 1}}, control.Counts{Matched: 5, Failed: 1, Passed: 13}},
		{"another rule", one, map[string]control.Counts{"api": {Matched: 1}}, control.Counts{Matched: 6, Failed: 1, Passed: 13}},
		{"the same again", one, map[string]control.Counts{"api": {Matched: 1}}, control.Counts{Matched: 6, Failed: 1, Passed: 13}},
		{"a new process", two, map[string]control.Counts{"web": {Matched: 2}}, control.Counts{Matched: 8, Failed: 1, Passed: 13}},
	} {
		s.add(step.agent, step.counts)
		if s.sum != step.want {
			t.Errorf("%s: %+v, want %+v", step.what, s.sum, step.want)
		}
	}
	s.keep(map[netip.Addr]known{one.Address6(): {key: one}})
	if len(s.last) != 1 || s.last[one] == nil {
		t.Errorf("known after one has gone: %v", s.last)
	}
}
