//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestSteerByHeader steals what has a header from three replicas, and from a
// fourth that comes in the middle.
func TestSteerByHeader(t *testing.T) {
	market(t, 3)
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	url := "http://" + clusterIP(t, "market", "stall")

	before := map[string]string{}
	for _, ip := range stalls(t) {
		ns := netns(t, ip)
		before[ns] = ruleset(t, ns)
	}
	start := time.Now()
	out := alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	report(t, "steer, from the command to three agents ready", time.Since(start).Round(10*time.Millisecond))
	want(t, out, "3/3")

	got := customers(t, url, 1000, 8, "x-user: alice", "laptop")
	report(t, "1,000 requests with the header and 1,000 without, three replicas", got)
	got.exact(t, 1000, 1000)
	want(t, alice.podnet("steer", "list").must(t), "deploy/stall", "3/3")
	want(t, kubectl("get", "steeringrules", "-A").must(t), "alice", "stall", "steal", "Accepted")

	// A fourth comes while customers are about.
	crowd := node1.start(t, "customers", url, "4000", "8", "x-user: alice", "laptop")
	kubectl("scale", "-n", "market", "deployment/stall", "--replicas=4").must(t)
	took := coveredAfterReady(t)
	report(t, "a fourth replica is covered, after it was ready (within 5 s)", took.Round(10*time.Millisecond))
	all := crowd.custom(t, 3*time.Minute)
	report(t, "requests while the fourth replica came", all)
	if all.Failed > 0 {
		t.Errorf("%d requests were lost: %s", all.Failed, all.First)
	}
	customers(t, url, 1000, 8, "x-user: alice", "laptop").exact(t, 1000, 1000)
	measure.AtMost(t, "[56] a steered pod was deleted, its rule is gone after", ruleGoesWithItsPod(t), time.Minute)

	start = time.Now()
	alice.podnet("steer", "stop", "--all").must(t)
	for ns, rules := range before {
		eventually(t, 6*time.Second, "nftables as before in "+ns, func() error { return same(rules, ruleset(t, ns)) })
	}
	report(t, "nftables as before in every pod, after stop", time.Since(start).Round(10*time.Millisecond))
	customers(t, url, 100, 4, "", "laptop").exact(t, 0, 100)
	if left := kubectl("get", "steeringrules", "-A", "-o", "name").must(t); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
}

