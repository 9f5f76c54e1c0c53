//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestExpose has a pod reach a port of the laptop by the name of a Service, until
// it is stopped, or its laptop is gone. In the long form it waits for the lease.
func TestExpose(t *testing.T) {
	market(t, 1)
	kubectl("create", "rolebinding", "market-edit", "-n", "market", "--clusterrole=edit", "--user=alice").must(t)
	ns := netns(t, stalls(t)[0])
	alice.connect(t, "-n", "market", "--lease", "60s")
	alice.serveLocally(t, 3000, "laptop")

	service := "my-api"
	curl := func(port int) (string, error) { return callService(t, ns, service, port) }
	reaches := func(port int) func() error {
		return func() error {
			got, err := curl(port)
			if err == nil && got != "hello from laptop" {
				err = fmt.Errorf("%q", got)
			}
			return err
		}
	}
	gone := func() error {
		if got, err := curl(80); err == nil {
			return fmt.Errorf("%q", got)
		}
		return nil
	}
	start := time.Now()
	want(t, alice.podnet("expose", "3000", "--as", "my-api", "-n", "market", "--detach").must(t), "my-api")
	eventually(t, 15*time.Second, "a pod reaches the laptop", reaches(80))
	report(t, "expose, from the command to a pod's first answer", time.Since(start).Round(10*time.Millisecond))
	eventually(t, 5*time.Second, "a pod reaches the laptop at its own port", reaches(3000))
	want(t, kubectl("get", "exposures", "-A").must(t), "my-api", "alice")
	want(t, alice.podnet("expose", "list").must(t), "my-api")

	start = time.Now()
	alice.podnet("expose", "stop", "my-api").must(t)
	var failing time.Time // the first attempt of those that fail
	eventually(t, 10*time.Second, "the name is gone", func() error {
		failing = time.Now() // curl waits 3 s for the address that the cluster's DNS remembers and that nobody has
		return gone()
	})
	report(t, "no pod reaches the laptop any more, after expose stop (2 s)", failing.Sub(start).Round(10*time.Millisecond))
	eventually(t, 30*time.Second, "nothing is left in the cluster", func() error {
		if left := kubectl("get", "exposures,services,endpointslices", "-A", "-o", "name").must(t); strings.Contains(left, "my-api") || strings.Contains(left, "podnet-x-") {
			return errors.New(left)
		}
		return nil
	})

	// A Service that is not ours stays as it is.
	r := alice.podnet("expose", "3000", "--as", "stall", "-n", "market", "--detach").mustFail(t)
	want(t, r.stderr, "stall", "hint:")

	// Another name: the cluster's DNS remembers the first one for half a minute.
	service = "my-shop"
	alice.podnet("expose", "3000", "--as", service, "-n", "market", "--detach").must(t)
	eventually(t, 15*time.Second, "a pod reaches the laptop", reaches(80))
	start = time.Now()
	alice.cmd("kill", "-9", alice.daemon(t)).must(t)
	eventually(t, 10*time.Second, "a laptop that is gone does not answer", gone)
	if !long {
		return // the lease of a minute, and another until the object goes
	}
	eventually(t, 3*time.Minute, "the lease is over", func() error {
		if kubectl("get", "service", "-n", "market", service).try(t).code == 0 {
			return errors.New("the Service is there")
		}
		return nil
	})
	report(t, "kill -9 of the daemon to the Service gone (a lease of 60 s, and a minute)", time.Since(start).Round(time.Second))
}

// callService asks a Service of the market as a program in a pod does: by the cluster's
// DNS, and from the pod's network.
func callService(t *testing.T, ns, service string, port int) (string, error) {
	t.Helper()
	name := service + ".market.svc.cluster.local"
	r := node1.cmd("nsenter", "--net=/run/netns/"+ns, "sh", "-c", fmt.Sprintf(`ip=$(dig +short @10.96.0.10 %s | tail -1)
		[ -n "$ip" ] && curl -sS --max-time 3 --resolve %s:%d:$ip http://%s:%d/`, name, name, port, name, port)).try(t)
	if r.code != 0 {
		return "", errors.New(strings.TrimSpace(r.stderr + " " + r.stdout))
	}
	return strings.TrimSpace(r.stdout), nil
}
