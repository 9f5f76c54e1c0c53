package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/ground"
)

// TestControlPlaneAway: the API server stops answering in mid-session. Whoever
// is in stays in, with everything that works without it, and the gateway says
// so; when it is back, leases run again and can be renewed.
func TestControlPlaneAway(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	l.connect(g, netip.PrefixFrom(web.Addr(), 32))
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	says := func(path, text string) func() error {
		return func() error {
			got, err := fetch(g, path)
			if err == nil && !strings.Contains(got, text) {
				err = fmt.Errorf("%s says %q, want %q", path, got, text)
			}
			return err
		}
	}

	thaw := s.server.Freeze(t)
	apiserver.Eventually(t, 30*time.Second, "the gateway knows", says("/readyz", "leases are frozen"))
	if err := says("/metrics", "podnet_gateway_frozen 1")(); err != nil {
		t.Error(err)
	}
	if err := echo(c); err != nil {
		t.Errorf("an open flow: %v", err)
	}
	if c, err := l.dial(web, 5*time.Second); err != nil {
		t.Errorf("a new flow: %v", err)
	} else if err := echo(c); err != nil {
		t.Errorf("a new flow: %v", err)
	}
	if got, err := l.resolve("web.shop.svc.cluster.test."); err != nil {
		t.Errorf("web.shop is %v, %v", got, err)
	}
	if why := l.explained("web.shop.svc.cluster.test."); !strings.HasPrefix(why, "3 (Stale Answer): (the API server has been silent for 1") {
		t.Errorf("web.shop is explained by %q", why)
	}

	thaw()
	apiserver.Eventually(t, 30*time.Second, "the gateway hears of it again", func() error {
		if got, err := fetch(g, "/readyz"); err != nil || got != "ok\n" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	renew := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"renew":2}}`))
	apiserver.Eventually(t, 10*time.Second, "the lease is renewed", func() error { return s.alice.Patch(t.Context(), &l.peer, renew) })
	if err := echo(c); err != nil {
		t.Errorf("the flow afterwards: %v", err)
	}
	if why := l.explained("web.shop.svc.cluster.test."); why != "" {
		t.Errorf("web.shop is explained by %q", why)
	}
}

// explained is the Extended DNS Error that comes with the address of a name, as text;
// "": none does.
func (l *laptop) explained(name string) string {
	l.Helper()
	c, err := l.stack.DialUDP(netip.AddrPortFrom(ground.Service4, 53))
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	q.SetEdns0(1232, false)
	conn := &dns.Conn{Conn: c, UDPSize: 1232}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := conn.WriteMsg(q); err != nil {
		l.Fatal(err)
	}
	m, err := conn.ReadMsg()
	if err != nil || m.IsEdns0() == nil || len(m.Answer) != 1 {
		l.Fatalf("%v: %v", m, err)
	}
	if options := m.IsEdns0().Option; len(options) > 0 {
		return options[0].String()
	}
	return ""
}
