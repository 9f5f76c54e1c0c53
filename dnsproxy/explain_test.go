package dnsproxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestExplain(t *testing.T) {
	w := newWorld(t)
	base := w.split.base.Load().forward.cfg.Servers[0].String()
	told := func(name, qtype string) string {
		e, err := w.split.Explain(t.Context(), name, qtype)
		if err != nil {
			return err.Error()
		}
		var words []string
		for _, s := range e.Steps {
			words = append(words, fmt.Sprintf("%s %s %s %v %v", s.Side, s.Name, s.Rcode, s.Server, s.Cached))
		}
		words = append(words, e.Class, e.Rcode)
		for _, r := range e.Answers {
			words = append(words, fmt.Sprintf("%s %s %s", r.Name, r.Type, r.Data))
		}
		return strings.ReplaceAll(strings.Join(words, "; "), base, "BASE")
	}
	for _, tt := range []struct{ name, qtype, want string }{
		{"web", "A", "cluster web.cart.svc.cluster.local. NOERROR invalid AddrPort false; single; NOERROR; web. A 10.96.0.20"},
		{"Web.Cart.", "a", "cluster web.cart.svc.cluster.local. NOERROR invalid AddrPort true; short; NOERROR; Web.Cart. A 10.96.0.20"},
		{"_http._tcp.web.cart", "SRV", "cluster _http._tcp.web.cart.svc.cluster.local. NOERROR invalid AddrPort false; short; NOERROR; _http._tcp.web.cart. SRV 0 1 80 web.cart.svc.cluster.local."},
		{"nas", "A", "cluster nas.cart.svc.cluster.local. NXDOMAIN invalid AddrPort false; base nas. NOERROR BASE false; single; NOERROR; nas. A 192.0.2.97"},
		{"example.com", "A", "base example.com. NOERROR BASE false; other; NOERROR; example.com. A 192.0.2.99"},
		{"example.com", "A", "base example.com. NOERROR BASE true; other; NOERROR; example.com. A 192.0.2.99"},
		{"10.96.0.20", "", "cluster 20.0.96.10.in-addr.arpa. NOERROR invalid AddrPort false; reverse; NOERROR; 20.0.96.10.in-addr.arpa. PTR web.cart.svc.cluster.local."},
		{"::1", "", "base 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. NXDOMAIN BASE false; other; NXDOMAIN"},
		{"localhost", "AAAA", "localhost; NOERROR; localhost. AAAA ::1"},
		{"web.pay.svc", "A", "nowhere; NXDOMAIN"},
		{"web.cart", "AXFR", "other; REFUSED"},
		{"web.cart", "ADDRESS", `"ADDRESS" is no type of DNS records`},
		{"web cart", "A", `"web cart" is no DNS name`},
		{strings.Repeat("a", 64), "A", fmt.Sprintf("%q is no DNS name", strings.Repeat("a", 64))},
		{"", "A", `"" is no DNS name`},
	} {
		if got := told(tt.name, tt.qtype); got != tt.want {
			t.Errorf("%s %s\n got %s\nwant %s", tt.name, tt.qtype, got, tt.want)
		}
	}
	w.cluster.down = true
	e, err := w.split.Explain(t.Context(), "gone.cart", "A")
	if err != nil || e.Rcode != "SERVFAIL" || len(e.Steps) != 1 || e.Steps[0].Err == nil || e.Steps[0].Rcode != "" {
		t.Errorf("%+v, %v", e, err)
	}
}

// Records that a laptop must not believe are left out; what remains is an
// answer that says for how long.
func TestNothingLeftIsNoData(t *testing.T) {
	w := newWorld(t)
	w.cluster.lines = append(w.cluster.lines, "lo.cart.svc.cluster.local. 5 A 127.0.0.1")
	for _, tt := range []struct {
		name  string
		qtype uint16
	}{{"lo.cart.", dns.TypeA}, {"six.cart.", dns.TypeAAAA}} {
		m := w.ask(tt.name, tt.qtype)
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].(*dns.SOA).Minttl != 5 {
			t.Errorf("%s: %v", tt.name, m)
		}
	}
	w.split.Flush()
	w.split.view.Store(newView("", "cart", []string{"cart"}, []netip.Prefix{netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("10.96.0.0/12")}))
	if m := w.ask("six.cart.", dns.TypeAAAA); len(m.Answer) != 1 || len(m.Ns) != 0 {
		t.Errorf("routed: %v", m)
	}
}
