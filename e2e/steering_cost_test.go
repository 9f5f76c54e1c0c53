//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/measure"
)

// TestSteeringCosts measures what an agent costs the requests that pass it, what
// a laptop gets, and what the agent holds. It fails only when requests do. How much
// later an answer is, one connection tells: 64 are for what can be had at the most, when
// each waits for the others.
func TestSteeringCosts(t *testing.T) {
	market(t, 1)
	ip := stalls(t)[0]
	ns := netns(t, ip)
	url := "http://" + ip + ":8080/"
	wrk := func(what string, connections int, flags ...string) (half, most time.Duration) {
		t.Helper()
		for range 2 { // the first is for caches and connections' windows
			out := node1.cmd(append([]string{"wrk", "-t1", fmt.Sprintf("-c%d", connections), "-d4s", "--latency"}, append(flags, url)...)...).must(t)
			if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") {
				t.Errorf("%s: %s", what, out)
			}
			report(t, fmt.Sprintf("wrk, %d connections, %s", connections, what), wrkLine(out))
			half, most = wrkTook(t, out, "50%"), wrkTook(t, out, "99%")
		}
		return half, most
	}
	plainHalf, plainMost := wrk("no agent", 1)
	wrk("no agent", 64)
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	idle := workerMemory(t, ns, "VmRSS")
	half, most := wrk("passed", 1)
	measure.AtMost(t, "[47] passed: half of the requests, later than without an agent by", half-plainHalf, 300*time.Microsecond)
	measure.AtMost(t, "[47] passed: 99 of 100 requests, later than without an agent by", most-plainMost, time.Millisecond)
	wrk("passed (60 % of no agent)", 64)
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
	measure.AtMost(t, "agent's worker, idle before any request", idle, 24)
	report(t, "agent's worker, after all of that", fmt.Sprintf("%.1f MiB resident", workerMemory(t, ns, "VmRSS")))
	alice.podnet("steer", "stop", "--all").must(t)

	// A laptop that takes connections and never reads.
	stalled := alice.cmd("socat", "TCP4-LISTEN:3003,bind=127.0.0.1,fork,reuseaddr", "SYSTEM:sleep 1000").exec(t.Context())
	if err := stalled.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stalled.Process.Kill(); _ = stalled.Wait() })
	alice.steer(t, "deploy/stall", "8080:3003", "--mirror")
	const mirrored = "mirrored to a laptop that does not read"
	_, most = wrk(mirrored, 1)
	measure.AtMost(t, "[54] "+mirrored+": 99 of 100 requests, later than without an agent by", most-plainMost, time.Millisecond)
	wrk(mirrored+" (as passed)", 64)
	measure.AtMost(t, "[54] "+mirrored+": the most memory that the agent's worker ever took", workerMemory(t, ns, "VmHWM"), 64)
	eventually(t, 30*time.Second, "copies that the laptop did not get are counted", func() error {
		var list localapi.SteerList
		if err := json.Unmarshal([]byte(alice.podnet("steer", "list", "-o", "json").must(t)), &list); err != nil {
			return err
		}
		if len(list.Rules) != 1 || list.Rules[0].Failed == 0 {
			return fmt.Errorf("%+v", list.Rules)
		}
		report(t, "[54] copies, and those of them that the laptop did not get whole", fmt.Sprintf("%d, and %d", list.Rules[0].Matched, list.Rules[0].Failed))
		return nil
	})
}

// wrkTook is how long that part of wrk's requests took at the most.
func wrkTook(t testing.TB, out, part string) time.Duration {
	t.Helper()
	words := strings.Fields(lineWith(out, " "+part+" "))
	if len(words) != 2 {
		t.Fatalf("wrk does not say %s:\n%s", part, out)
	}
	took, err := time.ParseDuration(words[1])
	if err != nil {
		t.Fatal(err)
	}
	return took
}

// workerMemory is a line of the status of the agent's worker in a pod's network.
func workerMemory(t testing.TB, ns, field string) measure.MiB {
	t.Helper()
	text := node1.sh("grep " + field + " /proc/" + agentProcess(t, ns, "worker") + "/status").must(t)
	kib, err := strconv.Atoi(strings.Fields(text)[1])
	if err != nil {
		t.Fatalf("%q", text)
	}
	return measure.MiB(float64(kib) / 1024)
}
