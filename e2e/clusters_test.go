//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
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

// inBoth joins alice to the lab's cluster, which is her primary, and to blue.
func inBoth(t *testing.T) {
	t.Helper()
	alice.connect(t, "-n", "shop")
	alice.connect(t, "--context", "blue", "-n", "shop")
}

// hello fails the test unless the web server at a host of alice's is that of a cluster.
func hello(t *testing.T, host, cluster string) {
	t.Helper()
	got := alice.cmd("curl", "-sS", "--max-time", "10", "http://"+host).must(t)
	if !strings.HasPrefix(got, "hello from web-") || strings.HasSuffix(got, " in blue") != (cluster == "blue") {
		t.Errorf("%s says %q, and should be in %s", host, got, cluster)
	}
}

// echoing opens a connection of alice's to the database in each of the clusters.
func echoing(t *testing.T, clusters ...string) map[string]*watcher {
	t.Helper()
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
	return open
}

// shortNames are what only the primary's names look like.
var shortNames = []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"}

// primaryMoves gives short names to blue and back, with connections open to both.
func primaryMoves(t *testing.T) {
	t.Helper()
	open := echoing(t, "lab", "blue")
	for _, to := range []string{"blue", "lab"} {
		start := time.Now()
		alice.podnet("primary", to).must(t)
		hello(t, "web", to) // what has just been remembered here is not to be believed
		report(t, "podnet primary "+to+" to an answer from there", time.Since(start).Round(time.Millisecond))
		for _, host := range append(shortNames, "web.shop.svc."+to+".podnet.internal") {
			hello(t, host, to)
		}
		if two := alice.sessions(t); len(two) != 2 || !two[to].Primary {
			t.Errorf("sessions: %+v", two)
		}
	}
	for _, w := range open {
		w.stays(t)
	}
}

// TestTwoClusters has alice in two clusters at once whose pods and Services have the
// same addresses.
func TestTwoClusters(t *testing.T) {
	blue(t)
	before := alice.snapshot(t)
	inBoth(t)
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
	for _, host := range shortNames {
		hello(t, host, "lab")
	}
	for _, cluster := range clusters {
		zone := "shop.svc." + cluster + ".podnet.internal"
		hello(t, "web."+zone, cluster)
		if got := alice.sh(`echo ahoy | socat -T 3 - UDP:web.` + zone + `:5353`).must(t); got != "ahoy" {
			t.Errorf("the UDP echo in %s said %q", cluster, got)
		}
		db := "db-0.db." + zone + "."
		want(t, alice.cmd("dig", "+short", "SRV", "_postgres._tcp.db."+zone).must(t), "5432 "+db)
		known := db
		if cluster == "lab" {
			known = "db-0.db.shop.svc.cluster.local."
		}
		for _, kind := range []string{"A", "AAAA"} {
			at := alice.cmd("dig", "+short", db, kind).must(t)
			alice.cmd("ping", "-c", "1", "-W", "3", at).must(t)
			if got := alice.cmd("dig", "+short", "-x", at).must(t); got != known {
				t.Errorf("%s is %q, want %s", at, got, known)
			}
		}
	}

	bothAtOnce(t, 100_000_000)
	primaryMoves(t)

	// Each is left without a word to the other.
	open := echoing(t, clusters...)
	alice.podnet("disconnect", "blue").must(t)
	alice.cmd("getent", "ahosts", "web.shop.svc.blue.podnet.internal").mustFail(t)
	hello(t, "web", "lab")
	open["lab"].stays(t)
	alice.podnet("connect", "--wait", "--context", "blue", "-n", "shop").must(t)
	left := echoing(t, "blue")["blue"]
	alice.podnet("disconnect", "lab").must(t)
	hello(t, "web.shop.svc.blue.podnet.internal", "blue")
	hello(t, "web", "blue") // the primary is who is left
	left.stays(t)
	if one := alice.sessions(t); len(one) != 1 || !one["blue"].Primary {
		t.Errorf("sessions: %+v", one)
	}
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
	t.Run("one's network is around the other", aroundTheOther)
}

// aroundTheOther has a network beside the lab's cluster in which blue itself is: its
// API server and its gateway. Blue stays where it is to be had, whoever came first.
func aroundTheOther(t *testing.T) {
	const around = "10.77.50.0/24"
	api := alice.cmd("kubectl", "--context", "blue", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").must(t)
	at, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	addrs := strings.Fields(alice.cmd("getent", "ahostsv4", at.Hostname()).must(t))
	if a, err := netip.ParseAddr(addrs[0]); err != nil || !netip.MustParsePrefix(around).Contains(a) {
		t.Fatalf("blue's API server is %s, %s: not in %s", api, addrs[0], around)
	}
	both := func() {
		t.Helper()
		hello(t, "web.shop.svc.lab.podnet.internal", "lab")
		hello(t, "web.shop.svc.blue.podnet.internal", "blue")
	}
	alice.connect(t, "--context", "blue", "-n", "shop", "--addresses", "virtual")
	open := echoing(t, "blue")
	lab := alice.podnet("connect", "--wait", "-n", "shop", "--addresses", "direct", "--also-route", around)
	granted(t, lab, "also-route-10-77-50-0-24")
	if r := alice.cmd("ip", "route", "get", addrs[0]).must(t); strings.Contains(r, "podnet") {
		t.Errorf("blue's API server is by %s", r)
	}
	want(t, alice.cmd("ip", "route", "get", "10.77.50.200").must(t), alice.sessions(t)["lab"].Tunnel.Interface)
	alice.cmd("kubectl", "--context", "blue", "get", "--raw", "/version", "--request-timeout=3s").must(t)
	both()
	open["blue"].stays(t)

	alice.podnet("disconnect", "--all").must(t)
	lab.must(t)
	alice.podnet("connect", "--wait", "--context", "blue", "-n", "shop").must(t)
	both()
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
