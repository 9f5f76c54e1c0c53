//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is one of the lab's machines, seen as one of its users, who has root's
// rights there unless he is an ordinary one.
type machine struct {
	name, user string
	ordinary   bool
	booted     *system // what is booted there for a test, and meant in place of the machine
	programs   string  // folder of our programs that are used there; empty: the repository's bin
}

var (
	laptop1 = machine{name: "laptop"}
	laptop2 = machine{name: "laptop2"}
	admin   = laptop1.as("admin")
	alice   = laptop1.as("alice")
	bob     = laptop2.as("bob")
)

func (m machine) as(user string) machine { m.user = user; return m }

// sh is a command for the machine's shell.
func (m machine) sh(script string) command { return m.cmd("sh", "-c", script) }

// podnet is a run of podnet on the machine.
func (m machine) podnet(args ...string) command {
	return m.cmd(append([]string{m.program("podnet")}, args...)...)
}

// program is where the machine has a program of ours.
func (m machine) program(name string) string {
	if m.booted != nil {
		return "/usr/bin/" + name // from the package
	}
	return filepath.Join(cmp.Or(m.programs, filepath.Join(top, "bin")), name)
}

// folder is one that the test and the machine see at the same place, for the time of
// the test. Ordinary users may go there, unlike into t.TempDir.
func (m machine) folder(t testing.TB) string {
	t.Helper()
	parent := ""
	if m.booted != nil {
		parent = m.booted.shared
	}
	dir, err := os.MkdirTemp(parent, "podnet-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// role runs this test binary on the machine as one of the programs of roles.
func (m machine) role(role string, args ...string) command {
	return m.cmd(playing(role, args...)...)
}

// playing is the command line that runs this test binary as one of the programs of roles.
func playing(role string, args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{"env", roleVariable + "=" + role, self}, args...)
}

func (m machine) cmd(args ...string) command {
	if m.booted != nil {
		return m.booted.command(m, args)
	}
	lab := []string{"bin/lab", "exec", m.name}
	if m.user != "" {
		lab = append(lab, "--user", m.user)
	}
	if m.ordinary {
		lab = append(lab, "--unprivileged")
	}
	return command{args: append(append(lab, "--"), args...), shown: strings.Join(args, " "), where: m.name}
}

// command is something to run on the machine that runs the tests.
type command struct {
	args  []string
	shown string
	where string
}

func host(args ...string) command {
	return command{args: args, shown: strings.Join(args, " "), where: "host"}
}

func (c command) String() string { return c.where + ": " + c.shown }

func (c command) exec(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	if !filepath.IsAbs(c.args[0]) && strings.Contains(c.args[0], "/") {
		cmd.Path = filepath.Join(top, c.args[0])
	}
	cmd.Dir = top
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (c command) run(ctx context.Context) error { return c.exec(ctx).Run() }

// stream shows the command's talk as it comes.
func (c command) stream(ctx context.Context) error {
	cmd := c.exec(ctx)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// try runs the command and gives what it did, whatever that was.
func (c command) try(t testing.TB) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // also in a Cleanup, where t.Context is over
	defer cancel()
	var out, errs bytes.Buffer
	cmd := c.exec(ctx)
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	r := result{out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(start)}
	if err != nil && r.code <= 0 {
		t.Fatalf("%s: %v\n%s%s", c, err, r.stdout, r.stderr)
	}
	return r
}

// must runs the command and gives its trimmed stdout; the test ends if it fails.
func (c command) must(t testing.TB) string {
	t.Helper()
	r := c.try(t)
	if r.code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", c, r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// mustFail runs a command that has to fail and gives how it did.
func (c command) mustFail(t testing.TB) result {
	t.Helper()
	r := c.try(t)
	if r.code == 0 {
		t.Fatalf("%s: succeeded, and should not have\n%s%s", c, r.stdout, r.stderr)
	}
	return r
}

// kubectl runs kubectl as the cluster's admin on the laptop's side.
func kubectl(args ...string) command {
	return admin.cmd(append([]string{"kubectl"}, args...)...)
}

// write makes a file that every machine can read.
func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what to hold, looking every 100 ms.
func eventually(t testing.TB, within time.Duration, what string, holds func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := holds()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ends waits until something works no more, and tells when it last did.
func ends(t testing.TB, within time.Duration, what string, works func() bool) (last time.Time) {
	t.Helper()
	last = time.Now()
	eventually(t, within, what, func() error {
		if works() {
			last = time.Now()
			return errors.New("it still works")
		}
		return nil
	})
	return last
}

// connect joins the machine and leaves it again when the test ends.
func (m machine) connect(t testing.TB, args ...string) {
	t.Helper()
	t.Cleanup(func() { m.podnet("disconnect", "--all").try(t) })
	m.podnet(append([]string{"connect", "--wait"}, args...)...).must(t)
}

// want fails the test unless got contains each of the pieces.
func want(t testing.TB, got string, pieces ...string) {
	t.Helper()
	for _, p := range pieces {
		if !strings.Contains(got, p) {
			t.Errorf("no %q in:\n%s", p, got)
		}
	}
}

// report prints a figure in the test's output. One that shows a promise of
// docs/promises.md begins with its number, or several: "[6] Peer deleted to ...". One
// with a limit is for package measure.
func report(t testing.TB, what string, measured any) {
	t.Helper()
	t.Logf("MEASURED %-60s  %v", what, measured)
}
