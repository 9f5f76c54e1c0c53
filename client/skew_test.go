package client

import (
	"encoding/json"
	"strings"
	"testing"

	"podnet.dev/api/v1alpha1"
)

// What gateways of other ages write. The first is what the first gateway there was
// wrote; the second has what no client knows yet.
var words = map[string]string{
	"the first gateway's": `{"spec":{"user":"alice","publicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","leaseSeconds":300,"renew":1,"device":"","clientVersion":""},
		"status":{"address4":"198.18.0.2","address6":"fd70:6f64:6e65:7400::2","observedRenew":1,"expiresAt":"2026-11-22T08:00:00Z",
		"gateways":[{"pod":"podnet-gateway-0","podUID":"u","publicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","streamPort":51821}],
		"network":{"podCIDRs":["10.244.0.0/16"],"serviceCIDRs":["10.96.0.0/12"],"dnsDomain":"cluster.local","dnsAddresses":["198.18.0.1"]},
		"conditions":[{"type":"Ready","status":"True","reason":"Admitted","message":"The peer may connect.","lastTransitionTime":"2026-11-22T07:55:00Z"}]}}`,
	"a later gateway's": `{"spec":{"user":"alice","publicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","leaseSeconds":300,"renew":1,"device":"","clientVersion":"","colour":"green"},
		"status":{"address4":"198.18.0.2","address6":"fd70:6f64:6e65:7400::2","weather":{"today":"rain"},
		"gateways":[{"pod":"podnet-gateway-0","podUID":"u","publicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","streamPort":51821,"limits":["user-coffee"],"mood":"good"}],
		"network":{"podCIDRs":["10.244.0.0/16"],"serviceCIDRs":["10.96.0.0/12"],"dnsDomain":"cluster.local","dnsAddresses":["198.18.0.1"],"rivers":["Elbe"]},
		"conditions":[{"type":"Ready","status":"True","reason":"Admitted","message":"","lastTransitionTime":"2026-11-22T07:55:00Z"},{"type":"Rested","status":"True","reason":"Slept","message":"","lastTransitionTime":"2026-11-22T07:55:00Z"}]}}`,
}

// A client understands gateways that are older and newer than it.
func TestGatewaysOfOtherAges(t *testing.T) {
	for whose, text := range words {
		var p v1alpha1.Peer
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatalf("%s: %v", whose, err)
		}
		n, err := parseNetwork(&p)
		if err != nil || len(n.own) != 2 || len(n.prefixes) != 2 || len(n.dns) != 1 {
			t.Errorf("%s: %+v, %v", whose, n, err)
		}
		if all := rank("laptop", p.Status.Gateways); len(all) != 1 || all[0].StreamPort != 51821 {
			t.Errorf("%s: %+v", whose, all)
		}
		if reason, message := cut(&p); reason != "" {
			t.Errorf("%s: it says no: %s %s", whose, reason, message)
		}
		w, at := limitWarning(p.Status.Gateways[0].Limits)
		if at != (whose == "a later gateway's") || at && !strings.Contains(w.Text, "user-coffee") {
			t.Errorf("%s: %+v", whose, w)
		}
	}
}

func TestLimitWarning(t *testing.T) {
	w, at := limitWarning([]string{"user-connections", "user-rate"})
	if !at || w.Code != "limit" || !strings.Contains(w.Text, "as many connections are open as a user may have; connections are opened faster") || !strings.HasSuffix(w.Hint, "--limit user-connections=NUMBER") {
		t.Errorf("%+v", w)
	}
	if w, _ := limitWarning([]string{"memory"}); !strings.HasSuffix(w.Hint, "--memory QUANTITY") {
		t.Errorf("%+v", w)
	}
	if _, at := limitWarning(nil); at {
		t.Error("nobody is at no limit")
	}
}
