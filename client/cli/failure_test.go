package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

// TestFailuresAsJSON are one document on standard output, beside the two lines.
func TestFailuresAsJSON(t *testing.T) {
	m := fakemachine.New(t)
	m.Log = "/state/daemon.log"
	m.Fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "alice may not", Hint: "ask for it", Phase: "gateway"}
	for _, output := range []string{"json", "json-stream"} {
		r := m.Podnet("connect", "--wait", "-o", output)
		if r.Code != exit.Credentials || r.Stderr != "error: alice may not (in phase gateway)\nhint: ask for it\nlog: /state/daemon.log\n" {
			t.Errorf("%s: exit status %d: %s", output, r.Code, r.Stderr)
		}
		last := lastLine(r.Out)
		const want = `{"apiVersion":"podnet/v1","kind":"Error","code":"forbidden","message":"alice may not","hint":"ask for it","phase":"gateway","exitStatus":4,"log":"/state/daemon.log"}`
		if last != want || output == "json" && r.Out != want+"\n" {
			t.Errorf("%s: printed\n%s", output, r.Out)
		}
	}
	m.Podnet("connect").Want(t, exit.Credentials, "log: /state/daemon.log")
	var f caller.Failure
	if r := fakemachine.New(t).Podnet("steer", "list", "-o", "json"); json.Unmarshal([]byte(r.Out), &f) != nil || f.Kind != "Error" || f.ExitStatus != exit.NotConnected || r.Code != exit.NotConnected {
		t.Errorf("exit status %d: %s", r.Code, r.Out)
	}
	// Nobody who asked for text gets JSON, and what has told its own story adds nothing.
	if r := fakemachine.New(t).Podnet("connect", "--lease", "1s"); r.Out != "" {
		t.Errorf("printed %s", r.Out)
	}
	if r := fakemachine.New(t).Podnet("status", "-o", "json"); strings.Contains(r.Out, `"Error"`) {
		t.Errorf("printed %s", r.Out)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// TestProgressAsJSON is a line for each step, and the status with the last.
func TestProgressAsJSON(t *testing.T) {
	r := fakemachine.New(t).Podnet("connect", "--wait", "-o", "json-stream")
	r.Want(t, 0)
	var types []string
	var last localapi.Event
	for s := bufio.NewScanner(strings.NewReader(r.Out)); s.Scan(); {
		last = localapi.Event{}
		if err := json.Unmarshal(s.Bytes(), &last); err != nil {
			t.Fatalf("%v in %s", err, s.Text())
		}
		types = append(types, fmt.Sprint(last.Type))
	}
	if strings.Join(types, " ") != "phase done ready" || last.Status == nil || last.Status.State != localapi.Connected || r.Stderr != "" {
		t.Errorf("%s, %+v, and beside it %q", types, last.Status, r.Stderr)
	}
}

// TestNobodyIsAsked in a pipeline, whatever it pretends to be.
func TestNobodyIsAsked(t *testing.T) {
	m := fakemachine.New(t)
	m.Ask = func(context.Context, string) bool { t.Error("somebody was asked"); return true }
	m.Environ = []string{"CI=true"}
	m.Steering.Refuse = &localapi.Error{Code: localapi.CodeForbidden, Message: "no agent is let in", Hint: "--via service"}
	m.Steering.Instead = "web"
	m.Podnet("steer", "--detach", "deploy/web", "8080").Want(t, exit.Credentials, "hint: --via service")
}
