package gateway

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/limits"
)

func TestLimited(t *testing.T) {
	usage := map[string]map[forward.Refusal]uint64{"ada": {}, "bob": {}}
	l := newLimited(func() (all []forward.Usage) {
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
		l.setFull(step.full)
		want := map[string][]string{}
		if step.want != nil {
			want["ada"] = step.want
		}
		if got := l.look(now); !reflect.DeepEqual(got, want) {
			t.Errorf("after %v more: %v, want %v", step.after, got, want)
		}
	}
	delete(usage, "ada")
	l.look(now)
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

// A user who opens more connections than he may is refused, counted, and told so in
// his Peer; another one is not.
func TestUserAtHisLimitIsTold(t *testing.T) {
	s := setStage(t)
	l := limits.Default()
	l.UserConnections = 3
	g, _ := s.startWith("podnet-gateway-0", func(o *Options) { o.Limits = l })
	web := s.pod("shop", "web", "10.96.1.1")
	first, second := s.enrol("laptop", 300, "shop"), s.enrol("tablet", 300, "shop")
	route := netip.PrefixFrom(web.Addr(), 32)
	first.connect(g, route)
	second.connect(g, route)
	for _, l := range []*laptop{first, first, second} {
		c, err := l.dial(web, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := echo(c); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := second.dial(web, 5*time.Second); err == nil {
		c.Close()
		t.Fatal("a fourth connection of three was opened")
	}
	for _, l := range []*laptop{first, second} { // they are one user's
		l.await("is told of the limit", func(p *podnet.Peer) bool {
			return len(p.Status.Gateways) == 1 && reflect.DeepEqual(p.Status.Gateways[0].Limits, []string{"user-connections"})
		})
	}
}
