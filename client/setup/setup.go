// Package setup puts podnet-helper on this machine, as a service of systemd where
// that runs, and takes it off again. It looks at everything before it changes
// anything.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"podnet.dev/client/helper/serve"
	"podnet.dev/deploy/systemd"
)

// Options say what to set up and where.
type Options struct {
	// Program is the podnet-helper to install; empty: the one that a package has
	// installed, with its units, stays, and only its operators are seen to.
	Program string
	// Prefix is where it goes, below libexec: "/usr/local".
	Prefix string
	// Operators are users who may have sessions beside those who may already.
	Operators []string
	// Answers asks the helper that systemd runs then, so that a service that does not
	// start is known at once.
	Answers func(ctx context.Context) error
	// Say tells of each step.
	Say func(string)

	// Root is put before every path, for tests.
	Root string
	// Systemctl calls the program of that name; nil: the host's own.
	Systemctl func(ctx context.Context, args ...string) error
}

const (
	unitDir   = "/etc/systemd/system"
	config    = "/etc/podnet/helper.yaml"
	running   = "/run/systemd/system" // see sd_booted(3)
	configDir = "/etc/podnet"
)

// target is where the program goes.
func (o Options) target() string { return filepath.Join(o.Prefix, "libexec", "podnet-helper") }

func (o Options) at(path string) string { return filepath.Join(o.Root, path) }

func (o Options) systemctl(ctx context.Context, args ...string) error {
	if o.Systemctl != nil {
		return o.Systemctl(ctx, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Packaged says whether a package has installed podnet-helper here.
func (o Options) Packaged() bool {
	_, err := os.Stat(o.at(systemd.Program))
	return err == nil
}

func (o Options) booted() bool {
	_, err := os.Stat(o.at(running))
	return err == nil
}

// InputError says what is wrong with what was asked for, and what to do.
type InputError struct{ Message, Advice string }

func (e *InputError) Error() string { return e.Message }
func (e *InputError) Code() string  { return "usage" }
func (e *InputError) Hint() string  { return e.Advice }

// Install does it, and brings what is there up to date. A second time changes
// nothing but what is new.
func Install(ctx context.Context, o Options) error {
	if o.Program == "" {
		return o.admit()
	}
	program, err := os.ReadFile(o.Program)
	if err != nil {
		return &InputError{"there is no podnet-helper to install: " + err.Error(), "put it beside podnet, or name it: --helper PATH"}
	}
	operators, err := o.operators()
	if err != nil {
		return err
	}
	text, err := operators.Text()
	if err != nil {
		return err
	}
	type file struct {
		path    string
		content []byte
		mode    fs.FileMode
	}
	files := []file{{o.target(), program, 0o755}, {config, text, 0o644}}
	if o.booted() {
		units := systemd.Units(o.target())
		for _, name := range []string{systemd.Socket, systemd.Service, systemd.Cleanup} {
			files = append(files, file{filepath.Join(unitDir, name), []byte(units[name]), 0o644})
		}
	}
	for _, f := range files {
		if err := replace(o.at(f.path), f.content, f.mode); err != nil {
			return err
		}
		o.Say(f.path)
	}
	if !o.booted() {
		o.Say("this machine does not run systemd: have its own service manager run, as root, " + o.target() + " serve")
		return nil
	}
	for _, args := range [][]string{
		{"daemon-reload"}, {"enable", systemd.Cleanup}, {"enable", "--now", systemd.Socket}, {"try-restart", systemd.Service},
	} {
		if err := o.systemctl(ctx, args...); err != nil {
			return err
		}
		o.Say("systemctl " + strings.Join(args, " "))
	}
	if err := o.Answers(ctx); err != nil {
		return &serviceError{err}
	}
	return nil
}

// serviceError says that all is installed, and does not work.
type serviceError struct{ err error }

func (e *serviceError) Error() string {
	return "podnet-helper is installed and does not answer: " + e.err.Error()
}
func (e *serviceError) Unwrap() error { return e.err }
func (e *serviceError) Code() string  { return "privilege" }
func (e *serviceError) Hint() string {
	return "journalctl -u podnet-helper says why; podnet setup --remove takes it off again"
}

// admit adds the operators, whom the helper reads of at each connection.
func (o Options) admit() error {
	operators, err := o.operators()
	if err != nil {
		return err
	}
	text, err := operators.Text()
	if err != nil {
		return err
	}
	if err := replace(o.at(config), text, 0o644); err != nil {
		return err
	}
	o.Say(config)
	return nil
}

// operators are those of the file that is there, and those to add.
func (o Options) operators() (serve.Operators, error) {
	var all serve.Operators
	text, err := os.ReadFile(o.at(config))
	if err == nil {
		all, err = serve.ParseOperators(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return all, &InputError{config + ": " + err.Error(), "mend or remove that file"}
	}
	for _, name := range o.Operators {
		if _, err := user.Lookup(name); err != nil {
			if _, err := user.LookupId(name); err != nil {
				return all, &InputError{fmt.Sprintf("there is no user %s on this machine", name), "--operator NAME"}
			}
		}
		if !slices.Contains(all.Operators.Users, name) {
			all.Operators.Users = append(all.Operators.Users, name)
		}
	}
	return all, nil
}

// Remove takes everything off. What is not there is no matter.
func Remove(ctx context.Context, o Options) error {
	if _, err := os.Stat(o.at(o.target())); err != nil && o.Packaged() {
		return &InputError{"podnet-helper has come with a package of this system's", "remove that package: apt remove podnet, dnf remove podnet"}
	}
	var errs []error
	if o.booted() {
		for _, name := range []string{systemd.Socket, systemd.Service, systemd.Cleanup} {
			if _, err := os.Stat(o.at(filepath.Join(unitDir, name))); err == nil {
				errs = append(errs, o.systemctl(ctx, "disable", "--now", name))
			}
		}
	}
	for _, name := range []string{systemd.Socket, systemd.Service, systemd.Cleanup} {
		errs = append(errs, o.remove(filepath.Join(unitDir, name)))
	}
	if o.booted() {
		errs = append(errs, o.systemctl(ctx, "daemon-reload"))
	}
	errs = append(errs, o.remove(o.target()), o.remove(config))
	if err := os.Remove(o.at(configDir)); err == nil {
		o.Say(configDir)
	} // else somebody else has something there
	return errors.Join(errs...)
}

func (o Options) remove(path string) error {
	err := os.Remove(o.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		o.Say(path)
	}
	return err
}

// replace writes a file as one step: the program may run.
func replace(path string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
