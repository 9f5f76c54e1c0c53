package helper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/testhost"
)

// TestMain lets the test binary be the daemon and its guard.
func TestMain(m *testing.M) {
	switch os.Getenv("PODNET_TEST_ROLE") {
	case "guard":
		if err := Guard(os.Args[1], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "state":
		fmt.Print(StateDir("/base"))
		os.Exit(0)
	case "two":
		if err := connectTwo(os.Args[1]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	case "daemon":
		if err := connectAndWait(os.Args[1]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var ours = netip.MustParseAddr("198.18.0.5")

// connectAndWait does to the host what a session does, says so, and ends when
// standard input does. It runs in a namespace of its own.
func connectAndWait(dir string) error {
	if err := os.Setenv("PODNET_TEST_ROLE", "guard"); err != nil {
		return err
	}
	host := NewHost(Options{StateDir: dir, Guard: []string{"/proc/self/exe", dir}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	s, err := host.Open(context.Background(), func(string) {})
	if err != nil {
		return err
	}
	defer s.Close()
	dev, err := s.TUN(1420)
	if err != nil {
		return err
	}
	defer dev.Close()
	name, err := dev.Name()
	if err != nil {
		return err
	}
	err = s.SetNetwork(router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(ours, 32)}, Routes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	if err != nil {
		return err
	}
	packets, streams, err := s.ListenDNS(context.Background(), []netip.Addr{ours, netip.MustParseAddr("fd70::dead")})
	if err != nil {
		return err
	}
	if err := s.SetDNS(context.Background(), osdns.Config{Link: name, Servers: []netip.Addr{ours}, SearchDomains: []string{"shop.svc.cluster.local"}}); err != nil {
		return err
	}
	fmt.Println("connected", name, len(packets), len(streams))
	_, _ = os.Stdin.Read(make([]byte, 1))
	for i := range packets {
		_ = packets[i].Close()
		_ = streams[i].Close()
	}
	return nil
}

// connect starts a daemon in the host and returns once it has changed it.
func connect(t *testing.T, h *testhost.Host) (daemon *exec.Cmd, hangUp func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(exe, h.State)
	cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=daemon")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	said := make([]byte, 200)
	n, _ := out.Read(said)
	if got := strings.TrimSpace(string(said[:n])); got != "connected podnet0 1 1" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the daemon says %q %s", got, errs.String())
	}
	return cmd, func() { _ = in.Close() }
}

func TestCloseLeavesTheHostAsItWas(t *testing.T) {
	h := testhost.New(t)
	before := h.Snapshot()
	daemon, hangUp := connect(t, h)
	during := h.Snapshot()
	for _, want := range []string{"10.96.0.0/16 dev podnet0", "nameserver 198.18.0.5", "shop.svc.cluster.local"} {
		if !strings.Contains(during, want) {
			t.Errorf("no %q in\n%s", want, during)
		}
	}
	hangUp()
	if err := daemon.Wait(); err != nil {
		t.Error(err)
	}
	h.Becomes(before, 0)
}

// TestKilledDaemonLeavesTheHostAsItWas kills -9, several times over, and a new
// session begins at once.
func TestKilledDaemonLeavesTheHostAsItWas(t *testing.T) {
	h := testhost.New(t)
	before := h.Snapshot()
	for range 5 {
		daemon, _ := connect(t, h)
		if err := daemon.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = daemon.Wait()
		h.Becomes(before, 2*time.Second)
	}
	daemon, _ := connect(t, h)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	daemon, hangUp := connect(t, h) // while the guard may still be at work
	time.Sleep(50 * time.Millisecond)
	if !strings.Contains(h.Snapshot(), "nameserver 198.18.0.5") {
		t.Error("the guard of the dead took a new session's resolver away")
	}
	hangUp()
	_ = daemon.Wait()
	h.Becomes(before, 0)
}

// inNetns gives the test's thread a network namespace of its own.
func inNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
}

// TestKernelsWireGuard: there is none, and somebody says so, or it is made and taken
// away again. What it does is for e2e/guest, whose kernel has it.
func TestKernelsWireGuard(t *testing.T) {
	inNetns(t)
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := &session{host: NewHost(Options{StateDir: t.TempDir()})}
	name, wire, err := s.WireGuard(1420)
	var none *NoWireGuardError
	switch {
	case errors.As(err, &none):
		if none.Hint() == "" || s.name != "" {
			t.Errorf("%v, interface %q", err, s.name)
		}
	case err != nil:
		t.Fatal(err)
	default:
		defer s.wg.close()
		defer wire.Close()
		if st, err := s.WireGuardState(); err != nil || !st.LastHandshake.IsZero() {
			t.Errorf("%+v, %v", st, err)
		}
	}
	if err := dropLinks(s.host.opts.StateDir); err != nil {
		t.Error(err)
	}
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Errorf("%s: interfaces %v, %v", name, links, err)
	}
}

func TestNamespacesHaveTheirOwnState(t *testing.T) {
	if _, err := os.Readlink("/proc/1/ns/net"); err != nil {
		t.Skipf("the first process hides its namespaces: %v", err)
	}
	h := testhost.New(t)
	role := func(cmd *exec.Cmd) string {
		cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=state")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := role(h.Command(exe))
	if here := role(exec.Command(exe)); !strings.HasPrefix(other, "/base/netns-") || here == other {
		t.Errorf("%s here, %s in another namespace", here, other)
	}
}

func TestPortTaken(t *testing.T) {
	inNetns(t)
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c, err := net.ListenPacket("udp", "0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := &session{}
	packets, streams, err := s.ListenDNS(t.Context(), []netip.Addr{netip.MustParseAddr("127.0.0.9")})
	var taken *PortError
	if !errors.As(err, &taken) || packets != nil || streams != nil {
		t.Errorf("got %v, want a PortError", err)
	}
}

func TestOneSessionPerHost(t *testing.T) {
	dir := t.TempDir()
	unlock, err := tryLockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	var busy *BusyError
	if _, err := tryLockState(dir); !errors.As(err, &busy) {
		t.Errorf("got %v, want a BusyError", err)
	}
	if err := Cleanup(t.Context(), dir); err != nil { // the session is alive: nothing to do
		t.Error(err)
	}
	unlock()
	for range 2 {
		if err := Cleanup(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
	if err := Cleanup(t.Context(), filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
}
