package gateway

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestReadResolvConf(t *testing.T) {
	for _, c := range []struct{ name, text, domain, servers string }{
		{"kubelet's", "search podnet-system.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n", "cluster.local", "10.96.0.10:53"},
		{"another zone", "nameserver fd00::a\nsearch ns.svc.K8s.Example.org svc.K8s.Example.org. K8s.Example.org", "k8s.example.org", "[fd00::a]:53"},
		{"a node's", "search lan\nnameserver 192.0.2.1\nnameserver 192.0.2.2", "", "192.0.2.1:53 192.0.2.2:53"},
		{"the last search counts", "search svc.a\nsearch svc.b", "b", ""},
		{"nonsense", "search\nnameserver\nnameserver x\n;search svc.c\nsearch svc. svc", "", ""},
		{"nothing", "", "", ""},
	} {
		got := readResolvConf(strings.NewReader(c.text))
		var servers []string
		for _, s := range got.servers {
			servers = append(servers, s.String())
		}
		if got.domain != c.domain || strings.Join(servers, " ") != c.servers {
			t.Errorf("%s: %q and %v, want %q and %s", c.name, got.domain, servers, c.domain, c.servers)
		}
	}
}

func FuzzReadResolvConf(f *testing.F) {
	f.Add("search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\n")
	f.Add("nameserver fe80::1%eth0\nsearch\tsvc..")
	f.Fuzz(func(t *testing.T, text string) {
		got := readResolvConf(strings.NewReader(text))
		if got.domain != strings.ToLower(got.domain) || strings.ContainsAny(got.domain, " \t\n") {
			t.Errorf("domain %q", got.domain)
		}
		if slices.ContainsFunc(got.servers, func(s netip.AddrPort) bool { return !s.IsValid() }) {
			t.Errorf("servers %v", got.servers)
		}
	})
}
