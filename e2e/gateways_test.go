//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSteerWithTwoGateways steers while gateways die, and while the one that leads
// does not hear the agents: requests go on, and what the rules' status says of the
// agents does not waver.
func TestSteerWithTwoGateways(t *testing.T) {
	calm(t)
	installed(t, append([]string{"--replicas", "2"}, usual...)...)
	bothGateways(t)
	const pods = 2
	market(t, pods)
	url := "http://" + clusterIP(t, "market", "stall")
	t.Cleanup(func() {
		for _, name := range gateways {
			if t.Failed() {
				t.Logf("%s:\n%s", name, kubectl("logs", "-n", "podnet-system", name, "--tail=60").must(t))
			}
		}
	})
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000")
	eventually(t, 10*time.Second, "the laptop answers", func() error { return answers(t, url, byLaptop) })
	for _, name := range gateways {
		hears(t, name, pods)
	}
	since := steady(t, pods, "")

	for _, c := range []struct {
		what  string
		which func() string
	}{
		{"the gateway that leads", func() string { return leader(t) }},
		{"the gateway that has the laptop", func() string { return alice.connection(t).Gateway.Pod }},
		{"the gateway that does not lead", func() string { return otherGateway(leader(t)) }},
		{"the gateway that does not have the laptop", func() string { return otherGateway(alice.connection(t).Gateway.Pod) }},
	} {
		t.Run("killed: "+c.what, func(t *testing.T) {
			news := node1.start(t, "fetch", url)
			time.Sleep(time.Second)
			name, began := c.which(), time.Now()
			kubectl("delete", "pod", "-n", "podnet-system", name, "--force", "--grace-period=0").must(t)
			bothGateways(t)
			hears(t, name, pods)
			heard := time.Since(began)
			steady(t, pods, since)
			eventually(t, 15*time.Second, "new connections", func() error {
				if s, ok := news.last(works); !ok || s.At.Before(began) {
					if _, failed := news.since(began, fails); failed {
						return errors.New("none yet")
					}
				}
				return nil
			})
			eventually(t, 15*time.Second, "the laptop answers", func() error { return answers(t, url, byLaptop) })
			news.stop()
			failed, _ := gap(news, began)
			report(t, c.what+" killed, new connections to the steered port failed for (5 s)",
				fmt.Sprintf("%.2f s; the new gateway hears the agents after %.2f s", failed.Seconds(), heard.Seconds()))
			if failed > 5*time.Second {
				t.Errorf("new connections failed for %v:\n%s", failed, news.diary())
			}
		})
	}

	// The leader hears no agent, and the laptop is with the other gateway: each
	// connect draws one of the two.
	lead := leader(t)
	witness := otherGateway(lead)
	ns := netns(t, kubectl("get", "pod", "-n", "podnet-system", lead, "-o", "jsonpath={.status.podIP}").must(t))
	for tries := 0; alice.connection(t).Gateway.Pod == lead; tries++ {
		if tries == 20 {
			t.Fatalf("of %d sessions each has %s", tries, lead)
		}
		alice.podnet("disconnect").must(t)
		alice.connect(t, "-n", "market")
	}
	if list := alice.podnet("steer", "list").must(t); !strings.Contains(list, "stall") {
		alice.steer(t, "deploy/stall", "8080:3000")
	}
	eventually(t, 15*time.Second, "the laptop answers", func() error { return answers(t, url, byLaptop) })
	eventually(t, 10*time.Second, "the leader hears the agents", func() error { return said(t, pods, "") })
	since = steady(t, pods, "")
	node1.sh(fmt.Sprintf(`nsenter --net=/run/netns/%s nft 'table inet story { chain in { type filter hook input priority 0; udp dport 51820 ip saddr { %s } drop; udp dport 51820 meta nfproto ipv6 drop; }; }'`, ns, strings.Join(stalls(t), ", "))).must(t)
	news := node1.start(t, "fetch", url)
	began := time.Now()
	eventually(t, 30*time.Second, "the other gateway is the witness", func() error { return said(t, pods, witness) })
	report(t, "the leader hears no agent, the other gateway says so after", time.Since(began).Round(10*time.Millisecond))
	time.Sleep(10 * time.Second) // longer than a leader that is not told is patient
	steady(t, pods, since)
	if err := answers(t, url, byLaptop); err != nil {
		t.Errorf("the laptop does not answer: %v", err)
	}
	want(t, kubectl("get", "steeringrules", "-n", "market").must(t), "True")

	node1.sh(fmt.Sprintf("nsenter --net=/run/netns/%s nft delete table inet story", ns)).must(t)
	took := eventually(t, time.Minute, "the leader hears the agents", func() error { return said(t, pods, "") })
	report(t, "the leader hears the agents, after they reach it again", took.Round(10*time.Millisecond))
	steady(t, pods, since)
	if failed, _ := gap(news, began); failed > 0 {
		t.Errorf("new connections failed for %v:\n%s", failed, news.diary())
	}
}

