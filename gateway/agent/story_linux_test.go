package agent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/testpod"
)

// late is how much later than promised something may be on a busy machine.
const late = 2 * time.Second

var group = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: agentGroup}}

// TestPodIsSteeredAndServesAgain is the life of an agent with one rule, from
// its Hello to the last rule's end.
func TestPodIsSteeredAndServesAgain(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		before := ruleset(t)

		agent := start(t, group, g)
		if agent.hello.PublicKey.IsZero() || agent.hello.PodUID != podUID || agent.hello.Error != "" {
			t.Fatalf("hello: %+v", agent.hello)
		}
		if got := get("alice"); got != "app" {
			t.Fatalf("before there is a rule: %s", got)
		}
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web", header("alice")))
		took := until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })
		t.Logf("the laptop answers %v after the gateway admitted the agent", took.Round(time.Millisecond))
		if got := get("bob"); got != "app" {
			t.Errorf("bob: %s", got)
		}
		until(t, late, "the gateway hears that the rules are in force", func() bool {
			r, ok := g.server.Report(agent.hello.PublicKey)
			return ok && r.Sent > 0 && r.Generation == r.Sent
		})
		until(t, 2*control.Beat+late, "the laptop hears of its rule", func() bool {
			rules, events, counts := laptop.told()
			return slices.Equal(rules, []string{"alice-web"}) && len(events) > 0 && events[0].Status == 200 &&
				counts["alice-web"].Matched == int64(len(events)) && counts["alice-web"].Passed > 0
		})
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.worker()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
				t.Logf("worker: %s", strings.TrimSpace(line))
			}
		}

		laptop.silence(true)
		took = until(t, 4*time.Second+late, "the app serves a silent laptop's users", func() bool { return get("alice") == "app" })
		t.Logf("the app answers %v after the laptop's last word", took.Round(time.Millisecond))
		took = until(t, 2*time.Second+late, "the pod is as it was", func() bool { return ruleset(t) == before })
		t.Logf("no table is left %v later", took.Round(time.Millisecond))
		laptop.silence(false)
		took = until(t, 4*time.Second+late, "the laptop is back", func() bool { return get("alice") == "laptop" })
		t.Logf("the laptop answers %v after it is back", took.Round(time.Millisecond))

		g.admit(agent.hello.PublicKey, true)
		took = until(t, time.Second+late, "the table is gone", func() bool { return ruleset(t) == before })
		t.Logf("the table is gone %v after the last rule", took.Round(time.Millisecond))
		if status := agent.ends(late); status != 0 {
			t.Errorf("exit status %d", status)
		}
		if got := get("alice"); got != "app" {
			t.Errorf("after all: %s", got)
		}
	})
}

// TestDatagrams: a whole port of UDP.
func TestDatagrams(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		rule := laptop.rule("alice-dns")
		rule.Protocol = steer.UDP
		agent := start(t, group, g)
		g.admit(agent.hello.PublicKey, true, rule)
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return ask() == "laptop" })
		if got := get("alice"); got != "app" {
			t.Errorf("TCP: %s", got)
		}
		laptop.silence(true)
		until(t, 4*time.Second+late, "the app answers", func() bool { return ask() == "app" })
	})
}

// TestTranslatesWhereMarksAreTakenAway: there a connection of the agent's could come back
// to it if TCP was handed over. It is translated instead, and the log says why.
func TestTranslatesWhereMarksAreTakenAway(t *testing.T) {
	inPod(t, func(t *testing.T) {
		testpod.Run(t, "nft add table inet firewall; add chain inet firewall out { type filter hook output priority 0; }; add rule inet firewall out meta mark set 1")
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		agent := start(t, group, g)
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web", header("alice")))
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })
		if got := get("bob"); got != "app" {
			t.Errorf("bob: %s", got)
		}
		if rules := ruleset(t); !strings.Contains(rules, "dnat") || strings.Contains(rules, "tproxy") {
			t.Errorf("TCP is not translated: %s", rules)
		}
		const why = `"level":"WARN","msg":"TCP is redirected by translation of addresses","err":"leave a marked connection alone: `
		until(t, late, "the log says why", func() bool { return strings.Contains(agent.log.String(), why) })
	})
}

// TestKilledWorkerIsReplaced: the pod serves itself at once, and is steered
// again soon, by an agent that its gateway still knows.
func TestKilledWorkerIsReplaced(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		agent := start(t, group, g)
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web"))
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })

		if err := syscall.Kill(agent.worker(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		took := until(t, 200*time.Millisecond+late, "somebody answers", func() bool {
			got := get("alice")
			return got == "app" || got == "laptop"
		})
		t.Logf("requests are answered %v after SIGKILL", took.Round(time.Millisecond))
		took = until(t, 5*time.Second+late, "the laptop answers again", func() bool { return get("alice") == "laptop" })
		t.Logf("the laptop answers %v later", took.Round(time.Millisecond))

		// Asked to end, all of it does.
		if err := agent.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if status := agent.ends(2*time.Second + late); status != 0 {
			t.Errorf("exit status %d", status)
		}
		t.Logf("ended %v after SIGTERM", time.Since(began).Round(time.Millisecond))
		if rules := ruleset(t); strings.Contains(rules, "podnet") {
			t.Errorf("left behind: %s", rules)
		}
	})
}

