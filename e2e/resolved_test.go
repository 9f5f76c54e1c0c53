//go:build e2e

package e2e

import (
	"context"
	"strings"
	"syscall"
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
	t.Run("an ordinary user", func(t *testing.T) {
		user := alice.plain()
		h := admin.helper(t, "alice")
		before := alice.snapshot(t, settings)
		user.connect(t, "-n", "shop")
		want(t, alice.sh("resolvectl domain podnet0").must(t), "cluster.local", "~shop", "~svc")
		for _, name := range []string{"web", "web.shop"} {
			want(t, user.cmd("getent", "ahosts", name).must(t), clusterIP(t, "shop", "web"))
		}
		h.end(syscall.SIGKILL)
		eventually(t, 5*time.Second, "laptop as before but for the daemon", func() error {
			return same(before, strings.ReplaceAll(alice.snapshot(t, settings), "podnet daemon runs\n", ""))
		})
	})
	t.Run("killed at random", func(t *testing.T) { killedAtRandom(t, settings) })
	t.Run("two clusters", func(t *testing.T) { twoByResolved(t, settings) })
}

// twoByResolved has alice in two clusters: each link of hers is asked for its own
// domains. Scripts in settings print what systemd-resolved knows.
func twoByResolved(t *testing.T, settings string) {
	blue(t)
	before := alice.snapshot(t, settings)
	inBoth(t)
	domains := func(cluster string) string {
		return alice.sh("resolvectl domain " + alice.sessions(t)[cluster].Tunnel.Interface).must(t)
	}
	primary := func(one, other string) {
		t.Helper()
		want(t, domains(one), "cluster.local", "~shop", "~svc", "~"+one+".podnet.internal")
		want(t, domains(other), "~"+other+".podnet.internal")
		if got := domains(other); strings.Contains(got, "cluster.local") || strings.Contains(got, "svc") {
			t.Errorf("%s is not primary, and is asked for %s", other, got)
		}
	}
	primary("lab", "blue")
	for _, host := range shortNames {
		hello(t, host, "lab")
	}
	for _, cluster := range []string{"lab", "blue"} {
		name := "db-0.db.shop.svc." + cluster + ".podnet.internal"
		for _, kind := range []string{"A", "AAAA"} {
			at := alice.names(t, name, kind) // by the stub of systemd-resolved
			if len(at) != 1 {
				t.Fatalf("%s of %s: %v", kind, name, at)
			}
			alice.cmd("ping", "-c", "1", "-W", "3", at[0]).must(t)
			want(t, alice.sh("resolvectl query "+at[0]).must(t), "db-0.db.shop.svc.")
		}
	}
	want(t, alice.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.")
	primaryMoves(t)
	alice.podnet("primary", "blue").must(t)
	primary("blue", "lab")
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t, settings)) })
	twoKilledAtRandom(t, settings)
}
