package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/client/proxy"
	"podnet.dev/client/router"
	"podnet.dev/internal/testpod"
	"podnet.dev/internal/testseccomp"
)

// TestMain lets the test binary be the agent, and a program that says what it sees.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			if err := Agent(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "get":
			get(os.Args[2])
			os.Exit(0)
		case "trap":
			trap()
		case "terminal":
			os.Exit(atTerminal())
		case "confined":
			fmt.Println(testseccomp.Exec("/proc/self/exe", []string{"sandbox.test", "try"}, os.Environ()))
			os.Exit(1)
		case "try":
			try()
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// get says what answers at a URL.
func get(url string) {
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	fmt.Print(string(b))
}

// trap waits for SIGUSR1 and ends with 42.
func trap() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	fmt.Println("waiting")
	<-told
	os.Exit(42)
}

// atTerminal is podnet at a terminal: it runs a command that waits to be interrupted.
func atTerminal() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT) // which the command heeds
	s, err := Open(context.Background(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	if err != nil {
		fmt.Println("none:", err)
		return 1
	}
	defer s.Close()
	const script = `test -t 0 && echo at a terminal; trap 'exit 9' INT; read line; echo "got $line"; while :; do sleep 0.05; done`
	e, err := s.Run(context.Background(), Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Dir: "/", Foreground: true,
		Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}, nil)
	fmt.Printf("exit status %d, %v\n", e.Status(), err)
	return 0
}

