//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSmallPackets has a line that swallows packets above 1280 bytes and says
// nothing: from the start, and from the middle of a session on.
func TestSmallPackets(t *testing.T) {
	size := 20_000_000
	if long {
		size = 100_000_000
	}
	transfer := func(t *testing.T, what string) {
		t.Helper()
		pod := podAddress(t, "app=web") + ":8080"
		sum := alice.cmd("curl", "-sS", fmt.Sprintf("http://%s/blob/sha256?size=%d", pod, size)).must(t)
		start := time.Now()
		got := alice.sh(fmt.Sprintf("curl -sS --max-time 60 'http://%s/blob?size=%d' | sha256sum", pod, size)).must(t)
		down := time.Since(start)
		if !strings.HasPrefix(got, sum) {
			t.Errorf("down: checksum %s, want %s", got, sum)
		}
		start = time.Now()
		got = alice.sh(fmt.Sprintf("head -c %d /dev/zero | curl -sS --max-time 60 -T - http://%s/sink", size, pod)).must(t)
		up := time.Since(start)
		if !strings.HasPrefix(got, fmt.Sprint(size)) {
			t.Errorf("up: the pod got %s", got)
		}
		c := alice.connection(t)
		report(t, fmt.Sprintf("[39] outer path of 1280 bytes, %s: %d MB each way", what, size/1_000_000),
			fmt.Sprintf("down %s, up %s; tunnel MTU %d on %s", rate(size, down), rate(size, up), c.Tunnel.MTU, c.Path.Kind))
		if c.Path.Kind != "udp" {
			t.Errorf("the path is %+v", c.Path)
		}
	}
	t.Run("from the start", func(t *testing.T) {
		calm(t)
		lab("wire", "laptop", "--mtu", "1280").must(t)
		alice.connect(t, "-n", "shop")
		alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
		transfer(t, "from the start")
	})
	t.Run("from the middle on", func(t *testing.T) {
		calm(t)
		alice.connect(t, "-n", "shop")
		alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
		session := alice.start(t, "echo", podAddress(t, "app=db")+":5432")
		lab("wire", "laptop", "--mtu", "1280").must(t)
		transfer(t, "from the middle on")
		session.stop()
		session.unbroken(t)
	})
}
