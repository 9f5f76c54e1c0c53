//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMistakesAreExplained makes every mistake a newcomer makes: one clear
// sentence and a hint, never a hang, never a stack trace, nothing changed.
func TestMistakesAreExplained(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, garbage, "apiVersion: v1\nkind: Config\nclusters: {{{")
	for _, c := range []struct {
		name string
		cmd  command
		says []string
	}{
		{"no such kubeconfig", alice.podnet("connect", "--kubeconfig", "/nowhere/config"), []string{"/nowhere/config"}},
		{"garbage kubeconfig", alice.podnet("connect", "--kubeconfig", garbage), []string{garbage}},
		{"no such context", alice.podnet("connect", "--context", "mars"), []string{"mars"}},
		{"dead API server", alice.podnet("connect", "--server", "https://127.0.0.1:1"), []string{"127.0.0.1:1", "refused"}},
		{"silent API server", alice.podnet("connect", "--server", "https://192.0.2.77:6443"), []string{"192.0.2.77"}},
		{"unknown namespace", alice.podnet("connect", "-n", "atlantis"), []string{"atlantis"}},
		{"bad namespace", alice.podnet("connect", "-n", "No_Such!"), []string{"No_Such!"}},
		{"bad path", alice.podnet("connect", "--path", "pigeon"), []string{"pigeon", "auto"}},
		{"no permission to install", alice.podnet("install"), []string{"alice", "may not"}},
		{"unknown command", alice.podnet("conect"), []string{"conect"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := alice.snapshot(t)
			r := c.cmd.mustFail(t)
			explained(t, r, c.says...)
			if !within(r.took, 11*time.Second) {
				t.Errorf("took %v, want at most 10 s", r.took.Round(time.Second))
			}
			alice.podnet("disconnect", "--all").must(t)
			eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
		})
	}
}

// explained demands one error line and one hint, without the insides.
func explained(t testing.TB, r result, says ...string) {
	t.Helper()
	want(t, r.stderr, append(says, "error: ", "hint: ")...)
	for _, inside := range []string{"goroutine ", "panic", ".go:", "E1122", "klog"} {
		if strings.Contains(r.stderr, inside) {
			t.Errorf("stderr shows %q:\n%s", inside, r.stderr)
		}
	}
	if n := strings.Count(r.stderr, "error: "); n != 1 {
		t.Errorf("%d errors, want one:\n%s", n, r.stderr)
	}
}

// TestCollisionIsRefused has the laptop's own network where the cluster's is: with the
// cluster's own addresses it cannot be, with virtual ones it is as anywhere.
func TestCollisionIsRefused(t *testing.T) {
	alice.sh("ip link del home0 2>/dev/null; ip link add home0 type veth peer name home1 && ip addr add 10.244.1.129/25 dev home0 && ip link set home0 up && ip link set home1 up").must(t)
	t.Cleanup(func() { alice.sh("ip link del home0").must(t) })
	before := alice.snapshot(t)
	r := alice.podnet("connect", "--wait", "-n", "shop", "--addresses", "direct").mustFail(t)
	explained(t, r, "10.244.1.", "home0", "--addresses virtual")
	if r.code != 8 {
		t.Errorf("exit %d, want 8 (conflict)", r.code)
	}
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })

	alice.connect(t, "-n", "shop")
	c := alice.connection(t)
	if c.Addresses.Mode != "virtual" || !strings.Contains(c.Addresses.Why, "10.244.1.128/25 on home0") {
		t.Errorf("addresses %+v", c.Addresses)
	}
	want(t, alice.podnet("status").must(t), "virtual: the cluster's 10.244.1.", "routes")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
	real := clusterIP(t, "shop", "web")
	virtual := strings.TrimSpace(alice.podnet("map", real).must(t))
	if virtual == real {
		t.Errorf("%s stands for itself", real)
	}
	want(t, alice.podnet("map", virtual).must(t), real)
	want(t, alice.cmd("getent", "hosts", "web.shop").must(t), virtual)
	want(t, alice.podnet("dns", "query", virtual).must(t), "web.shop.svc.cluster.local")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://"+virtual).must(t)
	want(t, alice.sh("ip route get 10.244.1.130").must(t), "home0")
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
}

// TestGatewayShrugsOffGarbage talks nonsense to the gateway while alice works.
func TestGatewayShrugsOffGarbage(t *testing.T) {
	alice.connect(t, "-n", "shop", "--path", "apiserver")
	pod := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.podIP}").must(t)
	host("bin/lab", "exec", "node1", "--", "sh", "-c", fmt.Sprintf(
		"for i in $(seq 50); do head -c 1200 /dev/urandom | socat -u - UDP:%s:51820; done", pod)).must(t)
	// kubectl gives up a port-forward whose first connection is reset, so each
	// visitor has one of its own.
	admin.sh(`for port in 39821 39822 39823 39824 39825; do
			kubectl port-forward -n podnet-system podnet-gateway-0 $port:51821 >/dev/null 2>&1 & pf=$!
			for i in $(seq 100); do ss -Hltn "sport = :$port" | grep -q . && break; sleep 0.1; done
			head -c 5000 /dev/urandom | socat -u - TCP:127.0.0.1:$port 2>/dev/null
			kill $pf 2>/dev/null; wait $pf
		done; true`).must(t)
	alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
	if n := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").must(t); n != "0" {
		t.Errorf("the gateway restarted %s times", n)
	}
}

// TestUnpullableImage installs into a namespace of its own, sees why it does
// not start, and leaves nothing.
func TestUnpullableImage(t *testing.T) {
	t.Cleanup(func() {
		if err := install(context.Background(), usual...); err != nil {
			say("reinstall: %v", err)
		}
	})
	admin.podnet("uninstall").must(t)
	r := admin.podnet("install", "--image", "registry.invalid/podnet/gateway:nope", "--timeout", "30s").mustFail(t)
	explained(t, r, "registry.invalid/podnet/gateway:nope")
	if r.code != 10 {
		t.Errorf("exit %d, want 10 (gateway deploy failed)", r.code)
	}
	admin.podnet("uninstall").must(t)
	left := kubectl("get", "crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding,namespace", "-o", "name").must(t)
	for line := range strings.Lines(left) {
		if strings.Contains(line, "podnet") && !strings.Contains(line, "lab-") {
			t.Errorf("left behind: %s", line)
		}
	}
}
