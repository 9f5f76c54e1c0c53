package outbound_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestExecConnects where nothing is connected, and leaves nothing.
func TestExecConnects(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"PODNET_AS=carol", "PODNET_AS_GROUP=devs"} // kubectl's
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7, "kill -9 $$": 137} {
		r := m.Podnet("exec", "-n", "shop", "--as", "deploy/web", "--path=apiserver", "--", "sh", "-c", script)
		if r.Code != want || want == 0 && r.Out != "from the command\n" || !strings.Contains(r.Stderr, "auth") {
			t.Errorf("%s: exit status %d, want %d\n%s%s", script, r.Code, want, r.Out, r.Stderr)
		}
		m.Podnet("status").Want(t, exit.NotConnected, "not connected")
	}
	if l := m.Last; !l.Hold || l.As != "deploy/web" || l.Path != "apiserver" || !slices.Equal(l.Namespaces, []string{"shop"}) || !slices.Equal(l.Kube.Flags["as"], []string{"carol"}) ||
		!slices.Equal(l.Kube.Flags["as-group"], []string{"devs"}) {
		t.Errorf("connected by %+v", l)
	}
	m.Podnet("exec", "--", "/nonexistent").Want(t, outbound.NotFound, "does not start")
	m.Podnet("exec", "--", "/etc/passwd").Want(t, outbound.NotRun, "does not start")
	m.Podnet("status").Want(t, exit.NotConnected)
	m.Fail = &localapi.Error{Code: localapi.CodeTimeout, Message: "no pod", Hint: "wait", Phase: "identity"}
	m.Podnet("exec", "--as", "deploy/web", "--", "true").Want(t, outbound.Failed, "error: no pod (in phase identity)")
}

// TestExecInASession uses it, and leaves it as it was.
func TestExecInASession(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	m.Podnet("exec", "--", "sh", "-c", "echo hello").Want(t, 0, "hello")
	if len(m.Steering.SentAs) != 0 {
		t.Errorf("sent as %+v", m.Steering.SentAs)
	}
	r := m.Podnet("exec", "--as", "deploy/web", "-n", "pay", "--", "sh", "-c", "exit 7")
	if as := m.Steering.SentAs; r.Code != 7 || len(as) != 1 || as[0].Target != "deploy/web" || as[0].Namespace != "pay" || !strings.Contains(r.Stderr, "deploy/web: 1 pod") {
		t.Errorf("exit status %d, %+v\n%s", r.Code, as, r.Stderr)
	}
	if left := m.Steering.Names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	m.Steering.Refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "leaves from deploy/db already", Hint: "podnet status"}
	ran := filepath.Join(t.TempDir(), "ran")
	m.Podnet("exec", "--as", "deploy/web", "--", "touch", ran).Want(t, outbound.Failed, "deploy/db")
	if all, _ := filepath.Glob(ran); len(all) != 0 {
		t.Error("the command ran as somebody else")
	}
	m.Podnet("status").Want(t, 0, "connected")
}

func TestExecIsInterrupted(t *testing.T) {
	m := fakemachine.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.When, m.Then = "going", interrupt
	r := m.PodnetContext(ctx, "exec", "--", "sh", "-c", "trap 'echo told; exit 3' TERM; echo going; while :; do sleep 0.01; done")
	if r.Code != 3 || !strings.Contains(r.Out, "told") {
		t.Errorf("exit status %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	m.Podnet("status").Want(t, exit.NotConnected)
	m.Never = true
	ctx, interrupt = context.WithCancel(t.Context())
	interrupt()
	if r := m.PodnetContext(ctx, "exec", "--", "true"); r.Code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
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
		m := fakemachine.New(t)
		m.Podnet(append([]string{"exec"}, strings.Fields(line)...)...).Want(t, exit.Usage, says)
		if m.Started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
	fakemachine.New(t).Podnet("connect", "--as", "web").Want(t, exit.Usage, "KIND/NAME")
	fakemachine.New(t).Podnet("connect", "--as-uid", "7").Want(t, exit.Usage, "--as-uid")
}
