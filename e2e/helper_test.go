//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// plain is the machine seen as a user without root's rights.
func (m machine) plain() machine { m.ordinary = true; return m }

// aHelper is podnet-helper on a laptop, as its service manager would run it.
type aHelper struct {
	t       *testing.T
	on      machine
	program string
	run     *exec.Cmd
}

// helper installs podnet-helper by podnet setup for the time of a test, and starts it.
func (m machine) helper(t *testing.T, operator string) *aHelper {
	t.Helper()
	const prefix = "/run/podnet-test" // the laptop's own; /usr is everybody's
	m.podnet("setup", "--operator", operator, "--prefix", prefix).must(t)
	t.Cleanup(func() { m.podnet("setup", "--remove", "--prefix", prefix).must(t) })
	h := &aHelper{t: t, on: m, program: filepath.Join(prefix, "libexec/podnet-helper")}
	h.start()
	t.Cleanup(func() { h.end(syscall.SIGTERM) })
	return h
}

// start starts it with the capabilities that its unit has, and no others.
func (h *aHelper) start() {
	h.t.Helper()
	unit, err := os.ReadFile(filepath.Join(top, "deploy/systemd/podnet-helper.service"))
	if err != nil {
		h.t.Fatal(err)
	}
	bound := "-all"
	for _, c := range strings.Fields(strings.TrimPrefix(lineWith(string(unit), "CapabilityBoundingSet="), "CapabilityBoundingSet=")) {
		bound += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	if bound == "-all" {
		h.t.Fatal("the unit names no capabilities")
	}
	h.run = h.on.cmd("setpriv", "--bounding-set", bound, "--inh-caps=-all", "--no-new-privs", h.program, "serve").exec(context.Background())
	log := filepath.Join(h.t.TempDir(), "helper.log")
	out, err := os.Create(log)
	if err != nil {
		h.t.Fatal(err)
	}
	h.run.Stdout, h.run.Stderr = out, out
	if err := h.run.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = out.Close()
		if text, err := os.ReadFile(log); err == nil && h.t.Failed() {
			h.t.Logf("podnet-helper said:\n%s", text)
		}
	})
	eventually(h.t, 5*time.Second, "podnet-helper answers", func() error {
		return h.on.sh("grep -q /run/podnet/helper.sock /proc/net/unix").run(context.Background())
	})
}

// end ends it by a signal, and waits.
func (h *aHelper) end(by syscall.Signal) {
	_ = h.run.Process.Signal(by)
	_ = h.run.Wait()
}

