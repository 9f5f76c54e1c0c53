//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/measure"
	"podnet.dev/internal/steer/control"
)

// TestSteeringUndoesItself ends each part in the rudest way: requests are
// answered again within 5 s, and where nothing brings the steering back the pod's
// network is as before within 6 s.
func TestSteeringUndoesItself(t *testing.T) {
	market(t, 1)
	ip := stalls(t)[0]
	ns := netns(t, ip)
	before := podNetwork(t, ns)
	url := "http://" + ip + ":8080/"
	steered := func(t testing.TB) {
		t.Helper()
		calm(t)
		alice.connect(t, "-n", "market")
		alice.serveLocally(t, 3000, "laptop")
		alice.steer(t, "deploy/stall", "8080:3000")
		eventually(t, 10*time.Second, "the laptop answers", func() error { return answers(t, url, byLaptop) })
	}
	asBefore := func(t testing.TB, what string, start time.Time) time.Duration {
		t.Helper()
		eventually(t, 15*time.Second, "the pod's network as before", func() error { return same(before, podNetwork(t, ns)) })
		gone := time.Since(start)
		measure.AtMost(t, "[44] the pod's network as before after "+what, gone, 6*time.Second)
		if !within(gone, 6*time.Second) {
			t.Errorf("after %v", gone)
		}
		return gone
	}
	agent := func(which string) func(testing.TB) {
		return func(t testing.TB) { host("kill", "-9", agentProcess(t, ns, which)).must(t) }
	}
	for _, c := range []struct {
		what    string
		happens func(testing.TB)
		stays   bool // steering goes on by itself
		lonely  bool // by another agent: this one waits a minute for the gateway it knew
	}{
		{"kill -9 of the agent's worker", agent("worker"), true, false},
		{"kill -9 of the agent's container", agent("parent"), true, false},
		{"the memory limit of the agent's container", func(t testing.TB) { exceedMemory(t, agentProcess(t, ns, "worker"), ip+":8080") }, true, false},
		{"the runtime's end of the agent's container", endByRuntime, true, false},
		{"kill -9 of the gateway", killGateway, true, true},
		{"kill -9 of the laptop's daemon", func(t testing.TB) { alice.cmd("kill", "-9", alice.daemon(t)).must(t) }, false, false},
		{"the laptop's link down", func(t testing.TB) { lab("link", "laptop", "down").must(t) }, false, false},
		{"the node out of the laptop's reach", func(t testing.TB) { lab("cut", "laptop", "node1").must(t) }, false, false},
		{"the node's link down", func(t testing.TB) { lab("link", "node1", "down").must(t) }, false, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			steered(t)
			start := time.Now()
			c.happens(t)
			failed := eventually(t, 15*time.Second, "the app answers", func() error {
				if c.stays {
					return answers(t, url, byAnybody)
				}
				return answers(t, url, byApp)
			})
			measure.AtMost(t, "[44] requests are answered again after "+c.what, failed, 5*time.Second)
			if !within(failed, 5*time.Second) {
				t.Errorf("after %v", failed)
			}
			if c.stays {
				eventually(t, time.Minute, "the laptop answers again", func() error { return answers(t, url, byLaptop) })
				report(t, "the laptop answers again after "+c.what, time.Since(start).Round(10*time.Millisecond))
				alice.podnet("steer", "stop", "--all").must(t)
				start = time.Now()
			}
			gone := asBefore(t, c.what, start)
			if c.stays && (long || !c.lonely) { // without steer stop it waits for the laptop, as long as its lease
				took := eventually(t, 75*time.Second, "the agent has left the pod", func() error { return agentGone(t, ns) })
				report(t, "the agent has left the pod after steer stop, within", (gone + took).Round(10*time.Millisecond))
			}
			quiet(t)
			alice.podnet("disconnect", "--all").try(t)
		})
	}
	t.Run("the laptop asleep", func(t *testing.T) {
		steered(t)
		asleep := alice.podnets(t)
		send := func(s syscall.Signal) {
			for _, pid := range asleep {
				_ = syscall.Kill(pid, s) // one that has ended by itself is not missed
			}
		}
		t.Cleanup(func() { send(syscall.SIGCONT) })
		start := time.Now()
		send(syscall.SIGSTOP)
		eventually(t, 15*time.Second, "the app answers", func() error { return answersIn(t, 300*time.Millisecond, url, byApp) })
		served := time.Now()
		beat := lastBeat(t, start)
		report(t, "[46] the app answers after the laptop fell asleep", served.Sub(start).Round(10*time.Millisecond))
		measure.AtMost(t, "[46] the app answers after the laptop's last beat", served.Sub(beat), 4*time.Second)
		if !within(served.Sub(beat), 4*time.Second) {
			t.Errorf("after %v", served.Sub(beat))
		}
		asBefore(t, "the laptop fell asleep", start)

		start = time.Now()
		send(syscall.SIGCONT)
		eventually(t, 15*time.Second, "the laptop answers again", func() error { return answers(t, url, byLaptop) })
		report(t, "[46] the laptop answers again after it woke", time.Since(start).Round(10*time.Millisecond))
		alice.podnet("steer", "stop", "--all").must(t)
		asBefore(t, "steer stop at the laptop that slept", time.Now())
	})
	report(t, "flows of which conntrack remembers a translation that nothing makes any more", node1.cmd(
		"nsenter", "--net=/run/netns/"+ns, "sh", "-c", "conntrack -L --any-nat 2>/dev/null | wc -l").must(t))
}

