//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The bank lets nobody but its teller into the vault. Its namespace enforces Pod
// Security "restricted".
const bankYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: teller, namespace: bank}
spec:
  replicas: 1
  selector: {matchLabels: {app: teller}}
  template:
    metadata: {labels: {app: teller}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: shop
        image: podnet.dev/shop:lab
        imagePullPolicy: Never
        args: [--http=:8080, --udp-echo=:5353, --tcp-echo=:5432]
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// bank opens the bank for the time of the test, and returns the addresses of its
// pods. alice may send as the teller.
func bank(t testing.TB) (teller, vault string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bank.yaml")
	_, deployment, _ := strings.Cut(bankYAML, "---\n")
	write(t, file, bankYAML+"---\n"+strings.ReplaceAll(deployment, "teller", "vault")+`---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank}
spec:
  selector: {app: vault}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp-echo, port: 5432}
  - {name: udp-echo, port: 5353, protocol: UDP}
`)
	closed := func() { kubectl("delete", "namespace", "bank", "--ignore-not-found").must(t) }
	closed() // by a run that was killed
	t.Cleanup(closed)
	kubectl("apply", "-f", file).must(t)
	for _, role := range []string{"lab-developer", "podnet-steer"} {
		kubectl("create", "rolebinding", "bank-"+role, "-n", "bank", "--clusterrole="+role, "--user=alice").must(t)
	}
	address := func(app string) string {
		kubectl("rollout", "status", "-n", "bank", "deployment/"+app, "--timeout=90s").must(t)
		return kubectl("get", "pods", "-n", "bank", "-l", "app="+app, "-o", "jsonpath={.items[0].status.podIP}").must(t)
	}
	teller, vault = address("teller"), address("vault")

	// What a NetworkPolicy would do, on the vault's side.
	node1.sh(fmt.Sprintf(`nsenter --net=/run/netns/%s nft -f - <<'EOF'
table inet allowlist {
	chain input {
		type filter hook input priority 0; policy accept;
		ip saddr != %s tcp dport 5432 reject with tcp reset
		ip saddr != %s udp dport 5353 reject
	}
}
EOF`, netns(t, vault), teller, teller)).must(t)
	return teller, vault
}

// seenAs is the address from which the vault sees requests of alice's machine.
func seenAs(t testing.TB, vault string) (string, error) {
	t.Helper()
	r := alice.cmd("curl", "-sS", "--max-time", "2", "http://"+vault+":8080/whoami").try(t)
	if r.code != 0 {
		return "", errors.New(r.stderr)
	}
	var who struct{ Client string }
	if err := json.Unmarshal([]byte(r.stdout), &who); err != nil {
		return "", err
	}
	from, err := netip.ParseAddrPort(who.Client)
	return from.Addr().Unmap().String(), err
}

// TestLeaveAsPod has an allow-list on a pod's address let a laptop through that
// sends as that pod, and refuse it otherwise.
func TestLeaveAsPod(t *testing.T) {
	teller, vault := bank(t)
	ns := netns(t, teller)
	before := ruleset(t, ns)

	alice.connect(t, "-n", "bank")
	want(t, alice.role("refused", vault+":5432").must(t), "connection refused")
	if from, err := seenAs(t, vault); err != nil || from == teller {
		t.Errorf("without --as the vault sees %s, %v", from, err)
	}
	alice.podnet("disconnect").must(t)

	start := time.Now()
	alice.connect(t, "-n", "bank", "--as", "deploy/teller")
	report(t, "connect --as, from the command to ready, agent and all", time.Since(start).Round(10*time.Millisecond))
	want(t, alice.podnet("status").must(t), "teller-")
	want(t, kubectl("get", "steeringrules", "-A").must(t), "alice", "teller-", "egress", "Accepted")
	if from, err := seenAs(t, vault); err != nil || from != teller {
		t.Errorf("the vault sees %s, %v; want %s", from, err, teller)
	}
	report(t, "500 connections as a pod", alice.role("connections", "vault.bank:5432", "500", "8").must(t))
	if got := alice.sh("echo ahoy | socat -T 3 - UDP:vault.bank:5353").must(t); got != "ahoy" {
		t.Errorf("by UDP: %q", got)
	}
	report(t, "closed port says refused, as a pod", alice.role("refused", vault+":9").must(t))
	if r := alice.cmd("ping", "-c", "1", "-W", "2", vault).try(t); r.code == 0 {
		t.Error("a ping leaves, which only the gateway can send")
	}
	report(t, "100 MB from a pod, as another pod", alice.cmd("curl", "-sS", "-o", "/dev/null", "-w", "%{speed_download} bytes/s", "http://"+vault+":8080/blob?size=100M").must(t))

	agent := kubectl("get", "pods", "-n", "bank", "-l", "app=teller", "-o", "jsonpath={.items[0].spec.ephemeralContainers[*]}").must(t)
	want(t, agent, "--no-redirect", `"drop":["ALL"]`)
	if strings.Contains(agent, "NET_ADMIN") {
		t.Errorf("the agent has privilege: %s", agent)
	}
	if err := same(before, ruleset(t, ns)); err != nil {
		t.Errorf("nftables in the pod: %v", err)
	}

	// While there is no agent nothing leaves, and least of all as the gateway.
	host("kill", "-9", agentProcess(t, ns, "worker")).must(t)
	refused := 0
	took := eventually(t, 15*time.Second, "the agent is back", func() error {
		from, err := seenAs(t, vault)
		if err == nil && from != teller {
			t.Errorf("while the agent was gone the vault saw %s", from)
		}
		if err != nil {
			refused++
		}
		return err
	})
	report(t, "kill -9 of the agent's worker to the next answer as the pod", fmt.Sprintf("%v, %d refused", took.Round(10*time.Millisecond), refused))

	start = time.Now()
	alice.podnet("disconnect").must(t)
	eventually(t, 6*time.Second, "no agent is left", func() error {
		if left := node1.sh(fmt.Sprintf("for p in $(ip netns pids %s); do grep -H podnet-agent /proc/$p/comm; done; true", ns)).must(t); left != "" {
			return errors.New(left)
		}
		return nil
	})
	report(t, "disconnect to no agent left in the pod", time.Since(start).Round(10*time.Millisecond))
	if left := kubectl("get", "steeringrules", "-A", "-o", "name").must(t); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
}

// TestExecAsPod runs a command whose flows leave from a pod, with nothing connected
// before or after.
func TestExecAsPod(t *testing.T) {
	teller, vault := bank(t)
	t.Cleanup(func() { alice.podnet("disconnect", "--all").try(t) })
	start := time.Now()
	out := alice.podnet("exec", "--as", "deploy/teller", "-n", "bank", "--", "curl", "-sS", "--max-time", "5", "http://"+vault+":8080/whoami").must(t)
	report(t, "exec --as with a curl, from nothing to nothing", time.Since(start).Round(10*time.Millisecond))
	want(t, out, `"client":"`+teller+`:`)
	if r := alice.podnet("exec", "--as", "deploy/teller", "-n", "bank", "--", "sh", "-c", "exit 7").mustFail(t); r.code != 7 {
		t.Errorf("the command's status 7 became %d: %s", r.code, r.stderr)
	}
	if r := alice.podnet("status").try(t); r.code != 3 {
		t.Errorf("something is connected: exit %d\n%s", r.code, r.stdout)
	}
	if left := kubectl("get", "steeringrules", "-A", "-o", "name").must(t); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
}
