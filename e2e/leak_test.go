//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSteeringLeaksNothing has the agent, the gateway and the laptop's daemon carry
// 10,000 stolen requests, and looks what they hold afterwards and held before. Their
// pools are filled by half as many requests before that.
func TestSteeringLeaksNothing(t *testing.T) {
	market(t, 1)
	ip := stalls(t)[0]
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	processes := map[string]string{
		"agent":   agentProcess(t, netns(t, ip), "worker"),
		"gateway": host("pgrep", "-x", "podnet-gateway").must(t),
		"daemon":  alice.daemon(t),
	}
	idle := holding(t, processes["agent"])
	report(t, "the agent's worker, idle (under 24 MiB)", idle)
	if idle.resident > 24<<20 {
		t.Error("the agent takes more")
	}
	const requests = 10000
	custom := func(n int) {
		t.Helper()
		customers(t, "http://"+ip+":8080/", n, 8, "x-user: alice", "laptop").exact(t, n, n)
	}
	custom(requests / 2)
	before := map[string]holdings{}
	for name, pid := range processes {
		before[name] = settled(t, pid, idle.files+16)
	}
	// Ten thousand goroutines that were forgotten have 24 MiB at least, each time. A
	// heap that does not fit yet what it holds grows once or twice, and then no more.
	const most, rounds = 8 << 20, 3
	for round := 0; round < rounds && len(processes) > 0; round++ {
		custom(requests)
		for name, pid := range processes {
			was, now := before[name], settled(t, pid, before[name].files)
			report(t, name+" before 10,000 stolen requests, and after them", fmt.Sprintf("%v, then %v", was, now))
			before[name] = now
			switch {
			case now.files > was.files:
				t.Errorf("%s held %v, and holds %v", name, was, now)
			case now.own <= was.own+most:
				delete(processes, name)
			}
		}
	}
	for name := range processes {
		t.Errorf("%s grows with every %d requests; it holds %v", name, requests, before[name])
	}
	if got := holding(t, agentProcess(t, netns(t, ip), "worker")); got.files > idle.files+4 {
		t.Errorf("the agent holds %v; idle it was %v", got, idle)
	}
}

// holdings are what a process has of the system.
type holdings struct {
	files, threads int
	resident       int // bytes
	own            int // those of it that are of no file: a program's pages come and go
}

func (h holdings) String() string {
	return fmt.Sprintf("%.1f MiB, %.1f of them its own, %d files, %d threads", float64(h.resident)/(1<<20), float64(h.own)/(1<<20), h.files, h.threads)
}

func holding(t testing.TB, pid string) (h holdings) {
	t.Helper()
	files, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) int {
		n, err := strconv.Atoi(strings.Fields(lineWith(string(status), name+":"))[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return holdings{files: len(files), threads: field("Threads"), resident: field("VmRSS") << 10, own: field("RssAnon") << 10}
}

// settled waits until a process has at most so many files open, which may never be,
// and tells what it holds then.
func settled(t testing.TB, pid string, files int) (h holdings) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 40*time.Second; time.Sleep(time.Second) {
		if h = holding(t, pid); h.files <= files {
			break
		}
	}
	return h
}
