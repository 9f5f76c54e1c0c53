package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/testhost"
)

// laptop is a host with a network of its own.
type laptop struct {
	*testhost.Host
	t      *testing.T
	config string
}

func newLaptop(t *testing.T) *laptop {
	t.Helper()
	h := &laptop{testhost.New(t), t, filepath.Join(t.TempDir(), "helper.yaml")}
	if err := os.WriteFile(h.config, []byte(fmt.Sprintf("apiVersion: podnet/v1\nkind: Helper\noperators:\n  users: [\"%d\", \"%d\"]\n", operator, another)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link add eth0 type veth peer name far", "link set eth0 addrgenmode none", "link set far addrgenmode none", "addr add 192.168.7.2/24 dev eth0", "link set far up", "link set eth0 up"} {
		if out, err := h.Command(append([]string{"ip"}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", args, err, out)
		}
	}
	eventually(t, "eth0 is up", func() bool { return strings.Contains(h.Snapshot(), "192.168.7.0/24 dev eth0") })
	return h
}

// program is one that runs on the laptop.
type program struct {
	*exec.Cmd
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
}

// run runs a command, which has to work.
func (h *laptop) run(args ...string) {
	h.t.Helper()
	if out, err := h.Command(args...).CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// runs is a command that is the test binary in a role.
func (h *laptop) runs(as string, args ...string) *exec.Cmd {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	c := h.Command(append([]string{exe}, args...)...)
	c.Env = append(os.Environ(), role+"="+as)
	return c
}

// start runs the test binary on the laptop in a role.
func (h *laptop) start(as string, args ...string) *program {
	h.t.Helper()
	p := &program{Cmd: h.runs(as, args...), t: h.t}
	out, err := p.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if p.in, err = p.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	if testing.Verbose() {
		p.Stderr = os.Stderr
	}
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	h.t.Cleanup(p.kill)
	return p
}

// helper starts podnet-helper, and returns when it answers.
func (h *laptop) helper() *program {
	h.t.Helper()
	p := h.start("helper", "serve", "-socket", socket, "-config", h.config, "-state", h.State)
	eventually(h.t, "podnet-helper answers", func() bool { return h.look() == nil })
	return p
}

// look asks the helper who it is.
func (h *laptop) look() error {
	return h.Command("sh", "-c", "grep -q "+socket+" /proc/net/unix && test -S "+socket).Run()
}

// says reads a line.
func (p *program) says(want string) {
	p.t.Helper()
	if !p.lines.Scan() || p.lines.Text() != want {
		p.t.Fatalf("it says %q, want %q", p.lines.Text(), want)
	}
}

// kill ends it at once; twice does no harm.
func (p *program) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}
