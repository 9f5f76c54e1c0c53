//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// soakTime is how long TestSoak lasts: what `make soak DURATION=24h` says, or half an hour
// where stories are told in full; 0: it is not told.
func soakTime(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("PODNET_E2E_SOAK")
	if text == "" {
		return lasting(0, 30*time.Minute)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PODNET_E2E_SOAK: %v", err)
	}
	return d
}

// TestSoak has alice stay connected, and steer, for hours while everything happens that
// may happen in a day, again and again: connections, names, stolen requests, a laptop that
// roams, and bob, who enrols, steers and leaves. What the gateway, alice's daemon and the
// agent in the pod hold must not grow.
func TestSoak(t *testing.T) {
	lasts := soakTime(t)
	if lasts == 0 {
		t.Skip("takes half an hour at least; PODNET_E2E_LONG=1 runs it, or make soak")
	}
	calm(t)
	lab("nat", "laptop").must(t)
	market(t, 1)
	alice.connect(t, "-n", "shop", "-n", "market")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	processes := map[string]string{
		"alice's daemon": alice.daemon(t),
		"the agent":      agentProcess(t, netns(t, stalls(t)[0]), "worker"),
	}
	var levels []level
	end := time.Now().Add(lasts)
	for round := 1; time.Now().Before(end); round++ {
		if !t.Run(fmt.Sprintf("round %d", round), aDay) {
			break
		}
		levels = append(levels, settledLevel(t, processes))
		t.Logf("after round %d: %v", round, levels[len(levels)-1])
	}
	if n := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").must(t); n != "0" {
		t.Errorf("the gateway restarted %s times", n)
	}
	for name, pid := range map[string]string{"alice's daemon": alice.daemon(t), "the agent": agentProcess(t, netns(t, stalls(t)[0]), "worker")} {
		if pid != processes[name] {
			t.Errorf("%s is another one than it was", name)
		}
	}
	judge(t, levels, lasts)
}

// aDay is a round of the soak, about a minute and a half.
func aDay(t *testing.T) {
	db, stall := podAddress(t, "app=db"), "http://"+clusterIP(t, "market", "stall")
	alice.serveLocally(t, 3000, "alice")
	paths := alice.start(t, "watch")
	paths.waitPath(t, "udp", time.Now(), 20*time.Second)
	session := alice.start(t, "echo", db+":5432")

	bob.connect(t, "-n", "market")
	bob.serveLocally(t, 3000, "bob")
	bob.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: bob")
	his := node1.start(t, "customers", stall, "300", "4", "x-user: bob", "bob")
	customers(t, stall, 300, 4, "x-user: alice", "alice").exact(t, 300, 300)
	his.custom(t, 3*time.Minute).exact(t, 300, 300)

	names := alice.start(t, "lookups", "shop.svc.cluster.local")
	alice.role("connections", db+":5432", "300", "8").must(t)
	alice.cmd("curl", "-sS", "--max-time", "20", "-o", "/dev/null", "http://web.shop/blob?size=20M").must(t)
	names.stop()
	if s, _ := names.last(done); !strings.Contains(s.Text, ", 0 failed") {
		t.Errorf("names: %q", s.Text)
	}
	bob.podnet("disconnect", "--all").must(t)

	for _, m := range misfortunes {
		happened := time.Now()
		m.do(t)
		time.Sleep(100 * time.Millisecond)
		paths.waitPath(t, m.path, happened, 30*time.Second)
		time.Sleep(m.after / 2)
	}
	session.stop()
	session.unbroken(t)
}

// A level is what programs hold at one time, by whose and what it is.
type level map[string]float64

func (l level) String() string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(l)) {
		all = append(all, what+" "+amount(what, l[what]))
	}
	return strings.Join(all, ", ")
}

// amount is a number of a level, for people.
func amount(what string, n float64) string {
	if inBytes(what) {
		return fmt.Sprintf("%.1f MiB", n/(1<<20))
	}
	return fmt.Sprintf("%.0f", n)
}

func inBytes(what string) bool {
	return strings.HasSuffix(what, "resident") || strings.HasSuffix(what, "heap")
}

// settledLevel is the least that everybody holds within some seconds of quiet: how much
// garbage an idle program has just then is chance.
func settledLevel(t testing.TB, processes map[string]string) level {
	t.Helper()
	least := level{}
	for range 5 {
		time.Sleep(3 * time.Second)
		g := gatewayGauges(t)
		now := level{"the gateway's goroutines": g.goroutines, "the gateway's files": g.files, "the gateway's heap": g.heap, "the gateway's resident": g.memory}
		for name, pid := range processes {
			h := holding(t, pid)
			now[name+": files"], now[name+": threads"], now[name+": resident"] = float64(h.files), float64(h.threads), float64(h.resident)
		}
		for what, n := range now {
			if was, ok := least[what]; !ok || n < was {
				least[what] = n
			}
		}
	}
	return least
}

// mostGrowth is by how much a level may have grown between the second quarter of a soak
// and its last, and what is too little to be told from chance.
const (
	mostGrowth  = 0.10
	fewThings   = 20 // goroutines, files, threads
	fewBytes    = 1 << 20
	enoughParts = 8 // levels, for quarters to say something
)

// judge fails the test for what has grown. In the first quarter programs come to their
// working size.
func judge(t testing.TB, all []level, lasts time.Duration) {
	t.Helper()
	if len(all) < enoughParts {
		t.Errorf("%d rounds in %v say nothing of growth: it takes %d", len(all), lasts, enoughParts)
		return
	}
	quarter := len(all) / 4
	least := func(some []level, what string) float64 {
		n := some[0][what]
		for _, l := range some {
			n = min(n, l[what])
		}
		return n
	}
	for _, what := range slices.Sorted(maps.Keys(all[0])) {
		was, is := least(all[quarter:2*quarter], what), least(all[len(all)-quarter:], what)
		report(t, fmt.Sprintf("[35] soak of %v, %d rounds: %s in the second quarter, and in the last", lasts, len(all), what), amount(what, was)+", then "+amount(what, is))
		few := float64(fewThings)
		if inBytes(what) {
			few = fewBytes
		}
		if is > was*(1+mostGrowth) && is > was+few {
			t.Errorf("%s grows: %s, then %s", what, amount(what, was), amount(what, is))
		}
	}
}
