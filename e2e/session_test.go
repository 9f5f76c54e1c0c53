//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestConnectAndUse is the main job on each path: names, Services, pod
// addresses, UDP, ping, IPv6.
func TestConnectAndUse(t *testing.T) {
	for _, path := range []string{"apiserver", "udp"} {
		t.Run(path, func(t *testing.T) {
			start := time.Now()
			alice.connect(t, "-n", "shop", "--path", path)
			alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
			report(t, "connect to first HTTP answer by name, "+path+" (under 3 s)", time.Since(start).Round(time.Millisecond))

			pods := map[string]bool{}
			for range 20 {
				pods[alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)] = true
			}
			if len(pods) != 2 {
				t.Errorf("the Service answered from %d replicas, want 2: %v", len(pods), pods)
			}

			for _, ip := range strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web",
				"-o", "jsonpath={range .items[*].status.podIPs[*]}{.ip} {end}").must(t)) {
				host := ip
				if strings.Contains(ip, ":") {
					host = "[" + ip + "]"
				}
				want(t, alice.cmd("curl", "-sS", "-g", "--max-time", "10", "http://"+host+":8080").must(t), "web")
				alice.cmd("ping", "-c", "2", "-W", "3", ip).must(t)
			}
			for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
				want(t, alice.cmd("getent", "ahosts", name).must(t), clusterIP(t, "shop", "web"))
			}
			if got := alice.cmd("dig", "+short", "web.shop.svc.cluster.local").must(t); got != clusterIP(t, "shop", "web") {
				t.Errorf("dig says %q", got)
			}
			if got := alice.sh(`echo ahoy | socat -T 3 - UDP:web.shop:5353`).must(t); got != "ahoy" {
				t.Errorf("the UDP echo said %q", got)
			}
			want(t, alice.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.")

			var status struct {
				State       string
				Connections []struct{ Path struct{ Kind string } }
			}
			if err := json.Unmarshal([]byte(alice.podnet("status", "-o", "json").must(t)), &status); err != nil {
				t.Fatal(err)
			}
			if status.State != "Connected" || len(status.Connections) != 1 || status.Connections[0].Path.Kind != path {
				t.Errorf("status: %+v", status)
			}
		})
	}
}

func clusterIP(t testing.TB, namespace, service string) string {
	t.Helper()
	return kubectl("get", "service", "-n", namespace, service, "-o", "jsonpath={.spec.clusterIP}").must(t)
}

// snapshot is everything on a laptop that a session may change, and what more
// scripts print.
func (m machine) snapshot(t testing.TB, more ...string) string {
	t.Helper()
	var all strings.Builder
	for _, script := range append([]string{
		"ip -4 route show table all", "ip -6 route show table all", "ip rule; ip -6 rule", "ip -br link", "ip -br addr",
		"cat /etc/resolv.conf; ls -l --time-style=full-iso /etc/resolv.conf", "cat /etc/hosts", "nft list ruleset",
		"ls -A /etc; test ! -d /var/lib/podnet || find /var/lib/podnet -name '*.json*'",
	}, more...) {
		fmt.Fprintf(&all, "# %s\n%s\n", script, m.sh(script).must(t))
	}
	for _, pid := range m.podnets(t) {
		fmt.Fprintf(&all, "%s runs\n", podnetArgs(pid))
	}
	return all.String()
}

// TestDisconnectRestores compares the laptop before and after a session.
func TestDisconnectRestores(t *testing.T) {
	before := alice.snapshot(t)
	alice.connect(t, "-n", "shop")
	if alice.snapshot(t) == before {
		t.Fatal("connecting changed nothing: the snapshot looks in the wrong place")
	}
	alice.podnet("disconnect").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
	if n := kubectl("get", "peers,accesses", "-A", "-o", "name").must(t); n != "" {
		t.Errorf("left in the cluster: %s", n)
	}
}

// TestKilledDaemonRestores is the daemon that cannot say goodbye.
func TestKilledDaemonRestores(t *testing.T) {
	before := alice.snapshot(t)
	for _, path := range []string{"apiserver", "udp"} {
		alice.connect(t, "-n", "shop", "--path", path)
		alice.cmd("kill", "-9", alice.daemon(t)).must(t)
		took := eventually(t, 10*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
		measure.AtMost(t, "[25] kill -9 of the daemon to a restored laptop, "+path, took, 2*time.Second)
		if long && took > 2*time.Second {
			t.Errorf("with path %s after %v", path, took)
		}
		alice.connect(t, "-n", "shop", "--path", path)
		alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
		alice.podnet("disconnect").must(t)
	}
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
}

func same(before, after string) error {
	if before == after {
		return nil
	}
	lines := map[string]int{} // how many more after than before
	for line := range strings.Lines(after) {
		lines[strings.TrimSpace(line)]++
	}
	for line := range strings.Lines(before) {
		lines[strings.TrimSpace(line)]--
	}
	var diff strings.Builder
	for line, n := range lines {
		if n != 0 {
			fmt.Fprintf(&diff, "%+d %s\n", n, line)
		}
	}
	return fmt.Errorf("changed:\n%s", diff.String())
}

// TestTwoLaptops has two users at once, with addresses of their own.
func TestTwoLaptops(t *testing.T) {
	alice.connect(t, "-n", "shop")
	bob.connect(t, "-n", "shop")
	for _, m := range []machine{alice, bob} {
		m.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
	}
	addresses := strings.Fields(kubectl("get", "peers", "-n", "podnet-system", "-o", "jsonpath={.items[*].status.address4}").must(t))
	if len(addresses) != 2 || addresses[0] == addresses[1] {
		t.Errorf("tunnel addresses: %v", addresses)
	}
	for _, a := range addresses {
		if r := alice.cmd("ping", "-c", "1", "-W", "2", a).try(t); r.code == 0 && !strings.Contains(alice.cmd("ip", "-br", "addr").must(t), a) {
			t.Errorf("alice reaches another peer at %s", a)
		}
	}
}