// TestWorkerEndsWithItsParent: who watches the worker is gone, so it goes.
func TestWorkerEndsWithItsParent(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		agent := start(t, group, g)
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web"))
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })
		worker := agent.worker()
		if err := agent.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		until(t, time.Second+late, "the worker ends", func() bool { return syscall.Kill(worker, 0) != nil || !strings.Contains(ruleset(t), "podnet") })
		if rules := ruleset(t); strings.Contains(rules, "podnet") {
			t.Errorf("left behind: %s", rules)
		}
	})
}

// TestLaptopMoves: a laptop that goes from one gateway to another is reached
// through the other one.
func TestLaptopMoves(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var one, two *fakeGateway
		all := func() []control.Gateway { return []control.Gateway{one.entry(), two.entry()} }
		one, two = newGateway(t, all), newGateway(t, all)
		atOne := newLaptop(t, "at one", one)
		newApp(t)
		if err := two.stack.AddAddress(atOne.addr); err != nil {
			t.Fatal(err)
		}
		atTwo := &fakeLaptop{t: t, addr: atOne.addr, counts: map[string]control.Counts{}}
		atTwo.serve("at two", two)

		agent := start(t, group, one) // and hears of the other one
		rule := atOne.rule("alice-web")
		one.admit(agent.hello.PublicKey, true, rule)
		two.admit(agent.hello.PublicKey, false, rule)
		until(t, 3*time.Second+late, "at one", func() bool { return get("alice") == "at one" })
		until(t, 3*time.Second+late, "the other gateway is connected", func() bool {
			_, ok := two.server.Report(agent.hello.PublicKey)
			return ok
		})
		two.admit(agent.hello.PublicKey, true, rule)
		took := until(t, 4*time.Second+late, "at two", func() bool { return get("alice") == "at two" })
		t.Logf("at the other gateway after %v", took.Round(time.Millisecond))

		// The gateway that has the laptop goes; the other one has it no more.
		one.admit(agent.hello.PublicKey, false, rule)
		if err := two.tunnel.SetPeers(nil); err != nil {
			t.Fatal(err)
		}
		until(t, 5*time.Second+late, "the app", func() bool { return get("alice") == "app" })
	})
}

// TestLargeThingsArrive: more than a packet, both ways.
func TestLargeThingsArrive(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		dns := laptop.rule("alice-dns")
		dns.Protocol = steer.UDP
		agent := start(t, group, g)
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web"), dns)
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" && ask() == "laptop" })

		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
		began := time.Now()
		response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/echo", appPort), "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back of %d: %v", len(got), len(body), err)
		}
		t.Logf("%d KiB there and back in %v", len(body)>>10, time.Since(began).Round(time.Millisecond))

		c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", appPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		datagram := append([]byte("echo"), body[:60000]...)
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(datagram); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1<<16)
		n, err := c.Read(answer)
		if err != nil || !bytes.Equal(answer[:n], datagram) {
			t.Errorf("a datagram of %d bytes came back as one of %d: %v", len(datagram), n, err)
		}
	})
}

// TestNobodyListens: a port that the pod does not serve is refused, steered or
// not, and its rule is in nobody's way. The agent has to see that though its
// memory is hidden.
func TestNobodyListens(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		other := laptop.rule("alice-dns")
		other.Protocol = steer.UDP
		agent := start(t, group, g)
		g.admit(agent.hello.PublicKey, true, laptop.rule("alice-web"), other)
		until(t, 3*time.Second+late, "the other rule is in force", func() bool {
			rules, _, _ := laptop.told()
			return slices.Equal(rules, []string{"alice-dns"})
		})
		if got := get("alice"); !strings.Contains(got, "refused") {
			t.Errorf("got %s", got)
		}
		newApp(t)
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })
	})
}

// TestNoAgent: whoever started it hears why there will be none.
func TestNoAgent(t *testing.T) {
	inPod(t, func(t *testing.T) {
		g := newGateway(t, func() []control.Gateway { return nil })
		for name, c := range map[string]struct {
			attributes *syscall.SysProcAttr
			want       string
		}{
			"group 0":         {nil, "group of its own"},
			"no capabilities": {&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}, "not permitted"},
		} {
			agent := start(t, c.attributes, g)
			if status := agent.ends(5 * time.Second); status != 1 || !strings.Contains(agent.hello.Error, c.want) || agent.hello.Hint == "" {
				t.Errorf("%s: exit status %d, hello %+v", name, status, agent.hello)
			}
		}
	})
}
