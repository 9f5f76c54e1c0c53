package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

// Every command that prints things prints them in every form it says it knows.
func TestForms(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	m.Podnet("status", "-o", "name").Want(t, 0)
	for command, forms := range map[string][]string{
		"status": answer.ListForms, "connect -n shop": answer.ListForms, "steer list": answer.ListForms, "expose list": answer.ListForms, "export list": answer.ListForms,
		"version": answer.FactForms, "doctor": answer.FactForms, "wait": answer.ListForms,
	} {
		for _, form := range forms {
			r := m.Podnet(append(strings.Fields(command), "-o", form)...)
			r.Want(t, 0)
			var v map[string]any
			err := json.Unmarshal([]byte(r.Out), &v)
			switch {
			case form == answer.JSON && (err != nil || v["apiVersion"] != localapi.APIVersion || v["kind"] == ""):
				t.Errorf("%s -o json: %v in %s", command, err, r.Out)
			case form == answer.YAML && !strings.Contains(r.Out, "apiVersion: "+localapi.APIVersion+"\n"):
				t.Errorf("%s -o yaml:\n%s", command, r.Out)
			case form == answer.Table && r.Out != m.Podnet(strings.Fields(command)...).Out && command != "status" && command != "connect -n shop" && command != "wait":
				t.Errorf("%s -o table is not what %s prints", command, command)
			case (command == "status" || strings.HasPrefix(command, "connect")) && form == answer.Name && r.Out != "kind\n":
				t.Errorf("%s -o name: %q", command, r.Out)
			case command == "status" && form == answer.Wide && !strings.Contains(r.Out, "SESSION"):
				t.Errorf("%s -o wide:\n%s", command, r.Out)
			}
		}
	}
}

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
