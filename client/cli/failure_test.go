package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// TestFailuresAsJSON are one document on standard output, beside the two lines.
func TestFailuresAsJSON(t *testing.T) {
	m := newMachine(t)
	m.log = "/state/daemon.log"
	m.fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "alice may not", Hint: "ask for it", Phase: "gateway"}
	for _, output := range []string{"json", "json-stream"} {
		r := m.podnet("connect", "--wait", "-o", output)
		if r.code != exit.Credentials || r.stderr != "error: alice may not (in phase gateway)\nhint: ask for it\nlog: /state/daemon.log\n" {
			t.Errorf("%s: exit status %d: %s", output, r.code, r.stderr)
		}
		last := lastLine(r.out)
		const want = `{"apiVersion":"podnet/v1","kind":"Error","code":"forbidden","message":"alice may not","hint":"ask for it","phase":"gateway","exitStatus":4,"log":"/state/daemon.log"}`
		if last != want || output == "json" && r.out != want+"\n" {
			t.Errorf("%s: printed\n%s", output, r.out)
		}
	}
	m.podnet("connect").want(t, exit.Credentials, "log: /state/daemon.log")
	var f caller.Failure
	if r := newMachine(t).podnet("steer", "list", "-o", "json"); json.Unmarshal([]byte(r.out), &f) != nil || f.Kind != "Error" || f.ExitStatus != exit.NotConnected || r.code != exit.NotConnected {
		t.Errorf("exit status %d: %s", r.code, r.out)
	}
	// Nobody who asked for text gets JSON, and what has told its own story adds nothing.
	if r := newMachine(t).podnet("connect", "--lease", "1s"); r.out != "" {
		t.Errorf("printed %s", r.out)
	}
	if r := newMachine(t).podnet("status", "-o", "json"); strings.Contains(r.out, `"Error"`) {
		t.Errorf("printed %s", r.out)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// TestProgressAsJSON is a line for each step, and the status with the last.
func TestProgressAsJSON(t *testing.T) {
	r := newMachine(t).podnet("connect", "--wait", "-o", "json-stream")
	r.want(t, 0)
	var types []string
	var last localapi.Event
	for s := bufio.NewScanner(strings.NewReader(r.out)); s.Scan(); {
		last = localapi.Event{}
		if err := json.Unmarshal(s.Bytes(), &last); err != nil {
			t.Fatalf("%v in %s", err, s.Text())
		}
		types = append(types, fmt.Sprint(last.Type))
	}
	if strings.Join(types, " ") != "phase done ready" || last.Status == nil || last.Status.State != localapi.Connected || r.stderr != "" {
		t.Errorf("%s, %+v, and beside it %q", types, last.Status, r.stderr)
	}
}

// TestNobodyIsAsked in a pipeline, whatever it pretends to be.
func TestNobodyIsAsked(t *testing.T) {
	m := newMachine(t)
	m.ask = func(context.Context, string) bool { t.Error("somebody was asked"); return true }
	m.environ = []string{"CI=true"}
	m.steering.refuse = &localapi.Error{Code: localapi.CodeForbidden, Message: "no agent is let in", Hint: "--via service"}
	m.steering.instead = "web"
	m.podnet("steer", "--detach", "deploy/web", "8080").want(t, exit.Credentials, "hint: --via service")
}

func TestEphemeral(t *testing.T) {
	for line, want := range map[string]int32{
		"":                          300,
		"--ephemeral":               120,
		"--ephemeral --lease 60s":   60,
		"--lease 10m --ephemeral":   120,
		"--ephemeral --lease 10m":   120,
		"--ephemeral=false":         300,
		"--lease 90s":               90,
		"CI=true":                   120,
		"CI=true --lease 5m":        300,
		"PODNET_EPHEMERAL=true":     120,
		"PODNET_EPHEMERAL=0 -n pay": 300,
	} {
		m := newMachine(t)
		words := strings.Fields(line)
		if len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "-") {
			m.environ, words = words[:1], words[1:]
		}
		m.podnet(append([]string{"connect"}, words...)...).want(t, 0)
		if m.last.LeaseSeconds != want {
			t.Errorf("%s: a lease of %d s", line, m.last.LeaseSeconds)
		}
	}
	newMachine(t).podnet("connect", "--ephemeral=perhaps").want(t, exit.Usage, "perhaps")
}
