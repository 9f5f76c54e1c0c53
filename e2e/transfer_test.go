//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLargeTransfers moves 500 MB each way and compares checksums.
func TestLargeTransfers(t *testing.T) {
	const size = 500_000_000
	onEachPath(t, func(t *testing.T, path string) {
		pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t) + ":8080"
		sum := alice.cmd("curl", "-sS", fmt.Sprintf("http://%s/blob/sha256?size=%d", pod, size)).must(t)

		start := time.Now()
		got := alice.sh(fmt.Sprintf("curl -sS --max-time 170 'http://%s/blob?size=%d' | sha256sum", pod, size)).must(t)
		report(t, "500 MB down, "+path, rate(size, time.Since(start)))
		if !strings.HasPrefix(got, sum) {
			t.Errorf("down: checksum %s, want %s", got, sum)
		}

		// What is sent is a key stream: as random as needed, and cheap.
		start = time.Now()
		lines := strings.Fields(alice.cmd("bash", "-c", fmt.Sprintf(`set -o pipefail; sent=$(mktemp); trap 'rm -f $sent' EXIT
			head -c %d /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null | tee >(sha256sum > $sent) |
			curl -sS --max-time 170 -T - http://%s/sink; sleep 0.2; cat $sent`, size, pod)).must(t))
		report(t, "500 MB up, "+path, rate(size, time.Since(start)))
		if len(lines) < 3 || lines[0] != fmt.Sprint(size) || lines[1] != lines[2] {
			t.Errorf("up: the pod got %v", lines)
		}
	})
}

func rate(bytes int, took time.Duration) string {
	return fmt.Sprintf("%.2f Gbit/s (%v)", float64(bytes)*8/took.Seconds()/1e9, took.Round(10*time.Millisecond))
}

// TestLongIdleConnection stays silent for longer than any keep-alive and talks
// again.
func TestLongIdleConnection(t *testing.T) {
	bob.parallel(t)
	bob.connect(t, "-n", "shop")
	got := bob.sh(`{ echo before; sleep 80; echo after; } | socat -t 5 - TCP:db-0.db.shop:5432`).must(t)
	if got != "before\nafter" {
		t.Errorf("the echo said %q", got)
	}
}

// TestHalfClose sends all, shuts its side, and still gets the answer.
func TestHalfClose(t *testing.T) {
	alice.connect(t, "-n", "shop")
	got := alice.sh(`head -c 3000000 /dev/zero | socat -t 30 - TCP:db-0.db.shop:5432 | wc -c`).must(t)
	if got != "3000000" {
		t.Errorf("%s bytes came back after the half-close, want 3000000", got)
	}
}
