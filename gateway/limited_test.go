package gateway

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/limits"
)

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