// killGateway kills the gateway's program and leaves the rest to its node.
func killGateway(t testing.TB) {
	t.Helper()
	host("sh", "-c", "kill -9 $(pgrep -x podnet-gateway)").must(t)
}

// exceedMemory has the agent's container reach a memory limit: what it uses becomes the
// limit and clients come, until the kernel has killed one of its processes for what it
// wants more. Then there is room again, as when the clients have gone.
func exceedMemory(t testing.TB, worker, addr string) {
	t.Helper()
	g := memoryOf(t, worker)
	before := g.killed(t)
	g.squeeze()
	node1.start(t, "flows", addr, "500")
	for start := time.Now(); g.killed(t) == before; {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("none of its processes was killed for memory within %v", time.Since(start))
		}
		g.squeeze()
		time.Sleep(5 * time.Millisecond)
	}
	g.release()
	report(t, "[44] processes of the agent's container that the kernel killed for memory", g.killed(t)-before)
}

// endByRuntime has the node's runtime kill the agent's container, as whoever stops a
// container there does in the end.
func endByRuntime(t testing.TB) {
	t.Helper()
	const ofAgent = "{.items[0].status.ephemeralContainerStatuses[?(@.state.running)].containerID}"
	id := kubectl("get", "pods", "-n", "market", "-l", "app=stall", "-o", "jsonpath="+ofAgent).must(t)
	node1.cmd("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", strings.TrimPrefix(id, "containerd://")).must(t)
}

// lastBeat is when the agent heard of the laptop for the last time, by its log: that is
// how much earlier than its laptop, since then, does not answer. Agents of rules before
// may run yet; they have nothing to say.
func lastBeat(t testing.TB, since time.Time) time.Time {
	t.Helper()
	const ofAgent = "{.items[0].metadata.name} {.items[0].status.ephemeralContainerStatuses[?(@.state.running)].name}"
	names := strings.Fields(kubectl("get", "pods", "-n", "market", "-l", "app=stall", "-o", "jsonpath="+ofAgent).must(t))
	if len(names) < 2 {
		t.Fatalf("pod and agents: %v", names)
	}
	var line struct {
		Time time.Time
		Msg  string
	}
	eventually(t, 5*time.Second, "the agent says that its laptop does not answer", func() error {
		for _, agent := range names[1:] {
			for lines := bufio.NewScanner(strings.NewReader(kubectl("logs", "-n", "market", names[0], "-c", agent).must(t))); lines.Scan(); {
				if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "laptop does not answer" && line.Time.After(since) {
					return nil
				}
			}
		}
		return errors.New("it does not")
	})
	return line.Time.Add(-control.Silence)
}
