//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// inBash is what bash does when somebody presses the tab key behind a line.
const inBash = `
. /usr/share/bash-completion/bash_completion
. <(podnet completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=9
COMP_POINT=${#COMP_LINE}
__start_podnet 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"`

// TestAShellKnowsTheCluster presses the tab key in bash, fish and behind kubectl, and
// gets names of the cluster: by the user's kubeconfig, and by the session once there
// is one.
func TestAShellKnowsTheCluster(t *testing.T) {
	path := "PATH=" + filepath.Join(top, "bin") + ":" + os.Getenv("PATH")
	var slowest time.Duration
	as := admin
	bash := func(line string) []string {
		t.Helper()
		r := as.cmd(append([]string{"env", path, "bash", "-c", inBash, "bash"}, strings.Split("podnet "+line, " ")...)...).try(t)
		slowest = max(slowest, r.took)
		return strings.Fields(r.stdout)
	}
	tab := func(line, wanted string) {
		t.Helper()
		if got := bash(line); !slices.Contains(got, wanted) {
			t.Errorf("podnet %s: %q, without %s", line, got, wanted)
		}
	}
	tab("conn", "connect")
	tab("connect -n sh", "shop")
	as = alice // who may not list namespaces
	tab("steer -n shop svc/w", "svc/web")
	tab("steer -n shop deploy/", "deploy/web")
	if got := bash("steer stop "); len(got) > 0 {
		t.Errorf("rules without a session: %q", got)
	}
	if r := alice.podnet("status").try(t); r.code != 3 {
		t.Errorf("a key has started something: %s%s", r.stdout, r.stderr)
	}

	alice.connect(t, "-n", "shop")
	tab("dns query web", "web.shop")
	tab("steer svc/web ", "80")
	session := alice.podnet("status", "-o", "name").must(t)
	tab("disconnect ", session)

	if got := alice.cmd("env", path, "fish", "--no-config", "-c", "podnet completion fish | source; complete --do-complete 'podnet steer -n shop svc/w'").must(t); !strings.HasPrefix(got, "svc/web") {
		t.Errorf("fish: %q", got)
	}

	// As kubectl's plugin.
	dir := t.TempDir()
	for name, to := range map[string]string{"kubectl-podnet": "bin/podnet", "kubectl_complete-podnet": "deploy/krew/kubectl_complete-podnet"} {
		if err := os.Symlink(filepath.Join(top, to), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	plugin := "PATH=" + dir + ":" + os.Getenv("PATH")
	want(t, alice.cmd("env", plugin, "kubectl", "podnet", "connect", "--help").must(t), "kubectl podnet connect -n shop -n pay")
	want(t, alice.cmd("env", plugin, "kubectl", "podnet", "status").must(t), "connected")
	want(t, "\n"+alice.cmd("env", plugin, "kubectl", "__complete", "podnet", "steer", "-n", "shop", "svc/w").must(t), "\nsvc/web")
	report(t, "the slowest answer to the tab key in bash, bash's start included (under 1.5 s)", slowest.Round(time.Millisecond))
}

// TestVersionsOfBothSides: the gateway says its release, and a client of the same one
// has nothing to warn of.
func TestVersionsOfBothSides(t *testing.T) {
	alice.connect(t, "-n", "shop")
	r := alice.podnet("version", "-o", "json").try(t)
	var v struct {
		Version  string
		Daemon   struct{ Version string }
		Gateways []struct{ Pod, Version string }
		Warnings []any
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	if v.Version == "" || v.Daemon.Version != v.Version || len(v.Gateways) != 1 || v.Gateways[0].Version != v.Version || len(v.Warnings) > 0 {
		t.Errorf("%s", r.stdout)
	}
}
