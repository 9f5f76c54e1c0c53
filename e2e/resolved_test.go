//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"
)

// TestSystemdResolved has laptops whose names are resolved by systemd-resolved:
// split DNS per link, and nothing left of it afterwards.
func TestSystemdResolved(t *testing.T) {
	boot := func(options ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		return prepare(ctx, options...)
	}
	t.Cleanup(func() {
		if err := boot(); err != nil {
			t.Error(err)
		}
	})
	if err := boot("--resolved"); err != nil {
		t.Fatal(err)
	}
	const settings = "resolvectl dns; resolvectl domain; resolvectl default-route; resolvectl llmnr; resolvectl mdns; resolvectl dnssec"
	before := alice.snapshot(t, settings)

	alice.connect(t, "-n", "shop")
	want(t, alice.sh("resolvectl domain podnet0").must(t), "cluster.local", "~shop", "~svc")
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		want(t, alice.cmd("getent", "ahosts", name).must(t), clusterIP(t, "shop", "web"))
	}
	want(t, alice.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.")
	alice.podnet("disconnect").must(t)

	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t, settings)) })
	t.Run("killed at random", func(t *testing.T) { killedAtRandom(t, settings) })
}
