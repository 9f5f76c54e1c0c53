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
