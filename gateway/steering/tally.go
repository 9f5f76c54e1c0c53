package steering

import (
	"maps"
	"net/netip"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// tally adds up what agents count, which begins anew with each of them and with
// each of their rules.
type tally struct {
	sum  control.Counts
	last map[key.Public]map[string]control.Counts
}

func newTally() tally { return tally{last: map[key.Public]map[string]control.Counts{}} }

// add takes note of the counts of an agent, by its rules. Counts that have fallen
// have begun anew.
func (t *tally) add(k key.Public, counts map[string]control.Counts) {
	last := t.last[k]
	for name, n := range counts {
		old := last[name]
		if n.Matched < old.Matched || n.Failed < old.Failed || n.Passed < old.Passed {
			old = control.Counts{}
		}
		t.sum.Matched += n.Matched - old.Matched
		t.sum.Failed += n.Failed - old.Failed
		t.sum.Passed += n.Passed - old.Passed
	}
	t.last[k] = maps.Clone(counts)
}

// keep forgets those who are no agents any more.
func (t *tally) keep(agents map[netip.Addr]known) {
	maps.DeleteFunc(t.last, func(k key.Public, _ map[string]control.Counts) bool { return agents[k.Address6()].key != k })
}
