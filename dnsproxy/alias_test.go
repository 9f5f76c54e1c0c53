package dnsproxy

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// pair are two clusters with the same names, "lab" primary and "blue" not.
type pair struct {
	lab, blue *book
	base      *book
	splits    map[string]*Split
}

func newPair(t *testing.T) *pair {
	t.Helper()
	records := func(net string) []string {
		rev := func(last string) string {
			parts := strings.Split(net+"."+last, ".")
			slices.Reverse(parts)
			return strings.Join(parts, ".") + ".in-addr.arpa."
		}
		return []string{
			"web.shop.svc.cluster.local. 5 A " + net + ".20",
			"_http._tcp.web.shop.svc.cluster.local. 5 SRV 0 1 80 web.shop.svc.cluster.local.",
			"db.shop.svc.cluster.local. 5 A " + net + ".31", "db.shop.svc.cluster.local. 5 A " + net + ".32",
			"db-0.db.shop.svc.cluster.local. 5 A " + net + ".31",
			"_pg._tcp.db.shop.svc.cluster.local. 5 SRV 0 1 5432 db-0.db.shop.svc.cluster.local.",
			"10-1-2-3.shop.pod.cluster.local. 5 A 10.1.2.3",
			"six.shop.svc.cluster.local. 5 AAAA fd00::31",
			"in.shop.svc.cluster.local. 5 CNAME web.shop.svc.cluster.local.",
			"out.shop.svc.cluster.local. 5 CNAME example.com.", "example.com. 5 A 192.0.2.80",
			rev("20") + " 5 PTR web.shop.svc.cluster.local.",
		}
	}
	p := &pair{lab: &book{lines: records("10.96.0")}, blue: &book{lines: records("100.64.0")}, base: &book{}, splits: map[string]*Split{}}
	base, _ := serveOn(t, asHandler(p.base), Options{})
	g := new(Group)
	for name, c := range map[string]struct {
		book  *book
		route string
	}{"lab": {p.lab, "10.96.0.0/12"}, "blue": {p.blue, "100.64.0.0/16"}} {
		s := NewSplit(SplitConfig{
			Namespace: "shop", Namespaces: []string{"shop"}, Cluster: c.book, Base: []netip.AddrPort{base}, Group: g,
			Alias: name + ".podnet.internal", Secondary: name != "lab",
			ReverseZones: []netip.Prefix{netip.MustParsePrefix(c.route), netip.MustParsePrefix("fd00::/64")},
		})
		t.Cleanup(func() { s.Close() })
		p.splits[name] = s
	}
	return p
}

// ask is the answer as "RCODE: records", each as "owner TYPE data".
func (p *pair) ask(t *testing.T, of, name string, qtype uint16) string {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m := p.splits[of].ServeDNS(context.Background(), &Request{Msg: q})
	var parts []string
	for _, rr := range m.Answer {
		data := strings.TrimPrefix(rr.String(), rr.Header().String())
		parts = append(parts, rr.Header().Name+" "+dns.TypeToString[rr.Header().Rrtype]+" "+data)
	}
	for _, rr := range m.Ns {
		parts = append(parts, "("+rr.Header().Name+")")
	}
	return dns.RcodeToString[m.Rcode] + ": " + strings.Join(parts, ", ")
}

