//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/testseccomp"
)

// execAsNobody is a run of podnet on alice's laptop as somebody who may do nothing there, with
// TUN devices as distributions have them: for everybody. before is a line of shell in
// front, to take away something else.
func execAsNobody(t *testing.T, before string, args ...string) command {
	t.Helper()
	return execConfined(t, "", before, args...)
}

// execConfined is execAsNobody with a line of shell in front of which root is the
// one to take away.
func execConfined(t *testing.T, front, before string, args ...string) command {
	t.Helper()
	dir, err := os.MkdirTemp("", "podnet-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	kubeconfig := filepath.Join(dir, "kubeconfig")
	script := `mknod ` + dir + `/tun c 10 200 && chmod 666 ` + dir + `/tun && mount --bind ` + dir + `/tun /dev/net/tun &&
exec ` + front + ` setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all ` + before + ` "$@"`
	if err := os.WriteFile(kubeconfig, []byte(alice.sh(`cat "${KUBECONFIG:-$HOME/.kube/config}"`).must(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return alice.cmd(append([]string{"unshare", "--mount", "sh", "-ec", script, "sh", "env", "KUBECONFIG=" + kubeconfig, "HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent", "XDG_RUNTIME_DIR=",
		filepath.Join(top, "bin/podnet"), "exec", "-n", "shop"}, args...)...)
}

// TestExecWithoutPrivilege runs commands that reach the cluster as if they ran in a pod,
// as somebody who may do nothing on the laptop, which stays as it is.
func TestExecWithoutPrivilege(t *testing.T) {
	before := alice.snapshot(t)
	t.Cleanup(func() {
		if after := alice.snapshot(t); after != before {
			t.Errorf("the laptop has changed:\n%s\nwas:\n%s", after, before)
		}
		if left := kubectl("get", "peers", "-n", "podnet-system", "-o", "name").must(t); left != "" {
			t.Errorf("left behind: %s", left)
		}
	})
	curl := "curl -sS --max-time 10 "
	for _, path := range []string{"udp", "apiserver"} {
		// curl says itself when its answer was there, before anything is taken down.
		start := time.Now()
		r := execAsNobody(t, "", "--path", path, "--", "sh", "-c", curl+"http://web.shop && date +%s.%N; id -u; grep -E '^CapEff|^NoNew' /proc/self/status; cat /etc/resolv.conf").try(t)
		if r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", path, r.code, r.stdout, r.stderr)
		}
		want(t, r.stdout, "hello from web-", "65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1",
			"search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.19.0.3\noptions ndots:5\n")
		want(t, r.stderr, "mode       namespace")
		first := answered(t, r.stdout).Sub(start)
		report(t, "exec as uid 65534 without capabilities, "+path+": start to the first answer (under 3 s)", first.Round(time.Millisecond))
		if !within(first, 3*time.Second) {
			t.Errorf("%v to the first answer", first)
		}
	}
	if r := execAsNobody(t, "", "--", "sh", "-c", "exit 7").try(t); r.code != 7 {
		t.Errorf("exit status %d\n%s", r.code, r.stderr)
	}

	programs := resolverPrograms(t)
	shop := filepath.Join(programs, "shop.test")
	host("env", "CGO_ENABLED=0", "go", "test", "-c", "-o", shop, "./e2e/testdata/shoptest").must(t)
	service := clusterIP(t, "shop", "web")
	script := []string{"set -e"}
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		for _, client := range []string{"getent ahosts", filepath.Join(programs, "go"), "env GODEBUG=netdns=cgo " + filepath.Join(programs, "cgo"), filepath.Join(programs, "musl")} {
			script = append(script, fmt.Sprintf("%s %s | grep -q %s || echo %s by %s is something else", client, name, service, name, client))
		}
	}
	pod := strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t))[0]
	script = append(script,
		"getent ahosts www.example.test | grep -q 198.51.100. || echo no public names",
		curl+"-o /dev/null http://www.example.test || echo no internet",
		curl+"http://"+pod+":8080 | grep -q hello || echo no pod by its address",
		"ping -c1 -W2 "+pod+" >/dev/null || echo no ping",
		shop+" -test.v")
	r := execAsNobody(t, "", "--", "sh", "-c", strings.Join(script, "\n")).try(t)
	if r.code != 0 || strings.Contains(r.stdout, "something else") || strings.Contains(r.stdout, "no ") || !strings.Contains(r.stdout, "--- PASS: TestShopAnswers") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	r = execAsNobody(t, "", "--isolate", "--", "sh", "-c", curl+"http://web.shop; ! "+curl+"--max-time 3 http://www.example.test").try(t)
	if r.code != 0 || !strings.Contains(r.stdout, "hello from web-") {
		t.Errorf("isolated: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	r = execAsNobody(t, "", "--env-from", "deploy/web", "--", "sh", "-c", `echo "in $POD_NAMESPACE as $POD_NAME"`).try(t)
	if r.code != 0 || !strings.Contains(r.stdout, "in shop as web-") {
		t.Errorf("with the environment of deploy/web: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	// A published port, and a server of the laptop's own.
	r = execAsNobody(t, "", "-p", "18080:8080", "--", "timeout", "10", "sh", "-c", `socat TCP-LISTEN:8080,fork,reuseaddr SYSTEM:'echo ahoy from inside' &
until socat -T 3 -u TCP:host.podnet.internal:18080 - | grep ahoy; do sleep 0.1; done`).try(t)
	if r.code != 0 || !strings.Contains(r.stdout, "ahoy from inside") {
		t.Errorf("by the laptop and back: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	// Where namespaces are forbidden: the proxy, the reason, and the exit status.
	r = execAsNobody(t, `unshare --user --map-root-user sh -ec 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"' sh`, "--", "sh", "-c", curl+"http://web.shop; exit 7").try(t)
	if r.code != 7 || !strings.Contains(r.stdout, "hello from web-") {
		t.Errorf("without namespaces: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	want(t, r.stderr, "max_user_namespaces", "mode       proxy")
	for _, c := range []struct{ front, says string }{
		{strings.Join(playing("confined"), " "), "operation not permitted (a container's seccomp filter or another policy forbids it here)"},
		{`sh -ec 'mount -t tmpfs none /dev/net; exec "$@"' sh`, "no such file or directory (there are no TUN devices here: modprobe tun; in a container pass --device /dev/net/tun)"},
		{`sh -ec 'chmod 600 /dev/net/tun; exec "$@"' sh`, "permission denied (TUN devices are not for this user here: chmod 666 /dev/net/tun; in a container pass --device /dev/net/tun)"},
	} {
		r := execConfined(t, c.front, "", "--", "sh", "-c", curl+"http://web.shop; exit 7").try(t)
		if r.code != 7 || !strings.Contains(r.stdout, "hello from web-") {
			t.Errorf("%s: exit status %d\n%s%s", c.front, r.code, r.stdout, r.stderr)
		}
		want(t, r.stderr, c.says, "mode       proxy")
		if r := execConfined(t, c.front, "", "--mode", "namespace", "--", "true").try(t); r.code != 125 {
			t.Errorf("%s: only by a namespace: exit status %d\n%s", c.front, r.code, r.stderr)
		}
	}
}

// confined COMMAND... is a command under the seccomp filter that containers have.
func confined(_ context.Context, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := os.Unsetenv(roleVariable); err != nil {
		return err
	}
	return testseccomp.Exec(path, args, os.Environ())
}

// answered is the time that a command printed, in seconds of the epoch.
func answered(t *testing.T, out string) time.Time {
	t.Helper()
	for line := range strings.Lines(out) {
		var s float64
		if n, err := fmt.Sscanf(line, "%f", &s); n == 1 && err == nil && s > 1e9 {
			return time.UnixMicro(int64(s * 1e6))
		}
	}
	t.Fatalf("no time in\n%s", out)
	return time.Time{}
}

// TestExecShares has two steps of a pipeline use one tunnel, and a third with the
// environment of a Deployment.
func TestExecShares(t *testing.T) {
	join := func(args ...string) command { return execAsNobody(t, "", append([]string{"--join", "ci"}, args...)...) }
	t.Cleanup(func() { execAsNobody(t, "", "--leave", "ci").try(t) })
	first := join("--", "sh", "-c", "curl -sS --max-time 10 http://web.shop; exit 7").try(t)
	if first.code != 7 || !strings.Contains(first.stdout, "hello from web-") {
		t.Fatalf("exit status %d\n%s%s", first.code, first.stdout, first.stderr)
	}
	second := join("--", "curl", "-sS", "--max-time", "10", "http://web.shop").try(t)
	if second.code != 0 || strings.Contains(second.stderr, "handshake") {
		t.Errorf("exit status %d\n%s%s", second.code, second.stdout, second.stderr)
	}
	report(t, "exec --join: the first step, which connects", first.took.Round(time.Millisecond))
	report(t, "exec --join: the second step", second.took.Round(time.Millisecond))
	if peers := strings.Fields(kubectl("get", "peers", "-n", "podnet-system", "-o", "name").must(t)); len(peers) != 1 {
		t.Errorf("the steps have the peers %v", peers)
	}
	execAsNobody(t, "", "--leave", "ci").must(t)
	eventually(t, 10*time.Second, "the sandbox's peer goes", func() error {
		if left := kubectl("get", "peers", "-n", "podnet-system", "-o", "name").must(t); left != "" {
			return fmt.Errorf("left behind: %s", left)
		}
		return nil
	})
}
