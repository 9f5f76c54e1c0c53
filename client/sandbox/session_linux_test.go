package sandbox

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"podnet.dev/client/router"
	"podnet.dev/internal/testpod"
)

// TestSessionOfASandbox: what a session does to its host it does inside.
func TestSessionOfASandbox(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		h := s.Session(nil)
		dev, err := h.TUN(1420)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		name, err := dev.Name()
		if name != "podnet0" || err != nil {
			t.Fatal(name, err)
		}
		if _, err := h.TUN(1420); err == nil {
			t.Error("there are two")
		}
		own := netip.MustParsePrefix("198.18.0.5/32")
		want := router.Config{Interface: name, Addresses: []netip.Prefix{own}, Routes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, MTU: 1380}
		if err := h.SetNetwork(want); err != nil {
			t.Fatal(err)
		}
		if mtu, _ := dev.MTU(); mtu != 1380 {
			t.Errorf("MTU %d", mtu)
		}
		c, err := h.Dial(t.Context(), "udp", "10.96.0.10:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); from != own.Addr() {
			t.Errorf("leaves from %s", from)
		}
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, 2048)
		}
		for { // an interface that comes up says so, by IPv6
			n, err := dev.Read(bufs, sizes, 16)
			if err != nil {
				t.Fatal(err)
			}
			if n > 0 && strings.Contains(string(bufs[0][16:16+sizes[0]]), "question") {
				break
			}
		}
		stuck := make(chan error, 1)
		go func() {
			c, err := h.Dial(t.Context(), "tcp", "10.96.0.10:80") // where nobody answers
			if err == nil {
				_ = c.Close()
			}
			stuck <- err
		}()
		for n := 0; n == 0; {
			if n, err = h.ResetFlows(t.Context(), []netip.Addr{own.Addr()}); err != nil {
				t.Skipf("the kernel ends no flows for us: %v", err)
			}
		}
		if err := <-stuck; !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("a flow that is reset ends by %v", err)
		}
		var conflict *router.ConflictError
		want.Routes = append(want.Routes, netip.MustParsePrefix("198.19.0.0/24"))
		if err := h.SetNetwork(want); !errors.As(err, &conflict) || conflict.Interface != outsideName {
			t.Errorf("%v", err)
		}
		if out, _ := shell(t, s, "ls /sys/class/net >/dev/null; cat /proc/net/route"); !strings.Contains(out, "podnet0\t0000600A") {
			t.Errorf("routes:\n%s", out)
		}
	})
}

// TestResolvConfIsASymlink into a folder that is masked, as systemd-resolved has it.
func TestResolvConfIsASymlink(t *testing.T) {
	const inside = "PODNET_TEST_SYMLINK"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestResolvConfIsASymlink$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), "TestResolvConf") {
			t.Skipf("no mount namespace: %v", err)
		}
		if t.Logf("%s", out); err != nil {
			t.Fatal(err)
		}
		return
	}
	testpod.Run(t, "mount --make-rprivate /")
	for _, dir := range []string{"/run", "/etc"} { // the machine's own are covered, for this process
		testpod.Run(t, "mount -t tmpfs tmpfs "+dir)
	}
	if err := os.MkdirAll("/run/systemd/resolve", 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"/run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\n", "/run/systemd/resolve/io.systemd.Resolve": "",
		"/etc/nsswitch.conf": "hosts: files resolve dns\n", "/etc/hosts": "127.0.0.1 localhost\n"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, Options{})
	out, _ := shell(t, s, "cat /etc/resolv.conf; ls /run/systemd/resolve; cat /etc/nsswitch.conf")
	if want := "nameserver 198.19.0.3\noptions ndots:5\nstub-resolv.conf\nhosts: files dns\n"; out != want {
		t.Errorf("inside:\n%swant:\n%s", out, want)
	}
	conf := "search a.b\n"
	if _, err := s.ask(t.Context(), request{Resolv: &conf}); err != nil {
		t.Fatal(err)
	}
	if out, _ := shell(t, s, "cat /etc/resolv.conf"); out != conf {
		t.Errorf("rewritten, it is\n%s", out)
	}
	if b, _ := os.ReadFile("/etc/resolv.conf"); string(b) != "nameserver 127.0.0.53\n" {
		t.Errorf("outside:\n%s", b)
	}
}
