//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestUnpluggedLaptop pulls bob's plug in mid-session: the gateway finds out that
// nobody is at the other end of his flows, although his lease goes on. (Alice's would
// be the admin's as well, who looks on.)
func TestUnpluggedLaptop(t *testing.T) {
	if !long {
		t.Skip("waits for two minutes; PODNET_E2E_LONG=1 runs it")
	}
	calm(t)
	const limit = 120 * time.Second
	bob.connect(t, "-n", "shop", "--lease", "15m")
	bob.start(t, "echo", podAddress(t, "app=db")+":5432")
	eventually(t, 10*time.Second, "a flow is open", func() error {
		if openFlows(t) == 0 {
			return errors.New("none")
		}
		return nil
	})
	lab("link", "laptop2", "down").must(t)
	took := eventually(t, 2*limit, "no flow is open", func() error {
		if n := openFlows(t); n > 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	measure.AtMost(t, "[41] plug pulled to no flow left in the gateway", took, limit)
	if took > limit {
		t.Errorf("after %v", took)
	}
	lab("link", "laptop2", "up").must(t)
}

// openFlows is how many flows the gateway says are open.
func openFlows(t testing.TB) (n int) {
	t.Helper()
	found := false
	text := kubectl("get", "--raw", "/api/v1/namespaces/podnet-system/pods/podnet-gateway-0:8081/proxy/metrics").must(t)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "podnet_gateway_flows{") {
			continue
		}
		found = true
		v, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		n += int(v)
	}
	if !found {
		t.Fatal("the gateway does not tell of its flows")
	}
	return n
}