// TestHelperKilledAtRandom kills podnet-helper, an ordinary user's daemon, his tray and
// his command line with -9, in the middle of whatever they do. The laptop is as before
// with nobody's help.
func TestHelperKilledAtRandom(t *testing.T) {
	rounds := 12
	if long {
		rounds = 200
	}
	random := seeded(t)
	h, user := admin.helper(t, "alice"), alice.plain()
	connect, disconnect := user.podnet("connect", "--wait", "-n", "shop"), user.podnet("disconnect", "--all")
	t.Cleanup(func() {
		disconnect.try(t)
		kubectl("delete", "peers,accesses", "-A", "--all").try(t)
	})
	joining, leaving := took(t, connect), took(t, disconnect)
	before := alice.snapshot(t)
	var slowest time.Duration
	for round := range rounds {
		when, usual := [...]string{"idle", "connecting", "connected", "disconnecting"}[round%4], 300*time.Millisecond
		whom := [...][]string{{"helper"}, {"daemon"}, {"helper", "daemon"}, {"daemon", "helper"}, {"cli", "helper"}, {"cli", "daemon"},
			{"tray"}, {"tray", "helper"}, {"daemon", "tray"}}[random.IntN(9)]
		tray := user.cmd(user.program("podnet-tray")).exec(context.Background()) // which waits for a desktop, and looks at the daemon
		if err := tray.Start(); err != nil {
			t.Fatal(err)
		}
		var run *exec.Cmd
		begin := func(c command) {
			run = c.exec(context.Background())
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
		}
		switch when {
		case "idle":
			whom = [...][]string{{"helper"}, {"tray"}, {"tray", "helper"}}[random.IntN(3)]
		case "connecting":
			begin(connect)
			usual = joining
		case "connected", "disconnecting":
			connect.must(t)
			if when == "disconnecting" {
				begin(disconnect)
				usual = leaving
			}
		}
		at := time.Duration(random.Int64N(int64(usual)))
		time.Sleep(at)
		t.Logf("%s, after %v: %s", when, at.Round(time.Millisecond), strings.Join(whom, ", "))
		for _, victim := range whom {
			switch victim {
			case "helper":
				h.end(syscall.SIGKILL)
			case "daemon":
				for _, pid := range alice.podnets(t) {
					if podnetArgs(pid) == "podnet daemon" {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			case "tray":
				_ = tray.Process.Kill()
			case "cli":
				if run != nil {
					_ = run.Process.Kill()
				}
			}
		}
		if run != nil {
			_ = run.Wait() // by itself: whom it waits for is no more
		}
		_ = tray.Process.Kill()
		_ = tray.Wait()
		if !slices.Contains(whom, "helper") {
			// A command line that lives may have started another daemon.
			disconnect.try(t)
		}
		undone := eventually(t, 5*time.Second, "laptop as before", func() error {
			return same(before, strings.ReplaceAll(alice.snapshot(t), "podnet daemon runs\n", ""))
		})
		slowest = max(slowest, undone)
		disconnect.try(t)
		if slices.Contains(whom, "helper") {
			h.start()
		}
	}
	measure.AtMost(t, fmt.Sprintf("[25] kill -9 with podnet-helper, %d times: the slowest to a restored laptop", rounds), slowest, 2*time.Second)
	if long && slowest > 2*time.Second {
		t.Errorf("the slowest took %v", slowest)
	}
	connect.must(t)
	want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "web")
}

// TestAnOrdinaryUser: alice, without root's rights or any capability, connects by
// podnet-helper. Whatever dies, the laptop is as before.
func TestAnOrdinaryUser(t *testing.T) {
	user := alice.plain()
	untouched := alice.snapshot(t)
	r := user.podnet("connect", "--wait", "-n", "shop").mustFail(t)
	if r.code != 7 {
		t.Errorf("without a helper connect ends with %d", r.code)
	}
	want(t, r.stderr, "sudo podnet setup", "podnet exec", "podnet proxy")
	user.podnet("disconnect", "--all").try(t)

	t.Run("sessions", func(t *testing.T) {
		h := admin.helper(t, "alice")
		before := alice.snapshot(t)
		t.Cleanup(func() { user.podnet("disconnect", "--all").try(t) })
		began := time.Now()
		user.podnet("connect", "--wait", "-n", "shop").must(t)
		report(t, "connect as an ordinary user", time.Since(began).Round(10*time.Millisecond))

		status := user.sh("cat /proc/" + alice.daemon(t) + "/status").must(t)
		for _, field := range []string{"CapEff:", "CapPrm:"} {
			if words := strings.Fields(lineWith(status, field)); len(words) != 2 || strings.Trim(words[1], "0") != "" {
				t.Errorf("the daemon has capabilities: %q", words)
			}
		}
		if words := strings.Fields(lineWith(status, "Uid:")); len(words) < 3 || words[1] == "0" || words[2] == "0" {
			t.Errorf("the daemon is root: %q", words)
		}
		want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "web")
		want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://"+podAddress(t, "app=web")+":8080").must(t), "web")
		want(t, user.sh("echo ahoy | socat -T 2 - UDP:web.shop:5353").must(t), "ahoy")
		user.cmd("dig", "+short", "+time=2", "web.shop.svc.cluster.local").must(t)
		if s := user.status(t); s.State != "Connected" || len(s.Connections) != 1 || !s.Connections[0].DNS.Healthy || len(s.Warnings) > 0 {
			t.Errorf("status %+v", s)
		}
		want(t, user.podnet("doctor", "-n", "shop").try(t).stdout, "podnet-helper")

		// To hear of another network takes no privilege, nor does it to follow there.
		calm(t)
		lab("move", "laptop", "1").must(t)
		moved := eventually(t, 10*time.Second, "the web after a move", func() error {
			return user.cmd("curl", "-sS", "--max-time", "1", "http://web.shop").run(t.Context())
		})
		report(t, "an ordinary user's laptop moves: to the first answer (within 5 s)", moved.Round(10*time.Millisecond))
		lab("move", "laptop", "0").must(t)
		eventually(t, 10*time.Second, "the web after the way back", func() error {
			return user.cmd("curl", "-sS", "--max-time", "1", "http://web.shop").run(t.Context())
		})

		stranger := laptop1.as("bob").plain()
		r := stranger.podnet("connect", "-n", "shop").mustFail(t)
		if r.code != 7 {
			t.Errorf("a stranger's connect ends with %d", r.code)
		}
		want(t, r.stderr, "no operator")
		stranger.podnet("disconnect", "--all").try(t)
		want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "web")

		user.podnet("disconnect").must(t)
		eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })

		user.podnet("connect", "--wait", "-n", "shop").must(t)
		h.end(syscall.SIGKILL)
		took := eventually(t, 5*time.Second, "laptop as before but for the daemon", func() error {
			now := alice.snapshot(t)
			return same(before, strings.ReplaceAll(now, "podnet daemon runs\n", ""))
		})
		measure.AtMost(t, "[25] kill -9 of podnet-helper to a restored laptop", took, 5*time.Second)
		eventually(t, 5*time.Second, "the session has ended", func() error {
			if r := user.podnet("status").try(t); r.code != 3 {
				return fmt.Errorf("status: %d, %s", r.code, r.stdout)
			}
			return nil
		})
		h.start()
		user.podnet("connect", "--wait", "-n", "shop").must(t)
		want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "web")
		alice.cmd("kill", "-9", alice.daemon(t)).must(t)
		took = eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
		measure.AtMost(t, "[25] kill -9 of an ordinary user's daemon to a restored laptop", took, 2*time.Second)
		kubectl("delete", "peers,accesses", "-A", "--all").try(t)
	})
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(untouched, alice.snapshot(t)) })
}
