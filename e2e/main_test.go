//go:build e2e

// Package e2e holds the tests that need the lab: a real Kubernetes, a laptop
// and a router on this machine. `make e2e` builds what they use.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// roleVariable makes the test binary, run again on a lab machine, act as one
// of the programs of roles instead of testing.
const roleVariable = "PODNET_E2E_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(run(m))
}

// The process is where its first thread is: `lab down` ends what is in the lab's
// networks. So no test's goroutine may take that thread elsewhere; see raw_test.go.
func init() { runtime.LockOSThread() }

// run brings up what the tests stand on. A lab that was up before stays up,
// with a freshly installed podnet in it.
func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: the lab makes network namespaces and needs root")
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()

	if host("bin/lab", "status").run(ctx) != nil {
		say("no lab is up: starting one")
		defer func() { _ = host("bin/lab", "down").stream(context.Background()) }()
	}
	if err := prepare(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		return 1
	}
	return m.Run()
}

// prepare brings a lab up as options say, with a freshly installed podnet in
// it and nobody connected.
func prepare(ctx context.Context, options ...string) error {
	for _, s := range []command{
		host(append([]string{"bin/lab", "up"}, options...)...),
		host("bin/lab", "load", "bin/podnet-gateway.tar"),
		host("bin/lab", "load", "bin/podnet-agent.tar"),
	} {
		if err := s.stream(ctx); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	for _, m := range []machine{admin, alice, bob} {
		_ = m.podnet("disconnect", "--all").run(ctx)
	}
	_ = admin.podnet("uninstall").run(ctx)
	return install(ctx, usual...)
}

// usual are the flags that most tests want the gateway installed with.
var usual = []string{"--node-port", "31820"}

// install puts the gateway into the lab's cluster and lets alice and bob use it.
func install(ctx context.Context, flags ...string) error {
	return installFrom(ctx, filepath.Join(top, "bin"), flags...)
}

// installFrom does it with the programs and images of a folder.
func installFrom(ctx context.Context, bin string, flags ...string) error {
	admin := admin
	admin.programs = bin
	images := []string{"install", "--image-pull-policy", "Never"}
	for flag, program := range map[string]string{"--image": "podnet-gateway", "--agent-image": "podnet-agent"} {
		name, err := os.ReadFile(filepath.Join(bin, program+".image"))
		if err != nil {
			return err
		}
		images = append(images, flag, strings.TrimSpace(string(name)))
	}
	for _, s := range []command{
		admin.podnet(append(images, flags...)...),
		host("bin/lab", "grant"),
	} {
		if err := s.stream(ctx); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// labFile is a file of the lab's state.
func labFile(elem ...string) string {
	dir := os.Getenv("PODNET_LAB_STATE")
	if dir == "" {
		dir = "/var/lib/podnet-lab"
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "e2e: "+format+"\n", args...)
}

// top is the root of the repository, where bin/ is.
var top = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return filepath.Dir(strings.TrimSuffix(dir, "/"))
}()
