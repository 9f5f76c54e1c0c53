//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The market is where traffic is steered: the shop's namespace enforces Pod
// Security "restricted", under which no agent may run.
const marketYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: market, labels: {pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stall, namespace: market, labels: {app: stall}}
spec:
  replicas: 3
  selector: {matchLabels: {app: stall}}
  template:
    metadata: {labels: {app: stall}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - name: shop
        image: podnet.dev/shop:lab
        imagePullPolicy: Never
        args: [--http=:8080, --udp-echo=:5353, --tcp-echo=:5432]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports:
        - {name: http, containerPort: 8080}
        - {name: udp-echo, containerPort: 5353, protocol: UDP}
        - {name: tcp-echo, containerPort: 5432}
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 5}
        livenessProbe: {tcpSocket: {port: http}, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 5}
        securityContext: {runAsUser: 65532, runAsGroup: 65532, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: stall, namespace: market}
spec:
  selector: {app: stall}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: tcp-echo, port: 5432, targetPort: tcp-echo}
  - {name: udp-echo, port: 5353, targetPort: udp-echo, protocol: UDP}
`

// node1 is the machine from which requests reach the market's Services.
var node1 = machine{name: "node1"}

// market opens the market with so many stalls, for the time of the test. alice
// and bob may steer there.
func market(t testing.TB, stalls int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "market.yaml")
	write(t, file, strings.Replace(marketYAML, "replicas: 3", fmt.Sprintf("replicas: %d", stalls), 1))
	closed := func() { kubectl("delete", "namespace", "market", "--ignore-not-found").must(t) }
	closed() // by a run that was killed
	t.Cleanup(closed)
	kubectl("apply", "-f", file).must(t)
	for _, role := range []string{"lab-developer", "podnet-steer"} {
		kubectl("create", "rolebinding", "market-"+role, "-n", "market", "--clusterrole="+role, "--user=alice", "--user=bob").must(t)
	}
	kubectl("rollout", "status", "-n", "market", "deployment/stall", "--timeout=90s").must(t)
	// No pod is admitted before its namespace has this account.
	kubectl("wait", "-n", "market", "--for=create", "serviceaccount/default", "--timeout=60s").must(t)
}

// stalls are the addresses of the market's pods that are not about to go.
func stalls(t testing.TB) []string {
	t.Helper()
	return strings.Fields(kubectl("get", "pods", "-n", "market", "-l", "app=stall", "-o",
		`go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.status.podIP}} {{end}}{{end}}`).must(t))
}

// ruleset is what nftables has in the network of a pod.
func ruleset(t testing.TB, ns string) string {
	t.Helper()
	return node1.cmd("nsenter", "--net=/run/netns/"+ns, "nft", "list", "ruleset").must(t)
}

// serveLocally runs a web server on the machine's port for the time of the test.
// It says hello from name.
func (m machine) serveLocally(t testing.TB, port int, name string) *watcher {
	t.Helper()
	w := m.start(t, "web", fmt.Sprintf("127.0.0.1:%d", port), name)
	eventually(t, 5*time.Second, name+" serves", func() error {
		if r := m.cmd("curl", "-sS", "--max-time", "2", fmt.Sprintf("http://127.0.0.1:%d/", port)).try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	return w
}

// steer steers for the time of the test, and returns when it does.
func (m machine) steer(t testing.TB, args ...string) string {
	t.Helper()
	out := m.podnet(append([]string{"steer", "--detach", "-n", "market"}, args...)...).must(t)
	t.Cleanup(func() { m.podnet("steer", "stop", "--all").try(t) })
	return out
}

// custom is what customers of the market say when they are done.
type custom struct {
	Laptop, App int            // answers of requests with and without the header
	Wrong       map[string]int // by who answered: requests that the other should have got
	Failed      int
	First       string // the first failure
	P50, P99    time.Duration
	PerSecond   float64
}

func (c custom) String() string {
	return fmt.Sprintf("%d at the laptop, %d at the app, %d wrong, %d failed, %.0f/s, p50 %v, p99 %v", c.Laptop, c.App, len(c.Wrong), c.Failed,
		c.PerSecond, c.P50.Round(time.Microsecond), c.P99.Round(time.Microsecond))
}

// customers has so many requests of each kind made from node1, half of them by
// HTTP/2; header "" makes no request with one.
func customers(t testing.TB, url string, each, parallel int, header, answer string) custom {
	t.Helper()
	w := node1.start(t, "customers", url, fmt.Sprint(each), fmt.Sprint(parallel), header, answer)
	return w.custom(t, 3*time.Minute)
}

// custom waits until the customers are done.
func (w *watcher) custom(t testing.TB, within time.Duration) custom {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	select {
	case <-w.over:
	case <-ctx.Done():
		t.Fatalf("%s: not done within %v", w.name, within)
	}
	var c custom
	s, ok := w.last(done)
	if !ok {
		t.Fatalf("%s: %s", w.name, w.talk.String())
	}
	if err := json.Unmarshal([]byte(s.Text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// exact fails the test unless every request was answered by whom it should.
func (c custom) exact(t testing.TB, laptop, app int) {
	t.Helper()
	if c.Laptop != laptop || c.App != app || len(c.Wrong) > 0 || c.Failed > 0 {
		t.Errorf("%v; want %d and %d; wrong: %v; first failure: %s", c, laptop, app, c.Wrong, c.First)
	}
}
