//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// onEachPath runs a test with alice connected over each path.
func onEachPath(t *testing.T, test func(t *testing.T, path string)) {
	for _, path := range []string{"apiserver", "udp"} {
		t.Run(path, func(t *testing.T) {
			alice.connect(t, "-n", "shop", "--path", path)
			test(t, path)
		})
	}
}

// TestThousandFlows keeps a thousand connections open through the tunnel.
func TestThousandFlows(t *testing.T) {
	onEachPath(t, func(t *testing.T, path string) {
		report(t, "[36] 1,000 flows at once, "+path, alice.role("flows", "db-0.db.shop.svc.cluster.local:5432", "1000").must(t))
	})
}

// TestTenThousandConnections makes short connections, none of which may fail.
func TestTenThousandConnections(t *testing.T) {
	onEachPath(t, func(t *testing.T, path string) {
		report(t, "10,000 connections, "+path, alice.role("connections", "db-0.db.shop.svc.cluster.local:5432", "10000", "32").must(t))
	})
}

// TestFailuresAreFastAndHonest is refused as refused, absent as absent.
func TestFailuresAreFastAndHonest(t *testing.T) {
	onEachPath(t, func(t *testing.T, path string) {
		pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t)
		alice.cmd("curl", "-sS", "http://web.shop").must(t)

		want(t, alice.role("refused", pod+":9").must(t), "connection refused")
		report(t, "closed port says refused, "+path+" (under 100 ms)", alice.role("refused", pod+":9").must(t))

		start := time.Now()
		alice.cmd("getent", "hosts", "nothere.shop.svc.cluster.local").mustFail(t)
		report(t, "absent name says so, "+path+" (under 100 ms and the process)", time.Since(start).Round(time.Millisecond))
		want(t, alice.cmd("dig", "nothere.shop.svc.cluster.local").must(t), "NXDOMAIN")
	})
}