// try says what keeps a program from having a sandbox.
func try() {
	s, err := Open(context.Background(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	var b *BlockedError
	switch {
	case errors.As(err, &b):
		fmt.Printf("blocked: %v (%s)\n", err, b.Hint())
	case err != nil:
		fmt.Println("failed:", err)
	default:
		fmt.Println("there is one", s.Close())
	}
}

// TestConfined has a container's seccomp filter forbid namespaces: an answer at once,
// and what to make of it.
func TestConfined(t *testing.T) {
	openTest(t, Options{}) // else something else forbids them already
	out, err := exec.Command("/proc/self/exe", "confined").CombinedOutput()
	const want = "blocked: make a user, network and mount namespace: operation not permitted (a container's seccomp filter or another policy forbids it here)\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// openTest opens a sandbox, or skips the test where there is none for anybody.
func openTest(t *testing.T, o Options) *Sandbox {
	t.Helper()
	o.Agent = []string{"/proc/self/exe", "agent"}
	s, err := Open(t.Context(), o)
	var b *BlockedError
	if errors.As(err, &b) {
		t.Skipf("no sandbox on this machine: %v (%s)", err, b.Hint())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// said runs a command inside and returns what it wrote, and how it ended.
func said(t *testing.T, s *Sandbox, args ...string) (string, Exit) {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Skipf("needs %s", args[0])
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		_ = r.Close()
		text <- string(b)
	}()
	e, err := s.Run(t.Context(), Command{Path: path, Args: args, Env: os.Environ(), Dir: "/", Files: [3]*os.File{null, w, w}}, nil)
	_ = w.Close()
	out := <-text
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out, e
}

func shell(t *testing.T, s *Sandbox, script string) (string, Exit) {
	t.Helper()
	return said(t, s, "sh", "-c", script)
}

// TestCommandKeepsItself: user, files and exit status are as outside, privileges are
// none, and the network is its own.
func TestCommandKeepsItself(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		outside, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		s := openTest(t, Options{})
		out, _ := shell(t, s, "id -u; id -g; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; readlink /proc/self/ns/net; cat /etc/resolv.conf; pwd")
		for _, want := range []string{
			fmt.Sprintf("%d\n%d\n", os.Getuid(), os.Getgid()), "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "nameserver 198.19.0.3\noptions ndots:5\n", "\n/\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		if strings.Contains(out, outside) {
			t.Error("it has this machine's network")
		}
		if _, e := shell(t, s, "exit 7"); e.Status() != 7 {
			t.Errorf("exit status %d", e.Status())
		}
		if _, e := shell(t, s, "kill -9 $$"); e.Status() != 137 {
			t.Errorf("exit status %d", e.Status())
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "made")
		if out, e := shell(t, s, "echo inside > "+file); e.Status() != 0 {
			t.Error(out)
		}
		if b, err := os.ReadFile(file); string(b) != "inside\n" {
			t.Errorf("%q, %v", b, err)
		}
		out, _ = shell(t, s, "ls /run/systemd/resolve /run/nscd 2>/dev/null; grep ^hosts: /etc/nsswitch.conf; tail -n1 /etc/hosts")
		if !strings.Contains(out, "198.19.0.2 host.podnet.internal") || strings.Contains(out, "io.systemd") || strings.Contains(out, "socket") ||
			strings.Contains(out, "hosts:") && !strings.Contains(out, "hosts: files dns\n") {
			t.Errorf("names are asked for otherwise:\n%s", out)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		for path, want := range map[string]error{"/nonexistent": unix.ENOENT, "/etc/passwd": unix.EACCES} {
			if _, err := s.Run(t.Context(), Command{Path: path, Args: []string{path}, Files: [3]*os.File{null, null, null}}, nil); !errors.Is(err, want) {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

// TestSignals reach the command, which has a process group of its own, and what it
// leaves behind ends with the sandbox.
func TestSignals(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		signals := make(chan os.Signal, 1)
		go func() {
			b := make([]byte, 16)
			_, _ = r.Read(b) // it is waiting
			signals <- syscall.SIGUSR1
		}()
		e, err := s.Run(t.Context(), Command{Path: "/proc/self/exe", Args: []string{"podnet", "trap"}, Env: os.Environ(), Files: [3]*os.File{null, w, null}}, signals)
		w.Close()
		if e.Status() != 42 || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if e, err := s.Run(ctx, Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: [3]*os.File{null, null, null}}, nil); e.Signal != int(unix.SIGTERM) || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		out, e := shell(t, s, "sleep 60 >/dev/null 2>&1 & echo $!")
		var left int
		if _, err := fmt.Sscan(out, &left); err != nil || e.Status() != 0 {
			t.Fatalf("%s: %v", out, err)
		}
		if err := unix.Kill(left, 0); err != nil {
			t.Errorf("what runs on in the background has ended with its shell: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(5 * time.Second); unix.Kill(left, 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it outlives the sandbox")
			}
		}
	})
}

// TestAgentDiesWithItsParent, which had no time for a word.
func TestAgentDiesWithItsParent(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		agent := s.cmd.Process.Pid
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		done := make(chan error, 1)
		go func() {
			_, err := s.Run(context.Background(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: [3]*os.File{null, null, null}}, nil)
			done <- err
		}()
		var command []int
		for end := time.Now().Add(5 * time.Second); len(command) == 0; command = children(agent) {
			if time.Now().After(end) {
				t.Fatal("the command does not start")
			}
		}
		if err := unix.Kill(agent, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
		for end := time.Now().Add(5 * time.Second); unix.Kill(command[0], 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the command outlives its agent")
			}
		}
	})
}

// TestTerminal belongs to the command: it reads what is typed, and Ctrl-C is for it.
func TestTerminal(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		_ = openTest(t, Options{}).Close()
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no terminal: %v", err)
		}
		defer master.Close()
		number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "terminal")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = slave.Close()
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		seen := ""
		until := func(what string) {
			t.Helper()
			b := make([]byte, 4096)
			for !strings.Contains(seen, what) {
				n, err := master.Read(b)
				if seen += string(b[:max(n, 0)]); err != nil {
					t.Fatalf("%q is not in %q: %v", what, seen, err)
				}
			}
		}
		until("at a terminal")
		_, _ = master.WriteString("hello\n")
		until("got hello")
		_, _ = master.WriteString("\x03")
		until("exit status 9, <nil>")
	})
}

// anywhere is an address of the test's own internet.
const anywhere = "203.0.113.10"

// world is a machine with an internet: a server there, and one on its loopback.
func world(t *testing.T) (internet, loopback string) {
	t.Helper()
	testpod.Run(t, "ip addr add "+anywhere+"/32 dev lo")
	serve := func(at, says string) string {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, says) }))
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	}
	return "http://" + anywhere + ":" + serve(anywhere+":0", "the internet"), serve("127.0.0.1:0", "this machine")
}

