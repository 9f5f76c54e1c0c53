//go:build e2e

package e2e

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestAtRest has a session and a rule that nobody uses, and looks what that costs.
func TestAtRest(t *testing.T) {
	market(t, 1)
	ip := stalls(t)[0]
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	customers(t, "http://"+ip+":8080/", 10, 1, "x-user: alice", "laptop").exact(t, 10, 10)

	type program struct {
		name, pid string
		most      measure.MiB
		computed  time.Duration
	}
	all := []*program{
		{name: "the daemon", pid: alice.daemon(t), most: 40},
		{name: "the gateway", pid: host("pgrep", "-x", "podnet-gateway").must(t), most: 16},
		{name: "the agent", pid: agentProcess(t, netns(t, ip), "worker"), most: 24},
	}
	time.Sleep(45 * time.Second) // what nobody uses for so long is given back
	for _, p := range all {
		p.computed = computed(t, p.pid)
	}
	began := time.Now()
	time.Sleep(lasting(20*time.Second, 5*time.Minute))
	took := time.Since(began)
	for _, p := range all {
		share := measure.Percent(float64(computed(t, p.pid)-p.computed) / float64(took) * 100)
		held := holding(t, p.pid)
		resident, own := measure.MiB(float64(held.resident)/(1<<20)), measure.MiB(float64(held.own)/(1<<20))
		measure.AtMost(t, "at rest with a session and a rule, "+p.name+", of a core", share, 0.2)
		measure.AtMost(t, "at rest with a session and a rule, "+p.name+", resident", resident, p.most)
		report(t, "at rest with a session and a rule, "+p.name, held)
		if share > 5 {
			t.Errorf("%s computes while nobody wants anything: %.1f %% of a core", p.name, float64(share))
		}
		if own > 2*p.most {
			t.Errorf("%s has %.1f MiB of its own", p.name, float64(own))
		}
	}
	customers(t, "http://"+ip+":8080/", 10, 1, "x-user: alice", "laptop").exact(t, 10, 10)
}

// computed is how much processor time a process has had, to 10 ms.
func computed(t testing.TB, pid string) time.Duration {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	var ticks int
	for _, field := range strings.Fields(rest)[11:13] { // utime and stime, proc_pid_stat(5)
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}
