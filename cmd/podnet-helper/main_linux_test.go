package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/client/helper/remote"
	"podnet.dev/internal/nocore/coretest"
)

// TestAnOrdinaryUserConnects: without a capability, and what he sends comes out of
// the device that he was given.
func TestAnOrdinaryUserConnects(t *testing.T) {
	h := newLaptop(t)
	helper := h.helper()
	before := h.Snapshot()
	u := h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	during := h.Snapshot()
	for _, want := range []string{"10.96.0.0/16 dev podnet0", "nameserver 198.18.0.5", "shop.svc.cluster.local"} {
		if !strings.Contains(during, want) {
			t.Errorf("no %q in\n%s", want, during)
		}
	}
	if out, err := h.Command("bash", "-c", "echo hello > /dev/udp/10.96.0.10/9").CombinedOutput(); err != nil {
		t.Fatalf("send: %v: %s", err, out)
	}
	u.says("packet")
	_ = u.in.Close()
	u.says("disconnected")
	if err := u.Wait(); err != nil {
		t.Error(err)
	}
	h.Becomes(before, 0)

	u = h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	if err := helper.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := helper.Wait(); err != nil {
		t.Error(err)
	}
	u.says("over")
	h.Becomes(before, 0)
}

// TestStrangersMayLook and do nothing else.
func TestStrangersMayLook(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	before := h.Snapshot()
	w := h.start("wish", strconv.Itoa(stranger))
	w.says("operator false <nil>")
	w.says("failed: podnet may not change this machine's network: this user is no operator of podnet-helper")
	if err := w.Wait(); err == nil {
		t.Error("it succeeded")
	}
	h.Becomes(before, 0)
}

// TestOneUserAtATime: an operator may have several sessions, and while he has one
// another operator has none.
func TestOneUserAtATime(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	before := h.Snapshot()
	u := h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	o := h.start("wish", strconv.Itoa(another))
	o.says("operator true <nil>")
	o.says(fmt.Sprintf("failed: another user (%d) has this machine's network by podnet-helper", operator))
	fmt.Fprintln(w.in, "route 10.97.0.0/16")
	w.says("<nil>")
	if got := h.Snapshot(); !strings.Contains(got, "10.97.0.0/16 dev podnet1") {
		t.Errorf("no second session's route in\n%s", got)
	}
	u.kill()
	eventually(t, "the first session is taken back", func() bool { return !strings.Contains(h.Snapshot(), "podnet0") })

	// The interface ends with the session, whoever still has its file.
	fmt.Fprintln(w.in, "close")
	w.says("<nil>")
	h.Becomes(before, 0)
	again := h.start("wish", strconv.Itoa(another))
	again.says("ready")
}

// TestFlowsEndByTheHelper: a program that waits for an answer from the tunnel gets an
// error, and nobody else does, whatever an operator asks for.
func TestFlowsEndByTheHelper(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	fmt.Fprintln(w.in, "route 10.96.0.0/16")
	w.says("<nil>")
	waits := h.Command("bash", "-c", "exec 3<>/dev/tcp/10.96.0.10/80")
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = waits.Process.Kill(); _ = waits.Wait() })
	eventually(t, "the program waits", func() bool {
		out, _ := h.Command("ss", "-Htn", "src", own.String()).Output()
		return strings.Contains(string(out), "10.96.0.10:80")
	})
	fmt.Fprintln(w.in, "reset 192.168.7.2")
	if !w.lines.Scan() || !strings.Contains(w.lines.Text(), "not this session's") {
		t.Errorf("flows of the laptop's own network: %q", w.lines.Text())
	}
	fmt.Fprintln(w.in, "reset "+own.String())
	if !w.lines.Scan() || strings.Contains(w.lines.Text(), "INET_DIAG_DESTROY") {
		t.Skip(w.lines.Text())
	}
	if w.lines.Text() != "ended 1" {
		t.Errorf("%q, want one flow", w.lines.Text())
	}
	var exit *exec.ExitError
	if err := waits.Wait(); !errors.As(err, &exit) || exit.ExitCode() <= 0 {
		t.Errorf("the program that waited ended with %v", err)
	}
}

// TestSocketFromSystemd: the socket is somebody else's making, as the units have it.
func TestSocketFromSystemd(t *testing.T) {
	h := newLaptop(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", exe, "serve", "-config", h.config, "-state", h.State)
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), role+"=helper"), []*os.File{passed}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	g, sessions, err := remote.Look(t.Context(), l.Addr().String())
	if err != nil || !g.Operator || len(sessions) > 0 {
		t.Errorf("it says %+v, %v, %v", g, sessions, err)
	}
}

