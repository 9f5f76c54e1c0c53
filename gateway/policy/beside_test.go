package policy

import (
	"net/netip"
	"testing"
)

// TestBesideTheCluster grants alice a network that is wide enough to have the whole
// cluster in it: what is the cluster's own stays as it was.
func TestBesideTheCluster(t *testing.T) {
	e := shop()
	e.SetGrants([]Grant{
		{Addrs: []netip.Addr{alice, alice6}, Namespaces: []string{"shop"}, Routes: []netip.Prefix{cidr("10.0.0.0/8"), cidr("172.16.0.0/16"), cidr("2001:db8::/32")}, Domains: []string{"corp.internal."}},
		{Addrs: []netip.Addr{admin}, Cluster: true},
	})
	vpc := netip.MustParseAddrPort("10.20.0.5:5432")
	if e.Allow(alice, TCP, vpc) || e.Beside(alice, vpc.Addr()) {
		t.Error("a route counts before it is known what is the cluster's")
	}
	e.SetRanges([]netip.Prefix{cidr("10.244.0.0/16"), cidr("10.96.0.0/16"), cidr("fd00:10:244::/48")})
	for _, c := range []struct {
		what         string
		proto        Proto
		dst          string
		alice, admin bool
	}{
		{"a database", TCP, "10.20.0.5:5432", true, false},
		{"by UDP", UDP, "10.20.0.5:53", true, false},
		{"by ping", ICMP, "10.20.0.5:0", true, false},
		{"as an IPv4-mapped address", TCP, "[::ffff:10.20.0.5]:5432", true, false},
		{"by IPv6", TCP, "[2001:db8::5]:5432", true, false},
		{"outside of every route", TCP, "192.0.2.5:5432", false, false},
		{"a pod of shop", TCP, "10.244.0.20:8080", true, true},
		{"a pod of pay", TCP, "10.244.0.30:8080", false, true},
		{"a pod of nobody", TCP, "10.244.0.99:8080", false, true},
		{"a pod of no node", TCP, "10.244.7.7:8080", false, false},
		{"a Service of pay", TCP, "10.96.2.1:80", false, true},
		{"a Service that is not known", TCP, "10.96.77.7:80", false, false},
		{"the API server", TCP, "10.96.0.1:443", false, false},
		{"a node", TCP, "172.16.0.10:22", false, false},
		{"kubelet", TCP, "172.16.0.10:10250", false, false},
		{"the gateway", TCP, "10.244.0.9:8081", false, false},
		{"metadata", TCP, "169.254.169.254:80", false, false},
	} {
		dst := netip.MustParseAddrPort(c.dst)
		for peer, want := range map[netip.Addr]bool{alice: c.alice, alice6: c.alice, admin: c.admin, nobody: false} {
			if got := e.Allow(peer, c.proto, dst); got != want {
				t.Errorf("%s, %s from %s: %v, want %v", c.what, c.dst, peer, got, want)
			}
		}
	}
	for addr, want := range map[string]bool{"10.20.0.5": true, "10.244.0.20": false, "10.96.77.7": false, "172.16.0.10": false, "192.0.2.5": false} {
		if got := e.Beside(alice, ip(addr)); got != want {
			t.Errorf("%s is beside the cluster: %v", addr, got)
		}
	}
	for name, want := range map[string]bool{"corp.internal.": true, "db.corp.internal.": true, "notcorp.internal.": false, "internal.": false, "example.com.": false} {
		if e.MayAsk(alice, name) != want || e.MayAsk(admin, name) {
			t.Errorf("alice may ask for %s: %v; admin: %v", name, e.MayAsk(alice, name), e.MayAsk(admin, name))
		}
	}
	e.SetGrants([]Grant{{Addrs: []netip.Addr{alice}, Namespaces: []string{"shop"}}})
	if e.Allow(alice, TCP, vpc) || e.MayAsk(alice, "db.corp.internal.") {
		t.Error("what was taken away stays")
	}
}
