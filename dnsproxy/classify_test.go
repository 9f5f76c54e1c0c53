package dnsproxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func testView() *view {
	return newView("cluster.local", "cart", []string{"cart", "default", "dev"}, []netip.Prefix{
		netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10:96::/112"),
	})
}

func TestClassify(t *testing.T) {
	v := testView()
	v.also = []string{"corp.internal."}
	for _, tt := range []struct {
		name   string
		class  class
		target string // without its final dot
		orBase bool
	}{
		{"web.cart.svc.cluster.local", classZone, "web.cart.svc.cluster.local", false},
		{"cluster.local", classZone, "cluster.local", false},
		{"web.pay.svc.cluster.local", classZone, "web.pay.svc.cluster.local", false},
		{"notcluster.local", classOther, "", false},

		{"web.cart", classShort, "web.cart.svc.cluster.local", false},
		{"db-0.db.cart", classShort, "db-0.db.cart.svc.cluster.local", false},
		{"_http._tcp.web.cart", classShort, "_http._tcp.web.cart.svc.cluster.local", false},
		{"web.cart.svc", classShort, "web.cart.svc.cluster.local", false},
		{"_http._tcp.web.cart.svc", classShort, "_http._tcp.web.cart.svc.cluster.local", false},
		{"cart.svc", classShort, "cart.svc.cluster.local", false},
		{"10-244-1-2.cart.pod", classShort, "10-244-1-2.cart.pod.cluster.local", false},

		{"api.dev", classShort, "api.dev.svc.cluster.local", true},
		{"db-0.db.dev", classShort, "db-0.db.dev.svc.cluster.local", true},
		{"_pg._tcp.db.dev", classShort, "_pg._tcp.db.dev.svc.cluster.local", true},
		{"a.b.go.dev", classOther, "", false}, // no Service has such a name
		{"api.dev.svc", classShort, "api.dev.svc.cluster.local", false},

		{"web.pay", classOther, "", false},
		{"web.pay.svc", classNowhere, "", false},
		{"pay.svc", classNowhere, "", false},
		{"10-1-2-3.pay.pod", classNowhere, "", false},
		{"example.com", classOther, "", false},
		{"db.corp.internal", classAlso, "db.corp.internal", false},
		{"corp.internal", classAlso, "corp.internal", false},
		{"notcorp.internal", classOther, "", false},
		{"svc.example.com", classOther, "", false},

		{"web", classSingle, "web.cart.svc.cluster.local", true},
		{"svc", classSingle, "svc.cart.svc.cluster.local", true},
		{"wpad", classOther, "", false},
		{"localhost", classLocalhost, "", false},
		{"foo.localhost", classLocalhost, "", false},

		{"1.0.244.10.in-addr.arpa", classReverse, "1.0.244.10.in-addr.arpa", false},
		{"244.10.in-addr.arpa", classReverse, "244.10.in-addr.arpa", false},
		{"b._dns-sd._udp.0.1.244.10.in-addr.arpa", classReverse, "b._dns-sd._udp.0.1.244.10.in-addr.arpa", false},
		{"10.in-addr.arpa", classOther, "", false},
		{"1.0.112.10.in-addr.arpa", classOther, "", false},
		{"1.0.111.10.in-addr.arpa", classReverse, "1.0.111.10.in-addr.arpa", false},
		{"1.0.0.127.in-addr.arpa", classOther, "", false},
		{"home.arpa", classOther, "", false},
		{strings.Repeat("a234567890.", 22) + "cart", classNowhere, "", false}, // too long when completed
	} {
		got := v.classify(tt.name + ".")
		want := route{class: tt.class, target: tt.target, orBase: tt.orBase}
		if want.target != "" {
			want.target += "."
		}
		if got != want {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
	if got := v.classify("."); got.class != classOther {
		t.Errorf("root: %v", got)
	}
	none := newView("", "", nil, nil)
	for _, name := range []string{"web.", "web.cart.", "1.0.244.10.in-addr.arpa."} {
		if got := none.classify(name); got != (route{}) {
			t.Errorf("%s with nothing connected: %v", name, got)
		}
	}
}

func TestTopLevel(t *testing.T) {
	for _, s := range []string{"com", "dev", "app", "io", "shop", "pay", "ck", "test", "lan"} {
		if !topLevel(s) {
			t.Errorf("%s is one", s)
		}
	}
	for _, s := range []string{"cart", "default", "kube-system", "svc", "staging", "podnet-system", "blogspot", "github"} {
		if topLevel(s) {
			t.Errorf("%s is none", s)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"web.cart.", "_http._tcp.web.cart.svc.", "1.0.244.10.in-addr.arpa.", "a.b.c.d.dev.", ".", "svc.", "x\\.y.svc."} {
		f.Add(s)
	}
	v := testView()
	f.Fuzz(func(t *testing.T, name string) {
		if _, ok := dns.IsDomainName(name); !ok {
			t.Skip()
		}
		name = Canonical(name)
		rt := v.classify(name)
		if rt.target == "" {
			if rt.orBase {
				t.Errorf("%q: %v", name, rt)
			}
			return
		}
		if _, ok := dns.IsDomainName(rt.target); !ok {
			t.Errorf("%q becomes %q, which is no name", name, rt.target)
		}
		if rt.class != classReverse && !Under(rt.target, v.zone) {
			t.Errorf("%q: the cluster is asked for %q", name, rt.target)
		}
		if rt.class == classZone && rt.orBase {
			t.Errorf("%q leaks", name)
		}
	})
}

func TestParseReverse(t *testing.T) {
	for _, tt := range []struct{ name, addr, prefix string }{
		{"1.0.96.10.in-addr.arpa.", "10.96.0.1", "10.96.0.1/32"},
		{"96.10.in-addr.arpa.", "", "10.96.0.0/16"},
		{"01.0.96.10.in-addr.arpa.", "", ""},
		{"256.0.96.10.in-addr.arpa.", "", ""},
		{"1.1.0.96.10.in-addr.arpa.", "", ""},
		{"x.10.in-addr.arpa.", "", ""},
		{"1..10.in-addr.arpa.", "", ""},
		{"in-addr.arpa.", "", ""},
		{"0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.", "fd00:10:96::20", "fd00:10:96::20/128"},
		{"0.0.d.f.ip6.arpa.", "", "fd00::/16"},
		{"00.d.f.ip6.arpa.", "", ""},
		{"g.d.f.ip6.arpa.", "", ""},
		{"example.com.", "", ""},
	} {
		var addr, prefix string
		if a, ok := ParseReverse(tt.name); ok {
			addr = a.String()
		}
		if p := ParseReversePrefix(tt.name); p.IsValid() {
			prefix = p.String()
		}
		if addr != tt.addr || prefix != tt.prefix {
			t.Errorf("%s: %q %q, want %q %q", tt.name, addr, prefix, tt.addr, tt.prefix)
		}
	}
}

func FuzzParseReverse(f *testing.F) {
	f.Add("1.0.96.10.in-addr.arpa.")
	f.Add("0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := ParseReverse(name)
		if !ok || a.Is4In6() {
			return // the library names a mapped address as the IPv4 one
		}
		back, err := dns.ReverseAddr(a.String())
		if err != nil || back != name {
			t.Errorf("%q is %v, whose name is %q", name, a, back)
		}
	})
}
