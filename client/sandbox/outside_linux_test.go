package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"podnet.dev/client/proxy"
	"podnet.dev/internal/testpod"
)

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
