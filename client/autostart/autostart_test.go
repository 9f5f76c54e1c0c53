package autostart

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens")

// text is a plan as somebody would carry it out by hand.
func (p Plan) text() string {
	out := "# " + p.File + "\n" + p.Text
	for _, c := range []struct {
		when string
		all  [][]string
	}{{"on", p.On}, {"off", p.Off}, {"after", p.After}} {
		for _, args := range c.all {
			out += fmt.Sprintf("# %s: %s\n", c.when, strings.Join(args, " "))
		}
	}
	return out
}

func TestPlans(t *testing.T) {
	for goos, m := range map[string]Machine{
		"linux":  {GOOS: "linux", Home: "/home/ada", Program: "/opt/my tools/podnet", Path: "/usr/bin:/home/ada/100%/bin", Kubeconfig: `/home/ada/a"b`},
		"darwin": {GOOS: "darwin", Home: "/Users/ada", UID: 501, Program: "/opt/R&D/podnet", Path: "/usr/bin"},
	} {
		p, err := PlanFor(m)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", goos+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(p.text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || p.text() != string(want) {
			t.Errorf("%s:\n%s\nwant %v\n%s", goos, p.text(), err, want)
		}
	}
	if _, err := PlanFor(Machine{GOOS: "plan9", Home: "/usr/ada"}); err == nil {
		t.Error("a plan for an unknown system")
	}
	if _, err := PlanFor(Machine{GOOS: "linux"}); err == nil {
		t.Error("a plan for nobody")
	}
}

// TestPackagedUnit is what autostart writes, but for the user's variables.
func TestPackagedUnit(t *testing.T) {
	p, err := PlanFor(Machine{GOOS: "linux", Home: "/home/ada", Program: "/usr/bin/podnet"})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("..", "..", "deploy", "systemd", "user", "podnet.service")
	if *update {
		if err := os.WriteFile(name, []byte(p.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err := os.ReadFile(name); err != nil || string(raw) != p.Text {
		t.Errorf("%s: %v\n%s\nwant\n%s", name, err, raw, p.Text)
	}
}

// TestUnitIsOne: what systemd reads is what was meant.
func TestUnitIsOne(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "my tools", "podnet")
	if err := errors.Join(os.MkdirAll(filepath.Dir(program), 0o755), os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	p, err := PlanFor(Machine{GOOS: "linux", Home: dir, Program: program, Path: "/usr/bin:/a b/100%", Kubeconfig: `/a"b$c`})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(p.File), 0o755), os.WriteFile(p.File, []byte(p.Text), 0o644)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", p.File).CombinedOutput()
	if err != nil || strings.Contains(string(out), "podnet.service:") {
		t.Errorf("%v\n%s", err, out)
	}
}

// manager notes what it is told in place of a service manager.
func manager(t *testing.T, fail *error) (Manager, *[]string) {
	var told []string
	return Manager{Machine{GOOS: "linux", Home: t.TempDir(), UID: 1000, Program: "/usr/bin/podnet"}, func(_ context.Context, args []string) error {
		told = append(told, strings.Join(args[2:], " "))
		return *fail
	}}, &told
}

func TestOnAndOff(t *testing.T) {
	var fail error
	m, told := manager(t, &fail)
	is := func(want bool) {
		t.Helper()
		if on, err := m.On(); err != nil || on != want {
			t.Errorf("on: %v, %v, want %v", on, err, want)
		}
	}
	set := func(on bool) {
		t.Helper()
		if _, err := m.Set(t.Context(), on); err != nil {
			t.Error(err)
		}
		is(on)
	}
	set(false)
	if len(*told) != 0 {
		t.Errorf("told %q for nothing", *told)
	}
	set(true)
	set(true)
	set(false)
	want := "daemon-reload, enable --now podnet.service, daemon-reload, enable --now podnet.service, disable --now podnet.service, daemon-reload"
	if got := strings.Join(*told, ", "); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	// A package has brought the unit, and somebody has enabled it.
	p, err := PlanFor(m.Machine)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(p.Link), 0o755), os.Symlink("/usr/lib/systemd/user/podnet.service", p.Link))
	}
	if err != nil {
		t.Fatal(err)
	}
	is(true)
	set(false)
	fail = errors.New("no bus")
	if _, err := m.Set(t.Context(), true); err == nil || !strings.Contains(err.Error(), "no bus") {
		t.Errorf("without a service manager: %v", err)
	}
	is(false)
}
