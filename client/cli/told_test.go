package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestQuietSaysWhatGoesWrongOnly(t *testing.T) {
	m := fakemachine.New(t)
	for _, args := range []string{"connect -q -n shop", "namespace -q shop", "disconnect --quiet", "install -q", "uninstall -q"} {
		r := m.Podnet(strings.Fields(args)...)
		if r.Want(t, 0); r.Out+r.Stderr != "" {
			t.Errorf("%s says %q %q", args, r.Out, r.Stderr)
		}
	}
	m.Environ = []string{"PODNET_QUIET=true"}
	m.Fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "no", Hint: "ask"}
	if r := m.Podnet("connect"); r.Stderr != "error: no\nhint: ask\n" {
		t.Errorf("%q", r.Stderr)
	}
	m.Podnet("status", "-q").Want(t, exit.NotConnected, "not connected") // which was asked for
}

func TestProgressForPrograms(t *testing.T) {
	m := fakemachine.New(t)
	r := m.Podnet("connect", "--progress", "json")
	r.Want(t, 0)
	var types []string
	for line := range strings.Lines(r.Stderr) {
		var e localapi.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		types = append(types, string(e.Type))
	}
	if got := strings.Join(types, " "); got != "phase done ready" {
		t.Errorf("events %s", got)
	}
	if r := fakemachine.New(t).Podnet("connect", "--progress", "none"); r.Stderr != "" {
		t.Errorf("%q", r.Stderr)
	}
	if r := fakemachine.New(t).Podnet("connect", "-o", "json", "--progress", "plain"); !strings.Contains(r.Stderr, "auth") {
		t.Errorf("%q", r.Stderr)
	}
}
