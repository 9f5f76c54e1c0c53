//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestNamespaceWithoutPermission follows alice as she may not, may, and no
// longer may reach the namespace pay.
func TestNamespaceWithoutPermission(t *testing.T) {
	alice.parallel(t)
	till := clusterIP(t, "pay", "till")
	tillPod := kubectl("get", "pods", "-n", "pay", "-l", "app=till", "-o", "jsonpath={.items[0].status.podIP}").must(t)

	r := alice.podnet("connect", "--wait", "-n", "pay").mustFail(t)
	want(t, r.stderr, "pods/portforward", "pay", "hint:")
	if r.code != 4 {
		t.Errorf("exit %d, want 4 (permission)", r.code)
	}

	alice.connect(t, "-n", "shop")
	for _, url := range []string{"http://till.pay", "http://" + till, "http://" + tillPod + ":8080"} {
		if r := alice.cmd("curl", "-sS", "--max-time", "5", url).try(t); r.code == 0 {
			t.Errorf("alice reached %s without permission: %s", url, r.stdout)
		}
	}
	if got := alice.cmd("dig", "+short", "till.pay.svc.cluster.local").must(t); got != "" {
		t.Errorf("alice resolves till.pay: %s", got)
	}
	alice.podnet("disconnect").must(t)

	kubectl("create", "rolebinding", "alice-pay", "-n", "pay", "--clusterrole=lab-developer", "--user=alice").must(t)
	t.Cleanup(func() { kubectl("delete", "rolebinding", "alice-pay", "-n", "pay", "--ignore-not-found").try(t) })
	alice.connect(t, "-n", "shop", "-n", "pay", "--lease", "60s")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://till.pay").must(t)

	began := time.Now()
	kubectl("delete", "rolebinding", "alice-pay", "-n", "pay").must(t)
	last := ends(t, 90*time.Second, "access to pay", func() bool {
		return alice.cmd("curl", "-sS", "--max-time", "2", "http://"+till).try(t).code == 0
	})
	measure.AtMost(t, "[5] RoleBinding deleted to the last answer, with a lease of 60 s", last.Sub(began), 60*time.Second)
	alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
}

// TestForeignPeerIsRefused writes objects in another user's name.
func TestForeignPeerIsRefused(t *testing.T) {
	const peer = `{apiVersion: podnet.dev/v1alpha1, kind: Peer, metadata: {name: stolen, namespace: podnet-system},
 spec: {user: %s, publicKey: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=, leaseSeconds: 60, renew: 1}}`
	r := alice.sh(fmt.Sprintf("kubectl create -f - <<'EOF'\n%s\nEOF", fmt.Sprintf(peer, "bob"))).mustFail(t)
	want(t, r.stderr, "PODNET-OWNER")
	alice.sh(fmt.Sprintf("kubectl create -f - <<'EOF'\n%s\nEOF", fmt.Sprintf(peer, "alice"))).must(t)
	kubectl("delete", "peer", "-n", "podnet-system", "stolen").must(t)
}

// TestDefaultDeny tries what no peer may ever reach.
func TestDefaultDeny(t *testing.T) {
	admin.connect(t, "-A")
	node := kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}").must(t)
	gateway := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.podIP}").must(t)
	for what, addr := range map[string]string{
		"API server's Service": clusterIP(t, "default", "kubernetes") + ":443",
		"stream listener":      gateway + ":51821",
		"gateway's probes":     gateway + ":8081",
	} {
		if r := admin.cmd("curl", "-skS", "--max-time", "5", "-o", "/dev/null", "https://"+addr).try(t); r.code != 7 && r.code != 28 {
			t.Errorf("the %s at %s can be reached (curl exit %d)", what, addr, r.code)
		}
	}
	// Through the tunnel means by a route into it: the node's own address is
	// outside the cluster's ranges, so it must not have become one.
	if route := admin.cmd("ip", "route", "get", strings.Fields(node)[0]).must(t); strings.Contains(route, "podnet") {
		t.Errorf("the node's address goes into the tunnel: %s", route)
	}
}

// TestDeletedPeerIsCut measures an administrator's delete.
func TestDeletedPeerIsCut(t *testing.T) {
	alice.connect(t, "-n", "shop")
	web := clusterIP(t, "shop", "web")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://"+web).must(t)
	began := time.Now()
	kubectl("delete", "peers", "-n", "podnet-system", "--all", "--wait=false").must(t)
	last := ends(t, 10*time.Second, "the peer", func() bool {
		return alice.cmd("curl", "-sS", "--max-time", "1", "http://"+web).try(t).code == 0
	})
	measure.AtMost(t, "[6] kubectl delete of the Peer to the last answer", last.Sub(began), 2*time.Second)
}
