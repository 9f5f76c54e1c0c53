//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
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
// agent in the pod hold must not grow. By the first quarter of the time they have come to
// their working size: what they hold after it is compared with what they hold at the end.
func TestSoak(t *testing.T) {
	lasts := soakTime(t)
	if lasts == 0 {
		t.Skip("takes half an hour at least; PODNET_E2E_LONG=1 runs it, or make soak")
	}
	if lasts < leastSoak {
		t.Fatalf("%v say nothing of growth: it takes %v", lasts, leastSoak)
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
	began := time.Now()
	work := func(until time.Duration) (all []sight) {
		for time.Since(began) < until-resting {
			if !t.Run(fmt.Sprintf("after %v", time.Since(began).Round(time.Second)), aDay) {
				t.FailNow()
			}
			all = append(all, sight{time.Since(began), levelNow(t, processes)})
			t.Logf("after %v: %v", all[len(all)-1].after.Round(time.Second), all[len(all)-1].level)
		}
		return all
	}
	work(lasts/4 + resting)
	if !t.Run("storm", storm) {
		t.FailNow()
	}
	was := rested(t, processes)
	rounds := work(lasts)
	is := rested(t, processes)
	if n := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").must(t); n != "0" {
		t.Errorf("the gateway restarted %s times", n)
	}
	for name, pid := range map[string]string{"alice's daemon": alice.daemon(t), "the agent": agentProcess(t, netns(t, stalls(t)[0]), "worker")} {
		if pid != processes[name] {
			t.Errorf("%s is another one than it was", name)
		}
	}
	if len(rounds) < 2 {
		t.Fatalf("%d rounds after the first rest", len(rounds))
	}
	judge(t, was, is, rounds, lasts)
}

// storm is more at a time than any round has. Of the most that a heap ever had the Go
// runtime keeps some 4 %, to describe it, and how much is under way at once in a round is
// chance.
func storm(t *testing.T) {
	alice.serveLocally(t, 3000, "alice")
	alice.sh("for i in $(seq 16); do curl -sS --max-time 60 -o /dev/null 'http://web.shop/blob?size=50M' & done; wait").must(t)
	alice.role("connections", podAddress(t, "app=db")+":5432", "2000", "64").must(t)
	customers(t, "http://"+clusterIP(t, "market", "stall"), 5000, 64, "x-user: alice", "alice").exact(t, 5000, 5000)
}

// aDay is a round of the soak, about a minute.
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

// A sight is a level, and how long into the soak it was seen.
type sight struct {
	after time.Duration
	level
}

// amount is a number of a level, for people.
func amount(what string, n float64) string {
	if inBytes(what) {
		return fmt.Sprintf("%.1f MiB", n/(1<<20))
	}
	return fmt.Sprint(math.Round(n))
}

func inBytes(what string) bool {
	return strings.HasSuffix(what, "of its own") || strings.HasSuffix(what, "in use")
}

// levelNow is what everybody holds.
func levelNow(t testing.TB, processes map[string]string) level {
	t.Helper()
	g, d := gatewayGauges(t), alice.daemonsWord(t)
	now := level{"the gateway: goroutines": g.goroutines, "the gateway: files": g.files, "the gateway: in use": g.used, "the gateway: of its own": g.own,
		"alice's daemon: goroutines": float64(d.Goroutines), "alice's daemon: in use": float64(d.HeapBytes)}
	for name, pid := range processes {
		h := holding(t, pid)
		now[name+": files"], now[name+": threads"], now[name+": of its own"] = float64(h.files), float64(h.threads), float64(h.own)
	}
	return now
}

const (
	// resting is how long nothing happens before it is known what programs hold: Go collects
	// every two minutes then, and what lies in pools takes it two rounds. Under work that is
	// most of what they have, wireguard-go's buffers above all, and how much of it is chance.
	resting = 5 * time.Minute
	// looking is how much of that they are looked at. They shed every three minutes at rest,
	// and what is garbage by the next time is not held: its amount depends on when one looks.
	looking = 200 * time.Second
)

// rested is the least that everybody holds in the last minutes of a rest.
func rested(t testing.TB, processes map[string]string) level {
	t.Helper()
	time.Sleep(resting - looking)
	least := levelNow(t, processes)
	for range 20 {
		time.Sleep(looking / 20)
		for what, n := range levelNow(t, processes) {
			least[what] = min(least[what], n)
		}
	}
	t.Logf("rested: %v", least)
	return least
}

// daemonsWord is what the machine's daemon says of itself.
func (m machine) daemonsWord(t testing.TB) localapi.Version {
	t.Helper()
	var said struct{ Daemon localapi.Version }
	if err := json.Unmarshal([]byte(m.podnet("version", "-o", "json").must(t)), &said); err != nil {
		t.Fatal(err)
	}
	return said.Daemon
}

// By how much a level may grow from the first rest to the last: promise 35.
const (
	mostGrowth = 0.05    // of bytes,
	fewBytes   = 1 << 20 // or this, which is too little to be told from chance
	mostThings = 20      // goroutines, files, threads
)

// leastSoak leaves as long between the two rests as they are.
const leastSoak = 3 * resting

// judge fails the test for what has grown.
func judge(t testing.TB, was, is level, rounds []sight, lasts time.Duration) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(was)) {
		report(t, fmt.Sprintf("[35] soak of %v: %s at rest, before and after %d rounds", lasts, what, len(rounds)),
			fmt.Sprintf("%s, then %s; under work %s an hour", amount(what, was[what]), amount(what, is[what]), amount(what, slope(rounds, what))))
		most := was[what] + mostThings
		if inBytes(what) {
			most = max(was[what]*(1+mostGrowth), was[what]+fewBytes)
		}
		if is[what] > most {
			t.Errorf("%s grows: %s, then %s", what, amount(what, was[what]), amount(what, is[what]))
		}
	}
}

// slope is how much more of something there is with each hour, by least squares.
func slope(all []sight, what string) float64 {
	var x, y, xx, xy float64
	n := float64(len(all))
	for _, s := range all {
		hours, level := s.after.Hours(), s.level[what]
		x, y, xx, xy = x+hours, y+level, xx+hours*hours, xy+hours*level
	}
	return (n*xy - x*y) / (n*xx - x*x)
}