// TestBadWishesChangeNothing has an operator ask for what nobody gets.
func TestBadWishesChangeNothing(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	before := h.Snapshot()
	for _, c := range []struct{ wish, says string }{
		{"route 0.0.0.0/0", "broader than /8"}, {"route 10.0.0.0/7", "broader than /8"}, {"route ::/0", "broader than /32"}, {"route fd00::/31", "broader than /32"},
		{"route 127.0.0.0/8", "loopback"}, {"route ::1/128", "loopback"}, {"route 169.254.0.0/16", "link-local"}, {"route 169.0.0.0/8", "link-local"}, {"route fe80::/64", "link-local"},
		{"route 224.0.0.0/8", "multicast"}, {"route 192.168.7.0/24", "collides"}, {"route 192.168.7.1/32", "collides"}, {"route 192.168.0.0/16", "collides"},
		{"shared 192.168.7.0/24", "collides"}, {"shared 0.0.0.0/0", "broader"}, {"routes", "too many"},
		{"address 192.168.7.1/32", "collides"}, {"address 127.0.0.1/32", "127.0.0.1"}, {"address 10.0.0.0/8", "network around it"},
		{"domain in-addr.arpa", "not a cluster's"}, {"domain .", "a label has"}, {"port 192.168.7.2", "not this session's"},
	} {
		fmt.Fprintln(w.in, c.wish)
		if !w.lines.Scan() || !strings.Contains(w.lines.Text(), c.says) {
			t.Errorf("%s: %q, want %q", c.wish, w.lines.Text(), c.says)
		}
		if got := h.Snapshot(); got != before {
			t.Fatalf("%s: the host is\n%s\nand was\n%s", c.wish, got, before)
		}
	}
}

// TestKilledAtRandom kills the helper with -9, or the user's podnet, or both, while
// nothing goes on, while the user connects, is connected, or disconnects.
func TestKilledAtRandom(t *testing.T) {
	h := newLaptop(t)
	rounds := 12
	if os.Getenv("PODNET_E2E_LONG") != "" {
		rounds = 200
	}
	random := seeded(t)
	h.helper().kill() // whose folders stay
	before := h.Snapshot()
	for round := range rounds {
		helper := h.helper()
		at := time.Duration(random.Int64N(int64(80 * time.Millisecond)))
		var u *program
		when := [...]string{"idle", "connecting", "connected", "disconnecting"}[round%4]
		switch when {
		case "connecting":
			u = h.start("user", strconv.Itoa(operator))
		case "connected", "disconnecting":
			u = h.start("user", strconv.Itoa(operator))
			u.says("connected podnet0")
			if when == "disconnecting" {
				_ = u.in.Close()
			}
		}
		time.Sleep(at)
		whom := "the helper"
		if u != nil {
			whom = [...]string{"the helper", "the user's", "the helper, the user's", "the user's, the helper"}[random.IntN(4)]
		}
		t.Logf("%s, after %v: %s", when, at.Round(time.Millisecond), whom)
		for _, name := range strings.Split(whom, ", ") {
			if name == "the helper" {
				helper.kill()
			} else {
				u.kill()
			}
		}
		if whom == "the user's" {
			h.Becomes(before, 2*time.Second)
			helper.kill()
		}
		if u != nil && when != "connecting" && whom == "the helper" {
			eventually(t, "the user's podnet has heard", func() bool { return !u.lines.Scan() })
		}
		if u != nil && when == "connecting" {
			u.kill() // it may be waiting for the word to disconnect
		}
		h.Becomes(before, 2*time.Second)
	}
}

// seeded is chance that can be had again.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PODNET_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the same again: PODNET_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestHelperLeavesNoCore: it has had the key of a kernel's device.
func TestHelperLeavesNoCore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("podnet-helper serves as root")
	}
	dir := t.TempDir()
	helper := coretest.Self(t, role+"=helper", "serve", "-socket", filepath.Join(dir, "helper.sock"), "-config", filepath.Join(dir, "helper.yaml"), "-state", dir)
	if cores := coretest.Of(t, helper, syscall.SIGABRT, "podnet-helper serves"); len(cores) > 0 {
		t.Errorf("%d cores are left", len(cores))
	}
}