// gateways are the pods of two replicas.
var gateways = []string{"podnet-gateway-0", "podnet-gateway-1"}

func otherGateway(name string) string {
	if name == gateways[0] {
		return gateways[1]
	}
	return gateways[0]
}

// bothGateways waits until both are ready.
func bothGateways(t testing.TB) {
	t.Helper()
	kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
}

// leader is the gateway that leads.
func leader(t testing.TB) string {
	t.Helper()
	return kubectl("get", "lease", "-n", "podnet-system", "podnet-gateway", "-o", "jsonpath={.spec.holderIdentity}").must(t)
}

// hears waits until a gateway has heard so many agents since it began.
func hears(t testing.TB, name string, agents int) {
	t.Helper()
	eventually(t, 30*time.Second, name+" hears the agents", func() error {
		log := kubectl("logs", "-n", "podnet-system", name).try(t)
		if n := strings.Count(log.stdout, "agent connected"); n < agents {
			return fmt.Errorf("%d of %d; %s", n, agents, log.stderr)
		}
		return nil
	})
}

// agentStatus is what the market's rules say of their agents, a line each:
// whether it is ready, since when, whether the leader hears it, and the witnesses.
func agentStatus(t testing.TB) []string {
	t.Helper()
	all := kubectl("get", "steeringrules", "-n", "market", "-o", `go-template={{range .items}}{{range .status.conditions}}{{if eq .type "AgentReady"}}{{.status}} {{.lastTransitionTime}}{{end}}{{end}}`+
		`{{with .status.agent}}{{if .generation}} heard{{end}}{{end}}{{range .status.witnesses}} {{.pod}}{{end}}{{"\n"}}{{end}}`).must(t)
	return strings.Split(strings.TrimSpace(all), "\n")
}

// said reports an error unless so many rules are in force by the words of that
// witness, "" for the leader's own.
func said(t testing.TB, rules int, witness string) error {
	t.Helper()
	end := witness
	if witness == "" {
		end = "heard"
	}
	lines := agentStatus(t)
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) != 3 || f[0] != "True" || f[2] != end {
			return errors.New(l)
		}
	}
	if len(lines) != rules {
		return fmt.Errorf("%d rules", len(lines))
	}
	return nil
}

// steady fails the test unless so many rules say that their agents are ready, and
// since when as before; "" is for the first time.
func steady(t testing.TB, rules int, before string) (since string) {
	t.Helper()
	for _, l := range agentStatus(t) {
		f := strings.Fields(l)
		if len(f) < 2 || f[0] != "True" {
			t.Errorf("a rule's status: %s", l)
			continue
		}
		since += f[1] + " "
		rules--
	}
	if rules != 0 {
		t.Errorf("%d rules are not there", rules)
	}
	if before != "" && since != before {
		t.Errorf("agents are ready since %s, and it was %s", since, before)
	}
	return since
}