// coveredAfterReady waits until the newest of four stalls is ready and gives its
// requests to the laptop, and tells how long the second took after the first.
func coveredAfterReady(t testing.TB) time.Duration {
	t.Helper()
	var ready time.Time
	var ip string
	eventually(t, 30*time.Second, "the fourth stall is ready", func() error {
		lines := kubectl("get", "pods", "-n", "market", "-l", "app=stall", "--sort-by=.metadata.creationTimestamp", "-o",
			`jsonpath={range .items[*]}{.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`).must(t)
		all := strings.Split(lines, "\n")
		last := strings.Fields(all[len(all)-1])
		if len(all) != 4 || len(last) != 2 || last[1] != "True" {
			return fmt.Errorf("%q", lines)
		}
		ip, ready = last[0], time.Now()
		return nil
	})
	eventually(t, 20*time.Second, "the fourth stall is covered", func() error {
		got := node1.cmd("curl", "-sS", "--max-time", "5", "-H", "x-user: alice", "http://"+ip+":8080/").must(t)
		if got != "hello from laptop" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	return time.Since(ready)
}

// ruleGoesWithItsPod deletes the newest stall, and tells how long its rule outlived that.
func ruleGoesWithItsPod(t testing.TB) time.Duration {
	t.Helper()
	pods := strings.Fields(kubectl("get", "pods", "-n", "market", "-l", "app=stall", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].metadata.uid}").must(t))
	uid := pods[len(pods)-1]
	of := func(kind, field string) string {
		return kubectl("get", kind, "-n", "market", "-o", `jsonpath={.items[?(@.`+field+`=="`+uid+`")].metadata.name}`).must(t)
	}
	if of("steeringrules", "spec.podUID") == "" {
		t.Fatal("the newest pod has no rule")
	}
	start := time.Now()
	kubectl("delete", "pod", "-n", "market", of("pods", "metadata.uid"), "--wait=false").must(t)
	return eventually(t, time.Minute, "the rule is gone", func() error {
		if name := of("steeringrules", "spec.podUID"); name != "" {
			return fmt.Errorf("%s is there %v after its pod was deleted", name, time.Since(start))
		}
		return nil
	})
}

// TestTwoUsersSteer has two users on one port of one pod, and a third who may not.
func TestTwoUsersSteer(t *testing.T) {
	market(t, 1)
	url := "http://" + clusterIP(t, "market", "stall")
	alice.connect(t, "-n", "market")
	bob.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "alice")
	bob.serveLocally(t, 3000, "bob")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	bob.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: bob")

	r := bob.podnet("steer", "--detach", "-n", "market", "deploy/stall", "8080:3000", "--header", "x-user: alice").mustFail(t)
	want(t, r.stderr, "alice", "hint:")
	r = bob.podnet("steer", "--detach", "-n", "market", "deploy/stall", "8080:3000").mustFail(t)
	want(t, r.stderr, "alice", "hint:")

	many := 5000
	if long {
		many = 10000
	}
	theirs := node1.start(t, "customers", url, fmt.Sprint(many), "4", "x-user: alice", "alice")
	his := node1.start(t, "customers", url, fmt.Sprint(many/2), "4", "x-user: bob", "bob")
	mine := his.custom(t, 3*time.Minute)
	bob.podnet("steer", "stop", "--all").must(t) // in the middle of alice's
	hers := theirs.custom(t, 3*time.Minute)
	report(t, "[53] two users on a port, bob's", mine)
	report(t, "[53] two users on a port, alice's, while bob leaves", hers)
	mine.exact(t, many/2, many/2)
	hers.exact(t, many, many)

	rulesAreDeleted(t, url)

	kubectl("delete", "rolebinding", "-n", "market", "market-podnet-steer").must(t)
	r = bob.podnet("steer", "--detach", "-n", "market", "deploy/stall", "8080:3000", "--header", "x-user: bob").mustFail(t)
	want(t, r.stderr, "ephemeralcontainers", "hint:")
	if r.code != 4 {
		t.Errorf("exit %d, want 4 (permission)", r.code)
	}
}

// rulesAreDeleted has an administrator delete alice's rules: they steal no more, neither
// by new requests nor by what is open.
func rulesAreDeleted(t *testing.T, url string) {
	t.Helper()
	follow(t, "echo on the laptop", alice.cmd("socat", "TCP-LISTEN:3001,bind=127.0.0.1,fork,reuseaddr", "EXEC:cat"))
	alice.steer(t, "deploy/stall", "5432:3001")
	open := node1.start(t, "echo", stalls(t)[0]+":5432")
	eventually(t, 10*time.Second, "the laptop echoes", func() error {
		_, answered := open.last(works)
		if at := alice.cmd("ss", "-Htn", "state", "established", "sport = :3001").must(t); !answered || at == "" {
			return fmt.Errorf("there is an answer: %v; connections of the laptop's: %q", answered, at)
		}
		return nil
	})
	want(t, node1.cmd("curl", "-sS", "--max-time", "5", "-H", "x-user: alice", url).must(t), "hello from alice")

	start := time.Now()
	kubectl("delete", "steeringrules", "-n", "market", "--all").must(t)
	var stolen time.Duration
	for time.Since(start) < 4*time.Second {
		began := time.Since(start)
		r := node1.cmd("curl", "-sS", "--max-time", "1", "-H", "x-user: alice", url).try(t) // one that is under way may break
		switch strings.TrimSpace(r.stdout) {
		case "hello from alice":
			stolen = began
		case "hello from bob":
			t.Fatal("bob has what is alice's")
		}
	}
	measure.AtMost(t, "[56] the last request that was stolen, after an administrator's kubectl delete began", stolen, 2*time.Second)
	if !within(stolen, 2*time.Second) {
		t.Errorf("after %v", stolen)
	}
	end, ended := open.since(start, broken)
	if !ended {
		t.Fatal("what was open goes on")
	}
	measure.AtMost(t, "[56] what was open and stolen ended, after the same", end.At.Sub(start), 2*time.Second)
	if !within(end.At.Sub(start), 2*time.Second) {
		t.Errorf("after %v", end.At.Sub(start))
	}
}

// Who may answer.
const (
	byLaptop = iota
	byApp
	byAnybody
)

// answers makes a request from node1.
func answers(t testing.TB, url string, by int) error {
	t.Helper()
	return answersIn(t, time.Second, url, by)
}

func answersIn(t testing.TB, limit time.Duration, url string, by int) error {
	t.Helper()
	r := node1.cmd("curl", "-sS", "--max-time", fmt.Sprint(limit.Seconds()), url).try(t)
	got := strings.TrimSpace(r.stdout)
	laptop := got == "hello from laptop"
	if r.code != 0 || !strings.HasPrefix(got, "hello from ") || by == byLaptop && !laptop || by == byApp && laptop {
		return fmt.Errorf("%s%s", got, r.stderr)
	}
	return nil
}

// agentProcess is the process of the agent in a pod's network: its parent, or the
// worker, which is the younger one.
func agentProcess(t testing.TB, ns, which string) string {
	t.Helper()
	pids := strings.Fields(node1.sh(fmt.Sprintf(`for p in $(ip netns pids %s); do grep -q podnet-agent /proc/$p/comm && echo $p; done; true`, ns)).must(t))
	if len(pids) != 2 {
		t.Fatalf("processes of the agent: %v, want a parent and a worker", pids)
	}
	for _, p := range pids {
		parent := host("sh", "-c", "cut -d ' ' -f 4 /proc/"+p+"/stat").must(t)
		if worker := slices.Contains(pids, parent); worker == (which == "worker") {
			return p
		}
	}
	t.Fatalf("no %s among %v", which, pids)
	return ""
}
