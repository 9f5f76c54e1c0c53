//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestInspect looks at what requests that a rule took carried.
func TestInspect(t *testing.T) {
	market(t, 1)
	url := "http://" + clusterIP(t, "market", "stall") + "/cart?id=7"
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	want(t, alice.steer(t, "deploy/stall", "8080:3000", "--name", "cart", "--header", "x-user: alice", "--inspect"), "podnet steer inspect cart")
	want(t, alice.podnet("steer", "inspect", "cart").must(t), "no connection yet")

	for _, header := range []string{"x-user: alice", "x-user: bob"} {
		node1.cmd("curl", "-sS", "--max-time", "5", "-H", header, "-d", "two apples", url).must(t)
	}
	var got string
	eventually(t, 5*time.Second, "the connection is over", func() error {
		if got = alice.podnet("steer", "inspect", "cart").must(t); !strings.Contains(got, ", over") {
			return errors.New(got)
		}
		return nil
	})
	want(t, got, "> POST /cart?id=7 HTTP/1.1", "> x-user: alice", "> two apples", "< HTTP/1.1 200 OK", "< hello from laptop")
	if strings.Contains(got, "bob") {
		t.Errorf("it shows what the app got:\n%s", got)
	}
	want(t, alice.podnet("steer", "inspect", "cart", "-o", "json").must(t), `"kind": "Inspections"`)
	alice.podnet("steer", "stop", "cart").must(t)
	want(t, alice.podnet("steer", "inspect", "cart").mustFail(t).stderr, "there is no rule cart")
}