// TestOutside is reached unless the sandbox is isolated, and programs inside by the
// ports that are published.
func TestOutside(t *testing.T) {
	testpod.Tell(t, 0, func(t *testing.T) {
		internet, loopback := world(t)
		s := openTest(t, Options{Publish: []proxy.Forward{{Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), To: "127.0.0.1:80"}}})
		for url, want := range map[string]string{
			internet:                              "the internet",
			"http://" + HostName + ":" + loopback: "this machine",
			"http://127.0.0.1:" + loopback:        "connection refused",
			"http://" + Host.String() + ":1":      "connection refused",
			"http://" + DNS.String():              "failed",
		} {
			if out, _ := said(t, s, "/proc/self/exe", "get", url); !strings.Contains(out, want) {
				t.Errorf("%s says %q, not %q", url, out, want)
			}
		}
		if out, _ := shell(t, s, "id -u; grep CapEff /proc/self/status"); out != "0\nCapEff:\t0000000000000000\n" {
			t.Errorf("as root: %s", out)
		}
		l := inside(t, s, "127.0.0.1:80")
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(c, "from inside")
				_ = c.Close()
			}
		}()
		c, err := net.Dial("tcp", s.Published()[0].Listen.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if b, err := io.ReadAll(c); string(b) != "from inside" {
			t.Errorf("%q, %v", b, err)
		}

		alone := openTest(t, Options{Isolate: true})
		for _, url := range []string{internet, "http://" + Host.String() + ":" + loopback} {
			if out, _ := said(t, alone, "/proc/self/exe", "get", url); !strings.Contains(out, "failed") {
				t.Errorf("isolated, and %s says %q", url, out)
			}
		}
		if out, _ := shell(t, alone, "cat /etc/hosts"); strings.Contains(out, HostName) {
			t.Errorf("isolated, and knows this machine:\n%s", out)
		}
	})
}

// inside listens in the sandbox's network.
func inside(t *testing.T, s *Sandbox, at string) net.Listener {
	t.Helper()
	out, err := s.ask(t.Context(), request{Socket: &socketKind{unix.AF_INET, unix.SOCK_STREAM}})
	if err != nil {
		t.Fatal(err)
	}
	fd := out.fds[0]
	if err := errors.Join(unix.Bind(fd, sockaddr(netip.MustParseAddrPort(at))), unix.Listen(fd, 8)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

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

// TestNoNamespaces is told, with what forbids them.
func TestNoNamespaces(t *testing.T) {
	if os.Getenv("PODNET_TEST_FORBIDDEN") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestNoNamespaces$")
		cmd.Env = append(os.Environ(), "PODNET_TEST_FORBIDDEN=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), "TestNoNamespaces") {
			t.Skipf("no user namespace to forbid them in: %v", err)
		}
		if t.Logf("%s", out); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Skipf("cannot forbid them: %v", err)
	}
	_, err := Open(t.Context(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	var b *BlockedError
	if !errors.As(err, &b) || !strings.Contains(b.Error(), "namespace") || !strings.Contains(b.Hint(), "max_user_namespaces") {
		t.Fatalf("%v", err)
	}
}

// TestKeep: other processes run their commands in a sandbox that one keeps, until it has
// been idle or somebody ends it.
func TestKeep(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		kept := make(chan error, 1)
		go func() { kept <- s.Keep(t.Context(), l, time.Minute) }()
		first, err := Join(path)
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		files := [3]*os.File{null, null, null}
		if e, err := first.Run(t.Context(), Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 7"}, Files: files}, nil); e.Status() != 7 || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := first.Run(t.Context(), Command{Path: "/nonexistent", Args: []string{"x"}, Files: files}, nil); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v", err)
		}
		signals := make(chan os.Signal, 1)
		signals <- unix.SIGTERM
		if e, err := first.Run(t.Context(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: files}, signals); e.Signal != int(unix.SIGTERM) || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		second, err := Join(path)
		if err != nil {
			t.Fatal(err)
		}
		running := make(chan error, 1)
		go func() {
			_, err := second.Run(context.Background(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: files}, nil)
			running <- err
		}()
		for end := time.Now().Add(5 * time.Second); len(children(s.cmd.Process.Pid)) == 0; {
			if time.Now().After(end) {
				t.Fatal("the command does not start")
			}
		}
		_ = second.Close() // as when its process dies
		if err := <-running; !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
		for end := time.Now().Add(5 * time.Second); len(children(s.cmd.Process.Pid)) != 0; {
			if time.Now().After(end) {
				t.Fatal("the command outlives who has run it")
			}
		}
		if err := first.End(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-kept; err != nil {
			t.Error(err)
		}
		_ = first.Close()
		if _, err := Join(path); err == nil {
			t.Error("it is still kept")
		}
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(t.Context(), l, time.Millisecond); err != nil {
			t.Error(err)
		}
	})
}
