//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
	"podnet.dev/internal/overview"
)

// TestAdmin sees who is there and throws her out: with the right that the Role
// podnet-top gives, and without it not.
func TestAdmin(t *testing.T) {
	alice.connect(t, "-n", "shop")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)

	look := func() (overview.Peer, error) {
		var top struct {
			Kind     string
			Gateways []overview.Gateway
		}
		text := admin.podnet("admin", "top", "-o", "json").must(t)
		if err := json.Unmarshal([]byte(text), &top); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, g := range top.Gateways {
			for _, p := range g.Peers {
				if p.User == "alice" && p.Here(g.Time) {
					return p, nil
				}
			}
		}
		return overview.Peer{}, fmt.Errorf("alice is not there: %s", text)
	}
	var p overview.Peer
	eventually(t, 10*time.Second, "alice is there", func() (err error) { p, err = look(); return err })
	if p.Path == "" || p.BytesUp == 0 || len(p.Namespaces) != 1 || p.Device == "" {
		t.Errorf("%+v", p)
	}
	began := time.Now()
	table := admin.podnet("admin", "top", "-o", "wide").must(t)
	report(t, "podnet admin top", time.Since(began).Round(10*time.Millisecond))
	want(t, table, "podnet-gateway-0")
	want(t, table, p.Name)

	if r := bob.podnet("admin", "top").try(t); r.code != 4 || !strings.Contains(r.stderr, "podnet-top") {
		t.Errorf("bob looks: %+v", r)
	}
	if r := bob.podnet("admin", "revoke", "alice").try(t); r.code != 4 {
		t.Errorf("bob revokes: %+v", r)
	}
	if r := kubectl("-n", "podnet-system", "exec", "podnet-gateway-0", "--", "/podnet-gateway", "--version").try(t); r.code == 0 || !strings.Contains(r.stderr, "PODNET-EXEC") {
		t.Errorf("another command in the gateway: %+v", r)
	}
	want(t, kubectl("-n", "podnet-system", "exec", "podnet-gateway-0", "--", "/podnet-gateway", "top").must(t), `"user":"alice"`)

	web := clusterIP(t, "shop", "web")
	revoked := time.Now()
	want(t, admin.podnet("admin", "revoke", "alice").must(t), "revoked "+p.Name+" of alice")
	last := ends(t, 10*time.Second, "alice's session", func() bool {
		return alice.cmd("curl", "-sS", "--max-time", "1", "http://"+web).try(t).code == 0
	})
	measure.AtMost(t, "[6] podnet admin revoke to the last answer", last.Sub(revoked), 2*time.Second)
	want(t, kubectl("-n", "podnet-system", "get", "events").must(t), "the Peer was deleted")
	want(t, kubectl("-n", "podnet-system", "get", "networkpolicy", "podnet-gateway").must(t), "podnet-gateway")
	if r := admin.podnet("admin", "revoke", "nobody").try(t); r.code != 1 {
		t.Errorf("nobody was revoked: %+v", r)
	}
}
