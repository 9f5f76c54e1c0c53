package usage

import (
	"reflect"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/limits"
)

func TestLimited(t *testing.T) {
	usage := map[string]map[forward.Refusal]uint64{"ada": {}, "bob": {}}
	l := NewLimited(func() (all []forward.Usage) {
		for user, refused := range usage {
			all = append(all, forward.Usage{Owner: user, Refused: refused})
		}
		return all
	})
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		after   time.Duration
		refused map[forward.Refusal]uint64
		full    bool
		want    []string
	}{
		{0, map[forward.Refusal]uint64{}, false, nil},
		{10 * time.Second, map[forward.Refusal]uint64{forward.OverRate: 1}, false, []string{"user-rate"}},
		{50 * time.Second, map[forward.Refusal]uint64{forward.OverRate: 1, forward.OverConnections: 3}, false, []string{"user-connections", "user-rate"}},
		{20 * time.Second, map[forward.Refusal]uint64{forward.OverRate: 1, forward.OverConnections: 3}, false, []string{"user-connections"}},
		{40 * time.Second, map[forward.Refusal]uint64{forward.OverRate: 1, forward.OverConnections: 3, forward.WasShed: 2}, true, []string{"memory"}},
		{2 * time.Minute, map[forward.Refusal]uint64{forward.OverRate: 1, forward.OverConnections: 3, forward.WasShed: 2}, true, []string{"memory"}},
		{time.Second, map[forward.Refusal]uint64{forward.OverRate: 1, forward.OverConnections: 3, forward.WasShed: 2}, false, nil},
	} {
		now = now.Add(step.after)
		usage["ada"] = step.refused
		l.SetFull(step.full)
		want := map[string][]string{}
		if step.want != nil {
			want["ada"] = step.want
		}
		if got := l.Look(now); !reflect.DeepEqual(got, want) {
			t.Errorf("after %v more: %v, want %v", step.after, got, want)
		}
	}
	delete(usage, "ada")
	l.Look(now)
	if len(l.users) != 1 {
		t.Errorf("%d users are known", len(l.users))
	}
}

// Every refusal is told by the name of a limit that an administrator can set, but
// for memory.
func TestLimitNames(t *testing.T) {
	known := map[string]bool{limitMemory: true}
	for _, m := range limits.All {
		known[m.Name] = true
	}
	for _, why := range forward.Refusals() {
		if name := limitNames[why]; !known[name] {
			t.Errorf("%v is told as %q", why, name)
		}
	}
}
