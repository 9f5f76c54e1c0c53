package setup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// machine is a folder that looks like one.
func machine(t *testing.T, systemd bool) (o Options, called *[]string) {
	t.Helper()
	root := t.TempDir()
	program := filepath.Join(t.TempDir(), "podnet-helper")
	if err := os.WriteFile(program, []byte("the program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if systemd {
		if err := os.MkdirAll(filepath.Join(root, running), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	called = new([]string)
	return Options{Program: program, Prefix: "/usr/local", Root: root, Say: func(string) {}, Answers: func(context.Context) error { return nil }, Systemctl: func(_ context.Context, args ...string) error {
		*called = append(*called, strings.Join(args, " "))
		return nil
	}}, called
}

// tree lists the files of a machine.
func tree(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInstallAndRemove(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	o, called := machine(t, true)
	o.Operators = []string{me.Username}
	for range 2 { // the second time is an upgrade
		*called = nil
		if err := Install(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"/etc/podnet/helper.yaml", "/etc/systemd/system/podnet-helper-cleanup.service", "/etc/systemd/system/podnet-helper.service",
		"/etc/systemd/system/podnet-helper.socket", "/usr/local/libexec/podnet-helper",
	}
	if got := tree(t, o.Root); !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
	if got := *called; !slices.Equal(got, []string{"daemon-reload", "enable podnet-helper-cleanup.service", "enable --now podnet-helper.socket", "try-restart podnet-helper.service"}) {
		t.Errorf("systemctl %q", got)
	}
	text := read(t, o.at(config))
	if strings.Count(text, me.Username) != 1 || !strings.Contains(text, "kind: Helper") {
		t.Error(text)
	}
	unit := read(t, o.at("/etc/systemd/system/podnet-helper.service"))
	if !strings.Contains(unit, "ExecStart=/usr/local/libexec/podnet-helper serve") || strings.Contains(unit, "/usr/libexec") {
		t.Error(unit)
	}
	if info, err := os.Stat(o.at("/usr/local/libexec/podnet-helper")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	*called = nil
	for range 2 {
		if err := Remove(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if got := tree(t, o.Root); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if got := *called; !slices.Contains(got, "disable --now podnet-helper.service") || !slices.Contains(got, "daemon-reload") {
		t.Errorf("systemctl %q", got)
	}
}

// What cannot be done is said before anything is.
func TestNothingIsHalfInstalled(t *testing.T) {
	for name, spoil := range map[string]func(o *Options){
		"no program":       func(o *Options) { o.Program += "-not-there" },
		"nobody's name":    func(o *Options) { o.Operators = []string{"no-such-user-here"} },
		"a damaged config": func(o *Options) { write(t, o.at(config), "operators: [") },
		"an unknown key":   func(o *Options) { write(t, o.at(config), "apiVersion: podnet/v1\nkind: Helper\nroot: yes\n") },
	} {
		o, called := machine(t, true)
		spoil(&o)
		before := tree(t, o.Root)
		err := Install(t.Context(), o)
		var input *InputError
		if !errors.As(err, &input) || input.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		}
		if got := tree(t, o.Root); !slices.Equal(got, before) || len(*called) > 0 {
			t.Errorf("%s: there is %q now, and systemctl %q", name, got, *called)
		}
	}
}

// A service that does not start is not a success.
func TestServiceThatDoesNotAnswer(t *testing.T) {
	o, _ := machine(t, true)
	o.Answers = func(context.Context) error { return errors.New("connection refused") }
	err := Install(t.Context(), o)
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(hinted.Hint(), "journalctl") {
		t.Errorf("%v", err)
	}
}

// What a package has installed stays the package's.
func TestOfAPackage(t *testing.T) {
	o, called := machine(t, true)
	write(t, o.at("/usr/libexec/podnet-helper"), "the package's")
	write(t, o.at(config), "apiVersion: podnet/v1\nkind: Helper\noperators:\n  groups: [sudo]\n")
	before := tree(t, o.Root)
	me, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	o.Program, o.Operators = "", []string{me.Username}
	if err := Install(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if text := read(t, o.at(config)); !strings.Contains(text, "sudo") || !strings.Contains(text, me.Username) {
		t.Error(text)
	}
	var input *InputError
	if err := Remove(t.Context(), o); !errors.As(err, &input) {
		t.Errorf("the package's helper is removed: %v", err)
	}
	if got := tree(t, o.Root); !slices.Equal(got, before) || len(*called) > 0 {
		t.Errorf("there is %q, and was %q; systemctl %q", got, before, *called)
	}
}

func TestWithoutSystemd(t *testing.T) {
	o, called := machine(t, false)
	said := ""
	o.Say = func(text string) { said += text + "\n" }
	if err := Install(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, o.Root); len(got) != 2 || len(*called) > 0 || !strings.Contains(said, "/usr/local/libexec/podnet-helper serve") {
		t.Errorf("%q, systemctl %q, said %s", got, *called, said)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
