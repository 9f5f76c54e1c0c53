package dnsproxy

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// An explanation goes through the laptop's proxy to those who can read it.
func TestExplanationsPassTheSplit(t *testing.T) {
	for _, tt := range []struct {
		what, text string
		edns, told bool
	}{
		{"with EDNS", "no access to namespace pay", true, true},
		{"without EDNS", "no access to namespace pay", false, false},
		{"too long", strings.Repeat("x", maxExplanation+1), true, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			gateway, _ := serveOn(t, HandlerFunc(func(context.Context, *Request) *dns.Msg {
				m := Refuse(dns.RcodeNameError)
				m.Ns = []dns.RR{SOA("cluster.local.", "cluster.local.", 1, 5)}
				return Explain(m, dns.ExtendedErrorCodeProhibited, tt.text)
			}), Options{})
			split := NewSplit(SplitConfig{Domain: "cluster.local", Namespaces: []string{"pay"}, Cluster: forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{gateway}})})
			defer split.Close()
			laptop, _ := serveOn(t, split, Options{})
			q := query("till.pay.svc.cluster.local.", dns.TypeA)
			if tt.edns {
				q.SetEdns0(1232, false)
			}
			for range 2 { // the second one is remembered
				m := exchange(t, "udp", laptop, q)
				if m.Rcode != dns.RcodeNameError {
					t.Errorf("%v", m)
				}
				if why := explanation(m.Extra); (why != nil) != tt.told || why != nil && (why.InfoCode != dns.ExtendedErrorCodeProhibited || why.ExtraText != tt.text) {
					t.Errorf("explanation %v", why)
				}
			}
		})
	}
}

// TestWhatIsLeftOutIsSaid: a developer whose name has no address learns who took it.
func TestWhatIsLeftOutIsSaid(t *testing.T) {
	const name = "web.cart.svc.cluster.local."
	cluster := ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, data := range map[uint16][]string{
			dns.TypeA: {"10.244.1.2", "127.0.0.1"}, dns.TypeAAAA: {"fd00:244::2"}, dns.TypeTXT: {"hello"},
		}[q.Question[0].Qtype] {
			rr, err := dns.NewRR(name + " 5 " + dns.TypeToString[q.Question[0].Qtype] + " " + data)
			if err != nil {
				return nil, err
			}
			m.Answer = append(m.Answer, rr)
		}
		return Explain(m, dns.ExtendedErrorCodeStaleAnswer, "old"), nil
	})
	serve := func(qtype uint16, forbid func(netip.Addr) bool) *dns.Msg {
		split := NewSplit(SplitConfig{
			Domain: "cluster.local", Namespaces: []string{"cart"}, Cluster: cluster, Forbid: forbid,
			ReverseZones: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		})
		defer split.Close()
		q := query(name, qtype)
		q.SetEdns0(1232, false)
		return split.ServeDNS(t.Context(), &Request{Msg: q})
	}
	for _, tt := range []struct {
		what   string
		qtype  uint16
		forbid func(netip.Addr) bool
		left   int
		code   uint16
		text   string
	}{
		{"a loopback address among others", dns.TypeA, nil, 1, dns.ExtendedErrorCodeFiltered, "127.0.0.1 was left out: it never leaves a machine or a link"},
		{"a network of this machine's own", dns.TypeA, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.244.1.2") }, 0, dns.ExtendedErrorCodeFiltered, "10.244.1.2 was left out: on this machine something else has it"},
		{"a family that is not carried", dns.TypeAAAA, nil, 0, dns.ExtendedErrorCodeFiltered, "fd00:244::2 was left out: the tunnel does not carry its family"},
		{"no address", dns.TypeTXT, nil, 1, dns.ExtendedErrorCodeStaleAnswer, "old"},
	} {
		m := serve(tt.qtype, tt.forbid)
		why := explanation(m.Extra)
		if len(m.Answer) != tt.left || why == nil || why.InfoCode != tt.code || why.ExtraText != tt.text {
			t.Errorf("%s: %v", tt.what, m)
		}
	}
}
