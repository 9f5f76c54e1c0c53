//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// blue boots the lab's second cluster for the time of the test, with podnet in it.
func blue(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	t.Cleanup(func() { lab("cluster", "down", "blue").must(t) })
	start := time.Now()
	for _, c := range []command{
		lab("cluster", "up", "blue"),
		lab("load", "--cluster", "blue", filepath.Join(top, "bin/podnet-gateway.tar"), filepath.Join(top, "bin/podnet-agent.tar")),
	} {
		if err := c.stream(ctx); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
	report(t, "a second cluster boots (under 60 s)", time.Since(start).Round(100*time.Millisecond))
	if err := install(ctx, append([]string{"--context", "blue"}, usual...)...); err != nil {
		t.Fatal(err)
	}
	lab("grant", "--cluster", "blue").must(t)
}

// TestTwoClusters has alice in two clusters at once whose pods and Services have the
// same addresses.
func TestTwoClusters(t *testing.T) {
	blue(t)
	before := alice.snapshot(t)
	alice.connect(t, "-n", "shop")
	alice.connect(t, "--context", "blue", "-n", "shop")
	two := alice.sessions(t)
	if len(two) != 2 || !two["lab"].Primary || two["blue"].Primary {
		t.Fatalf("sessions: %+v", two)
	}
	for _, a := range two["lab"].Routes {
		for _, b := range two["blue"].Routes {
			if a, b := netip.MustParsePrefix(a), netip.MustParsePrefix(b); a.Overlaps(b) {
				t.Errorf("%s of one overlaps %s of the other", a, b)
			}
		}
	}

	// Each has its names, and the primary the short ones.
	clusters := []string{"lab", "blue"}
	hello := func(host, cluster string) {
		t.Helper()
		got := alice.cmd("curl", "-sS", "--max-time", "10", "http://"+host).must(t)
		if !strings.HasPrefix(got, "hello from web-") || strings.HasSuffix(got, " in blue") != (cluster == "blue") {
			t.Errorf("%s says %q, and should be in %s", host, got, cluster)
		}
	}
	for _, host := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		hello(host, "lab")
	}
	for _, cluster := range clusters {
		zone := "shop.svc." + cluster + ".podnet.internal"
		hello("web."+zone, cluster)
		if got := alice.sh(`echo ahoy | socat -T 3 - UDP:web.` + zone + `:5353`).must(t); got != "ahoy" {
			t.Errorf("the UDP echo in %s said %q", cluster, got)
		}
		db := "db-0.db." + zone + "."
		want(t, alice.cmd("dig", "+short", "SRV", "_postgres._tcp.db."+zone).must(t), "5432 "+db)
		at := alice.cmd("dig", "+short", db).must(t)
		alice.cmd("ping", "-c", "1", "-W", "3", at).must(t)
		if cluster == "lab" {
			db = "db-0.db.shop.svc.cluster.local."
		}
		if got := alice.cmd("dig", "+short", "-x", at).must(t); got != db {
			t.Errorf("%s is %q, want %s", at, got, db)
		}
	}

	bothAtOnce(t, 100_000_000)

	// Each is left without a word to the other.
	open := map[string]*watcher{}
	for _, cluster := range clusters {
		open[cluster] = alice.start(t, "echo", "db-0.db.shop.svc."+cluster+".podnet.internal:5432")
		eventually(t, 10*time.Second, "a connection to "+cluster, func() error {
			if _, ok := open[cluster].last(works); !ok {
				return fmt.Errorf("none")
			}
			return nil
		})
	}
	alice.podnet("disconnect", "blue").must(t)
	alice.cmd("getent", "ahosts", "web.shop.svc.blue.podnet.internal").mustFail(t)
	hello("web", "lab")
	open["lab"].stays(t)
	alice.podnet("connect", "--wait", "--context", "blue", "-n", "shop").must(t)
	session := alice.start(t, "echo", "db-0.db.shop.svc.blue.podnet.internal:5432")
	alice.podnet("disconnect", "lab").must(t)
	hello("web.shop.svc.blue.podnet.internal", "blue")
	hello("web", "blue") // the primary is who is left
	session.stays(t)
	if left := alice.sessions(t); len(left) != 1 || !left["blue"].Primary {
		t.Errorf("sessions: %+v", left)
	}
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
}

// stays lets the role go on for a while and fails the test when its connection broke.
func (w *watcher) stays(t testing.TB) {
	t.Helper()
	time.Sleep(time.Second)
	w.stop()
	w.unbroken(t)
}

// sessions are the machine's, by name.
func (m machine) sessions(t testing.TB) map[string]localapi.Connection {
	t.Helper()
	all := map[string]localapi.Connection{}
	for _, c := range m.status(t).Connections {
		all[c.Name] = c
	}
	return all
}

// bothAtOnce has alice read size bytes from each cluster at the same time, and compares
// what came.
func bothAtOnce(t *testing.T, size int) {
	t.Helper()
	sum := alice.cmd("curl", "-sS", fmt.Sprintf("http://web.shop/blob/sha256?size=%d", size)).must(t)
	start := time.Now()
	got := alice.sh(fmt.Sprintf(`for cluster in lab blue; do (
			heads=$(mktemp)
			sum=$(curl -sS --max-time 100 -D $heads "http://web.shop.svc.$cluster.podnet.internal/blob?size=%d" | sha256sum)
			echo $cluster $sum $(grep -i ^x-pod: $heads); rm $heads
		) & done; wait`, size)).must(t)
	report(t, fmt.Sprintf("%d MB from each of two clusters at once", size/1_000_000), rate(2*size, time.Since(start)))
	lines := strings.Split(got, "\n")
	if len(lines) != 2 {
		t.Fatalf("%d answers:\n%s", len(lines), got)
	}
	for _, line := range lines {
		if cluster, rest, _ := strings.Cut(line, " "); !strings.HasPrefix(rest, sum) || strings.Contains(rest, " in blue") != (cluster == "blue") {
			t.Errorf("want checksum %s, from where it says:\n%s", sum, line)
		}
	}
}