func TestAlias(t *testing.T) {
	p := newPair(t)
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.shop.svc.blue.podnet.internal", dns.TypeA, "NOERROR: web.shop.svc.blue.podnet.internal. A 100.64.0.20"},
		{"Web.SHOP.svc.Blue.podnet.internal", dns.TypeA, "NOERROR: Web.SHOP.svc.Blue.podnet.internal. A 100.64.0.20"},
		{"web.shop.svc.lab.podnet.internal", dns.TypeA, "NOERROR: web.shop.svc.lab.podnet.internal. A 10.96.0.20"},
		{"web.shop.svc.cluster.local", dns.TypeA, "NOERROR: web.shop.svc.cluster.local. A 10.96.0.20"},
		{"web.shop", dns.TypeA, "NOERROR: web.shop. A 10.96.0.20"},
		{"_http._tcp.web.shop.svc.blue.podnet.internal", dns.TypeSRV, "NOERROR: _http._tcp.web.shop.svc.blue.podnet.internal. SRV 0 1 80 web.shop.svc.blue.podnet.internal."},
		{"_pg._tcp.db.shop.svc.blue.podnet.internal", dns.TypeSRV, "NOERROR: _pg._tcp.db.shop.svc.blue.podnet.internal. SRV 0 1 5432 db-0.db.shop.svc.blue.podnet.internal."},
		{"db.shop.svc.blue.podnet.internal", dns.TypeA, "NOERROR: db.shop.svc.blue.podnet.internal. A 100.64.0.31, db.shop.svc.blue.podnet.internal. A 100.64.0.32"},
		{"db-0.db.shop.svc.blue.podnet.internal", dns.TypeA, "NOERROR: db-0.db.shop.svc.blue.podnet.internal. A 100.64.0.31"},
		{"10-1-2-3.shop.pod.blue.podnet.internal", dns.TypeA, "NOERROR: 10-1-2-3.shop.pod.blue.podnet.internal. A 10.1.2.3"},
		{"six.shop.svc.blue.podnet.internal", dns.TypeAAAA, "NOERROR: six.shop.svc.blue.podnet.internal. AAAA fd00::31"},
		{"web.shop.svc.blue.podnet.internal", dns.TypeAAAA, "NOERROR: (blue.podnet.internal.)"},
		{"in.shop.svc.blue.podnet.internal", dns.TypeA, "NOERROR: in.shop.svc.blue.podnet.internal. CNAME web.shop.svc.blue.podnet.internal., web.shop.svc.blue.podnet.internal. A 100.64.0.20"},
		{"out.shop.svc.blue.podnet.internal", dns.TypeA, "NOERROR: out.shop.svc.blue.podnet.internal. CNAME example.com., example.com. A 192.0.2.80"},
		{"none.shop.svc.blue.podnet.internal", dns.TypeA, "NXDOMAIN: (blue.podnet.internal.)"},
		{"20.0.64.100.in-addr.arpa", dns.TypePTR, "NOERROR: 20.0.64.100.in-addr.arpa. PTR web.shop.svc.blue.podnet.internal."},
		{"20.0.96.10.in-addr.arpa", dns.TypePTR, "NOERROR: 20.0.96.10.in-addr.arpa. PTR web.shop.svc.cluster.local."},
		{"web.shop.svc.red.podnet.internal", dns.TypeA, "NXDOMAIN: (podnet.internal.)"},
		{"podnet.internal", dns.TypeA, "NXDOMAIN: (podnet.internal.)"},
	} {
		// Whichever of the two is asked: resolv.conf knows the primary's only, and
		// systemd-resolved each for its own.
		for _, of := range []string{"lab", "blue"} {
			if of == "blue" && (strings.HasSuffix(tt.name, "cluster.local") || tt.name == "web.shop") {
				continue
			}
			if got := p.ask(t, of, tt.name, tt.qtype); got != tt.want {
				t.Errorf("%s for %s %s:\n got %s\nwant %s", of, tt.name, dns.TypeToString[tt.qtype], got, tt.want)
			}
		}
	}
	if leaked := p.base.take(); len(leaked) > 0 {
		t.Errorf("the base resolvers saw %q", leaked)
	}
}

// TestPrimaryMoves: short names and the zone are one cluster's at a time, and
// neither sees a question for the other's.
func TestPrimaryMoves(t *testing.T) {
	p := newPair(t)
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		if got := p.ask(t, "blue", name, dns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
			t.Errorf("blue is not primary, and answers for %s: %s", name, got)
		}
	}
	if asked := p.blue.take(); len(asked) > 0 {
		t.Errorf("blue saw %q", asked)
	}
	p.base.take()
	p.splits["blue"].SetSecondary(false)
	p.splits["lab"].SetSecondary(true)
	p.splits["blue"].SetNamespaces("shop", []string{"shop"})
	p.splits["lab"].SetNamespaces("shop", []string{"shop"})
	for name, want := range map[string]string{
		"web": "100.64.0.20", "web.shop": "100.64.0.20", "web.shop.svc": "100.64.0.20", "web.shop.svc.cluster.local": "100.64.0.20",
		"web.shop.svc.lab.podnet.internal": "10.96.0.20", "web.shop.svc.blue.podnet.internal": "100.64.0.20",
	} {
		if got := p.ask(t, "blue", name, dns.TypeA); got != "NOERROR: "+dns.Fqdn(name)+" A "+want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := p.ask(t, "blue", "20.0.96.10.in-addr.arpa", dns.TypePTR); got != "NOERROR: 20.0.96.10.in-addr.arpa. PTR web.shop.svc.lab.podnet.internal." {
		t.Errorf("lab's address: %s", got)
	}
	p.splits["lab"].Close()
	if got := p.ask(t, "blue", "web.shop.svc.lab.podnet.internal", dns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("lab is over, and its name is %s", got)
	}
}

// TestNameTooLongForItsAlias is left out rather than said wrongly.
func TestNameTooLongForItsAlias(t *testing.T) {
	long := strings.Repeat("a.", 118) + "cluster.local."
	if _, ok := moved(long, "cluster.local.", "blue.podnet.internal."); ok {
		t.Error("a name of more than 255 octets passed")
	}
	rr, err := dns.NewRR("20.0.64.100.in-addr.arpa. 5 PTR " + long)
	if err != nil {
		t.Fatal(err)
	}
	if out := renamed([]dns.RR{rr}, "cluster.local.", "blue.podnet.internal."); len(out) != 0 || rr.(*dns.PTR).Ptr != long {
		t.Errorf("%v of %v", out, rr)
	}
	if got, ok := moved("Web.Shop.svc.Cluster.Local.", "cluster.local.", "blue.podnet.internal."); !ok || got != "Web.Shop.svc.blue.podnet.internal." {
		t.Errorf("%q", got)
	}
}
