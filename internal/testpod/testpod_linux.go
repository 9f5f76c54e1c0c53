// Package testpod tells a test's story in a network namespace of its own, where it
// may change what it likes, with other processes beside it. Only tests import it.
package testpod

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside names the test that runs in its own namespace, in its environment.
const inside = "PODNET_TEST_POD"

// Tell runs the story in a process of its own, all threads of whose are in a new
// network namespace, with loopback up: the namespace of whoever runs the tests is
// never touched. Group is the process's group, 0 for root's; other groups need root,
// and without root the process has a user namespace as well.
func Tell(t *testing.T, group uint32, story func(*testing.T)) {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		Run(t, "ip link set lo up")
		story(t)
		return
	}
	root := os.Geteuid() == 0
	if group != 0 && !root {
		t.Skip("needs root to have groups")
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if root {
		cmd.SysProcAttr.Credential = &syscall.Credential{Gid: group}
	} else {
		own := func(id int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: id, Size: 1}} }
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = own(os.Getuid()), own(os.Getgid())
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	err := cmd.Wait()
	t.Logf("in the pod:\n%s", out.String())
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.Contains(out.String(), "--- SKIP: "+t.Name()):
		t.Skip("skipped in the pod that the test made, for the reason printed above")
	case !strings.Contains(out.String(), "--- PASS: "+t.Name()):
		t.Fatal("the story was not told")
	}
}

// asNobody runs the words from the second on as a user who has nothing, with the first as
// its TUN devices' node: distributions let everybody have them, bare machines only root.
const asNobody = `if [ -e "$0" ]; then mount --bind "$0" /dev/net/tun || exit 1; fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`

// AsNobody tells a test's story in a process of a user who has nothing and may do
// nothing, if it is root who runs the tests; otherwise in this one. The network is
// that of its caller.
func AsNobody(t *testing.T, story func(*testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		story(t)
		return
	}
	self, err := os.Open("/proc/self/exe") // whose folder nobody else may enter
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	node := t.TempDir() + "/tun"
	if unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 200))) == nil {
		_ = os.Chmod(node, 0o666)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", asNobody, node, "/proc/self/fd/3", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{self}
	out, err := cmd.CombinedOutput()
	t.Logf("as nobody:\n%s", out)
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skip("skipped as nobody, for the reason printed above")
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatal("the story was not told")
	}
}

// Run runs a command of words, and fails the test when it fails.
func Run(t testing.TB, command string) {
	t.Helper()
	f := strings.Fields(command)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// neighbour is the role of a Process, in its environment.
const neighbour = "PODNET_TEST_NEIGHBOUR"

// Process is another process of the pod, or another host: it obeys.
type Process struct {
	PID int
	// Say has it do what a line says, and returns its line of answer.
	Say func(line string) string
}

// Start starts a process of the test's own program, which must call Obey in its
// TestMain. It ends with the test.
func Start(t *testing.T, attributes *syscall.SysProcAttr) Process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), neighbour+"=1")
	cmd.SysProcAttr = attributes
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no further process: %v", err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	answers := bufio.NewReader(out)
	return Process{cmd.Process.Pid, func(line string) string {
		t.Helper()
		fmt.Fprintln(in, line)
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return strings.TrimSpace(answer)
	}}
}

// Must has the process run a command of words, and fails the test when it fails.
func (p Process) Must(t testing.TB, command string) {
	t.Helper()
	if got := p.Say(command); got != `<nil> ""` {
		t.Fatalf("%s: %s", command, got)
	}
}

// Obey makes this process a Process, if it is to be one, until its input ends: a
// line begins with one of the verbs, which return one line, or is a command to run.
func Obey(verbs map[string]func(args []string) string) (was bool) {
	if os.Getenv(neighbour) == "" {
		return false
	}
	obey(os.Stdin, os.Stdout, verbs)
	return true
}

func obey(in io.Reader, out io.Writer, verbs map[string]func(args []string) string) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if verb := verbs[f[0]]; verb != nil {
			fmt.Fprintln(out, verb(f[1:]))
			continue
		}
		said, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		fmt.Fprintf(out, "%v %q\n", err, said)
	}
}
