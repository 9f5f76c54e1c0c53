//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSteeringCosts measures what an agent costs the requests that pass it, what
// a laptop gets, and what the agent holds. It fails only when requests do.
func TestSteeringCosts(t *testing.T) {
	market(t, 1)
	ip := stalls(t)[0]
	ns := netns(t, ip)
	url := "http://" + ip + ":8080/"
	wrk := func(what string, connections int, flags ...string) {
		t.Helper()
		for range 2 { // the first is for caches and connections' windows
			out := node1.cmd(append([]string{"wrk", "-t1", fmt.Sprintf("-c%d", connections), "-d4s", "--latency"}, append(flags, url)...)...).must(t)
			if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") {
				t.Errorf("%s: %s", what, out)
			}
			report(t, fmt.Sprintf("wrk, %d connections, %s", connections, what), wrkLine(out))
		}
	}
	for _, connections := range []int{1, 64} {
		wrk("no agent", connections)
	}
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	idle := workerMemory(t, ns)
	for _, connections := range []int{1, 64} {
		wrk("passed (p50 +0.3 ms, p99 +1 ms, 60 % of no agent)", connections)
	}
	wrk("stolen (5,000/s)", 64, "-H", "x-user: alice")
	got := customers(t, url, 10000, 8, "x-user: alice", "laptop")
	report(t, "20,000 requests, half of them stolen", got)
	got.exact(t, 10000, 10000)
	eventually(t, 30*time.Second, "the agent has let go of everything", func() error {
		if n := number(node1.sh("ls /proc/" + agentProcess(t, ns, "worker") + "/fd | wc -l").must(t)); n > 64 {
			return fmt.Errorf("%d files are open", n)
		}
		return nil
	})
	report(t, "agent's worker, idle before any request (24 MiB)", idle)
	report(t, "agent's worker, after all of that", workerMemory(t, ns))
	alice.podnet("steer", "stop", "--all").must(t)

	// A laptop that takes connections and never reads.
	stalled := alice.cmd("socat", "TCP4-LISTEN:3003,bind=127.0.0.1,fork,reuseaddr", "SYSTEM:sleep 1000").exec(t.Context())
	if err := stalled.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stalled.Process.Kill(); _ = stalled.Wait() })
	alice.steer(t, "deploy/stall", "8080:3003", "--mirror")
	wrk("mirrored to a laptop that does not read (as passed)", 64)
	report(t, "agent's worker, mirroring to a laptop that does not read (64 MiB)", workerMemory(t, ns))
}

// workerMemory is the resident memory of the agent's worker in a pod's network.
func workerMemory(t testing.TB, ns string) string {
	t.Helper()
	text := node1.sh("grep VmRSS /proc/" + agentProcess(t, ns, "worker") + "/status").must(t)
	kib, err := strconv.Atoi(strings.Fields(text)[1])
	if err != nil {
		t.Fatalf("%q", text)
	}
	return fmt.Sprintf("%.1f MiB resident", float64(kib)/1024)
}
