package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// TestExecConnects where nothing is connected, and leaves nothing.
func TestExecConnects(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODNET_AS=carol", "PODNET_AS_GROUP=devs"} // kubectl's
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7, "kill -9 $$": 137} {
		r := m.podnet("exec", "-n", "shop", "--as", "deploy/web", "--path=apiserver", "--", "sh", "-c", script)
		if r.code != want || want == 0 && r.out != "from the command\n" || !strings.Contains(r.stderr, "auth") {
			t.Errorf("%s: exit status %d, want %d\n%s%s", script, r.code, want, r.out, r.stderr)
		}
		m.podnet("status").want(t, exit.NotConnected, "not connected")
	}
	if l := m.last; !l.Hold || l.As != "deploy/web" || l.Path != "apiserver" || !slices.Equal(l.Namespaces, []string{"shop"}) || !slices.Equal(l.Kube.Flags["as"], []string{"carol"}) ||
		!slices.Equal(l.Kube.Flags["as-group"], []string{"devs"}) {
		t.Errorf("connected by %+v", l)
	}
	m.podnet("exec", "--", "/nonexistent").want(t, exitNotFound, "does not start")
	m.podnet("exec", "--", "/etc/passwd").want(t, exitNotRun, "does not start")
	m.podnet("status").want(t, exit.NotConnected)
	m.fail = &localapi.Error{Code: localapi.CodeTimeout, Message: "no pod", Hint: "wait", Phase: "identity"}
	m.podnet("exec", "--as", "deploy/web", "--", "true").want(t, exitExec, "error: no pod (in phase identity)")
}

// TestExecInASession uses it, and leaves it as it was.
func TestExecInASession(t *testing.T) {
	m := newMachine(t)
	m.podnet("connect", "-n", "shop").want(t, 0)
	m.podnet("exec", "--", "sh", "-c", "echo hello").want(t, 0, "hello")
	if len(m.steering.as) != 0 {
		t.Errorf("sent as %+v", m.steering.as)
	}
	r := m.podnet("exec", "--as", "deploy/web", "-n", "pay", "--", "sh", "-c", "exit 7")
	if as := m.steering.as; r.code != 7 || len(as) != 1 || as[0].Target != "deploy/web" || as[0].Namespace != "pay" || !strings.Contains(r.stderr, "deploy/web: 1 pod") {
		t.Errorf("exit status %d, %+v\n%s", r.code, as, r.stderr)
	}
	if left := m.steering.names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	m.steering.refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "leaves from deploy/db already", Hint: "podnet status"}
	ran := filepath.Join(t.TempDir(), "ran")
	m.podnet("exec", "--as", "deploy/web", "--", "touch", ran).want(t, exitExec, "deploy/db")
	if all, _ := filepath.Glob(ran); len(all) != 0 {
		t.Error("the command ran as somebody else")
	}
	m.podnet("status").want(t, 0, "connected")
}

func TestExecIsInterrupted(t *testing.T) {
	m := newMachine(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.when, m.then = "going", interrupt
	r := m.podnetContext(ctx, "exec", "--", "sh", "-c", "trap 'echo told; exit 3' TERM; echo going; while :; do sleep 0.01; done")
	if r.code != 3 || !strings.Contains(r.out, "told") {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
	m.podnet("status").want(t, exit.NotConnected)
	m.never = true
	ctx, interrupt = context.WithCancel(t.Context())
	interrupt()
	if r := m.podnetContext(ctx, "exec", "--", "true"); r.code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.code, r.stderr)
	}
}

func TestBadExec(t *testing.T) {
	for line, says := range map[string]string{
		"":                               "which command",
		"npm test":                       "behind --",
		"--":                             "no command",
		"x -- true":                      "one thing too many",
		"--as web -- true":               "KIND/NAME",
		"--path pigeon -- true":          "auto, udp, apiserver",
		"--as-group devs -- true":        "--as-group",
		"--mode magic -- true":           "want auto, namespace",
		"-p 80 -- true":                  "want [ADDRESS:]PORT:PORT",
		"-p 1:2/sctp -- true":            "want [ADDRESS:]PORT:PORT",
		"-p x:2 -- true":                 "want [ADDRESS:]PORT:PORT",
		"--join a_b -- true":             "no name for a sandbox",
		"--leave ci -- true":             "takes no command",
		"-o yaml -- true":                "want table or json",
		"--container c -- true":          "--env-from",
		"--env-from web -- true":         "KIND/NAME",
		"--isolate --mode proxy -- true": "--isolate",
		"-p 1:2 --mode system -- true":   "--publish",
		"--join ci --mode tun -- true":   "--join",
	} {
		m := newMachine(t)
		m.podnet(append([]string{"exec"}, strings.Fields(line)...)...).want(t, exit.Usage, says)
		if m.started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
	newMachine(t).podnet("connect", "--as", "web").want(t, exit.Usage, "KIND/NAME")
	newMachine(t).podnet("connect", "--as-uid", "7").want(t, exit.Usage, "--as-uid")
}

func TestConnectAs(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODNET_AS=carol"}
	m.podnet("connect", "--as", "deploy/web").want(t, 0, "connected")
	if m.last.As != "deploy/web" || m.last.Hold || !slices.Equal(m.last.Kube.Flags["as"], []string{"carol"}) {
		t.Errorf("asked for %+v", m.last)
	}
	m.podnet("connect").want(t, exit.Conflict, "in another way")
}
