package cli_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestADay(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("status").Want(t, exit.NotConnected, "not connected")
	m.Podnet("disconnect", "--all").Want(t, 0, "not connected")
	if m.Started != 0 || m.Cleaned != 1 {
		t.Errorf("looking started %d daemons, cleaned %d times", m.Started, m.Cleaned)
	}
	r := m.Podnet("connect", "-n", "shop", "-n", "pay", "--path", "apiserver", "--context", "kind")
	r.Want(t, 0, "connected", "kind as alice", "shop, pay", "0.1s  auth")
	if strings.Contains(r.Stderr, "\x1b") || strings.Contains(r.Out, "\x1b") {
		t.Error("escape sequences where there is no terminal")
	}
	if m.Last.Path != "apiserver" || m.Last.LeaseSeconds != 300 || m.Last.GatewayNamespace != "podnet-system" || m.Last.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", m.Last)
	}
	m.Podnet("connect", "-n", "shop,pay", "--path=apiserver", "--context=kind").Want(t, 0, "connected")
	m.Podnet("connect", "-n", "other").Want(t, exit.Conflict, "podnet disconnect")
	m.Podnet("status").Want(t, 0, "connected")
	m.Podnet("version").Want(t, 0, "podnet ", "daemon ")
	m.Podnet("disconnect").Want(t, 0, "disconnected")
	m.Podnet("status").Want(t, exit.NotConnected, "not connected")
	if m.Started != 1 {
		t.Errorf("%d daemons were started", m.Started)
	}
}

func TestFailuresHaveTheirStatus(t *testing.T) {
	for code, want := range map[string]int{
		localapi.CodeForbidden: 4, localapi.CodeCredentials: 4, localapi.CodeTimeout: 5, localapi.CodeUnreachable: 6,
		localapi.CodePrivilege: 7, localapi.CodeConflict: 8, localapi.CodeDNS: 9, localapi.CodeInternal: 1, localapi.CodeNotInstalled: 1,
	} {
		m := fakemachine.New(t)
		m.Fail = &localapi.Error{Code: code, Message: "it went wrong", Hint: "do this", Phase: "gateway"}
		m.Podnet("connect").Want(t, want, "error: it went wrong (in phase gateway)\nhint: do this\n")
	}
	m := fakemachine.New(t)
	m.Fail = errors.New("something nobody thought of")
	m.Podnet("connect").Want(t, 1, "something nobody thought of")
}

func TestWaitHasAnEnd(t *testing.T) {
	m := fakemachine.New(t)
	m.Never = true
	m.Podnet("connect", "--wait=50ms").Want(t, exit.Timeout, "50ms")
}

func TestInterrupt(t *testing.T) {
	m := fakemachine.New(t)
	m.Never = true
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, interrupt)
	if r := m.PodnetContext(ctx, "connect"); r.Code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		says string
	}{
		{"conect", "conect"},
		{"connect --path pigeon", "auto, udp, apiserver"},
		{"connect --addresses none", "auto, direct, virtual"},
		{"map 10.96.0.0 10.244.0.0", "one address or prefix, not 2"},
		{"map web.shop", "no address and no prefix"},
		{"map -o xml", "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH"},
		{"connect -n No_Such!", "No_Such!"},
		{"connect --gateway-namespace UPPER", "UPPER"},
		{"connect --lease 5s", "1m0s to 15m0s"},
		{"connect -A -n a -n b", "--all-namespaces"},
		{"connect shop", "there is no profile shop"},
		{"connect --also-route 10.20.0.1/16", "did you mean 10.20.0.0/16?"},
		{"exec --also-domain internal -- true", "two labels"},
		{"connect --never-route all", "want a prefix"},
		{"connect --nonsense", "--nonsense"},
		{"status -o xml", "xml"},
		{"doctor -o name", "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH"},
		{"status -w -o name", "--watch"},
		{"status --progress loud", "want auto, plain, json or none"},
		{"completion tcsh", "bash, zsh, fish or powershell"},
		{"doctor -n No_Such!", "No_Such!"},
		{"install -o yaml", "--dry-run"},
		{"install -o name", "want yaml or json"},
		{"install --replicas many", "many"},
	} {
		m := fakemachine.New(t)
		m.Podnet(strings.Fields(c.args)...).Want(t, exit.Usage, c.says)
		if m.Started != 0 {
			t.Errorf("%s started a daemon", c.args)
		}
	}
}

func TestEveryFlagHasAVariable(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"PODNET_NAMESPACE=shop,pay", "PODNET_PATH=udp", "PODNET_CONTEXT=kind", "PODNET_LEASE=90s"}
	m.Podnet("connect", "--path", "auto").Want(t, 0) // a flag wins over its variable
	if m.Last.Path != "auto" || strings.Join(m.Last.Namespaces, " ") != "shop pay" || m.Last.LeaseSeconds != 90 || m.Last.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", m.Last)
	}
	m = fakemachine.New(t)
	m.Environ = []string{"PODNET_LEASE=soon"}
	m.Podnet("connect").Want(t, exit.Usage, "PODNET_LEASE")
	m = fakemachine.New(t)
	m.Environ = []string{"CI=true"}
	m.Podnet("connect").Want(t, 0)
	if m.Last.LeaseSeconds != 120 {
		t.Errorf("a job's lease is %d s", m.Last.LeaseSeconds)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "connect --help", "completion bash"} {
		fakemachine.New(t).Podnet(strings.Fields(args)...).Want(t, 0, "podnet")
	}
}
