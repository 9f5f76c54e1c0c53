package client

import (
	"encoding/json"
	"net/netip"
	"testing"

	"podnet.dev/api/v1alpha1"
)

// FuzzParseNetwork has a gateway write anything into the status of our Peer: what is
// routed are prefixes none of which lies in another, and without what the user keeps out.
func FuzzParseNetwork(f *testing.F) {
	f.Add(`{"address4":"198.18.0.2","network":{"podCIDRs":["10.244.0.0/16","10.244.1.0/24"],"serviceCIDRs":["10.96.0.0/12"],"dnsAddresses":["198.18.0.1"],"dnsDomain":"cluster.local"}}`, "10.244.3.0/24")
	f.Add(`{"address6":"fd70::1","network":{"podCIDRs":["::ffff:10.0.0.0/100","0.0.0.0/0","::/0"],"dnsAddresses":["127.0.0.1"]}}`, "fd00::/8")
	f.Add(`{"address4":"198.18.0.2","network":{"dnsAddresses":["198.18.0.1"]},"virtual":[{"real":"10.244.0.0/16","virtual":"240.0.0.0/16"}]}`, "0.0.0.0/0")
	f.Fuzz(func(t *testing.T, status, never string) {
		var p v1alpha1.Peer
		if json.Unmarshal([]byte(status), &p.Status) != nil {
			return
		}
		n, err := parseNetwork(&p)
		if err != nil {
			return
		}
		if len(n.own) == 0 || len(n.dns) == 0 || n.domain == "" {
			t.Fatalf("without what a session needs: %+v", n)
		}
		apart := func(all []netip.Prefix) {
			for i, p := range all {
				if p != p.Masked() {
					t.Errorf("%s has bits behind its length", p)
				}
				for _, o := range all[:i] {
					if p.Overlaps(o) {
						t.Errorf("%s and %s", p, o)
					}
				}
			}
		}
		apart(n.prefixes)
		q, err := netip.ParsePrefix(never)
		if err != nil || len(n.prefixes) > 100 {
			return
		}
		left := n.without([]netip.Prefix{q.Masked()})
		apart(left.prefixes)
		for _, p := range left.prefixes {
			if p.Overlaps(q) {
				t.Errorf("%s is routed, and %s was kept out", p, q)
			}
		}
		left.inside()
	})
}
