package naming

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/measure"
)

// TestChangesShowAtOnce changes a cluster and measures when a question is
// answered by it.
func TestChangesShowAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	s := apiserver.Start(t)
	admin := s.Admin(t)
	newFixture().create(t, admin)
	server := dialTo(t, serveZone(t, s, zone, netip.AddrPort{}))
	defer server.Close()

	f := new(fixture)
	made := f.service("shop", "fresh", ips("10.96.7.1"), port("http", "TCP", 80))
	f.slice("shop", "fresh", "4", ports(made.Spec.Ports[0]), at("10.244.7.1").host("fresh-0"))
	service, slice := f.objects[0], f.objects[1]
	for _, step := range []struct {
		what string
		do   func() error
		name string
		want string // rcode and number of records
	}{
		{"endpoints of a new Service", func() error {
			if err := admin.Create(t.Context(), service); err != nil {
				return err
			}
			return admin.Create(t.Context(), slice)
		}, "fresh-0.fresh.shop.svc." + zone + ".", "NOERROR 1"},
		{"deleted endpoints", func() error { return admin.Delete(t.Context(), slice) }, "fresh-0.fresh.shop.svc." + zone + ".", "NXDOMAIN 0"},
		{"what a Service keeps", func() error { return nil }, "fresh.shop.svc." + zone + ".", "NOERROR 1"},
		{"deleted Service", func() error { return admin.Delete(t.Context(), service) }, "fresh.shop.svc." + zone + ".", "NXDOMAIN 0"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		apiserver.Eventually(t, 10*time.Second, step.what, func() error {
			a := answerOf(t, server, dns.Question{Name: step.name, Qtype: dns.TypeA, Qclass: dns.ClassINET})
			if got := fmt.Sprint(a.rcode, " ", len(a.answers)); got != step.want {
				return fmt.Errorf("%s, want %s", got, step.want)
			}
			return nil
		})
		measure.AtMost(t, "[38] in a small cluster, "+step.what, time.Since(began), time.Second)
	}
}
