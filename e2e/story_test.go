//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// long is true when stories take as long as they are told, as "make long" wants.
var long = os.Getenv("PODNET_E2E_LONG") != ""

// lasting is short, or full where stories are told in full.
func lasting(short, full time.Duration) time.Duration {
	if long {
		return full
	}
	return short
}

// within reports whether something took no longer than promised. The short form runs
// on machines that others keep busy, and tells that something is broken, not that it
// is late: it allows twice as long. The measured time is printed in either.
func within(took, promised time.Duration) bool { return took <= lasting(2*promised, promised) }

// lab changes what happens between the machines.
func lab(args ...string) command { return host(append([]string{"bin/lab"}, args...)...) }

// parallel lets a test that mostly waits do so while others run that use
// another laptop. Tests that change what all share are not for it.
func (m machine) parallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	owners[m.name].Lock()
	t.Cleanup(owners[m.name].Unlock) // after every other Cleanup of the test
}

var owners = map[string]*sync.Mutex{laptop1.name: new(sync.Mutex), laptop2.name: new(sync.Mutex)}

// calm undoes every trouble now, and again when the test ends.
func calm(t testing.TB) {
	t.Helper()
	quiet(t)
	t.Cleanup(func() { quiet(t) })
}

// quiet undoes every trouble.
func quiet(t testing.TB) {
	t.Helper()
	lab("link", "node1", "up").must(t)
	lab("link", "laptop", "up").must(t)
	lab("move", "laptop", "0").must(t)
	lab("heal").must(t)
}

// sighting is what a role sees while a story goes on, a line of JSON each.
type sighting struct {
	At   time.Time     `json:"at"`
	What string        `json:"what"`
	For  time.Duration `json:"for,omitempty"`
	Text string        `json:"text,omitempty"`
}

// What roles see.
const (
	silence = "silence" // At, For: nothing came back
	broken  = "broken"  // At: a connection ended that should not have
	works   = "works"   // At: a new connection works again, or for the first time
	fails   = "fails"   // At: a new connection does not work any more
	onPath  = "path"    // At: Text is the path in use
	onPod   = "pod"     // At: Text is the gateway in use
	done    = "done"    // Text is the summary
)

// watcher is a role that runs while a story is told.
type watcher struct {
	name string
	cmd  *exec.Cmd
	talk bytes.Buffer // what it says beside its sightings
	over chan struct{}
	once sync.Once

	mu  sync.Mutex
	saw []sighting
}

// start runs a role on the machine until stop, or until the test ends.
func (m machine) start(t testing.TB, role string, args ...string) *watcher {
	t.Helper()
	return follow(t, role+" on "+m.name, m.role(role, args...))
}

// follow runs a role until stop, or until the test ends.
func follow(t testing.TB, name string, role command) *watcher {
	t.Helper()
	w := &watcher{name: name, over: make(chan struct{})}
	w.cmd = role.exec(context.Background())
	w.cmd.Stderr = &w.talk
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	go func() {
		defer close(w.over)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var s sighting
			if err := json.Unmarshal(lines.Bytes(), &s); err == nil {
				w.mu.Lock()
				w.saw = append(w.saw, s)
				w.mu.Unlock()
			}
		}
		_ = w.cmd.Wait()
	}()
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			t.Logf("%s saw:\n%s%s", w.name, w.diary(), w.talk.String())
		}
	})
	return w
}

// stop asks the role to end, and waits until it has said all.
func (w *watcher) stop() []sighting {
	w.once.Do(func() { _ = w.cmd.Process.Signal(syscall.SIGTERM) })
	select {
	case <-w.over:
	case <-time.After(20 * time.Second):
		_ = w.cmd.Process.Kill()
		<-w.over
	}
	return w.sightings()
}

func (w *watcher) sightings() []sighting {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]sighting(nil), w.saw...)
}

// last is the newest sighting of a kind.
func (w *watcher) last(what string) (s sighting, ok bool) {
	for _, each := range w.sightings() {
		if each.What == what {
			s, ok = each, true
		}
	}
	return s, ok
}

// since is the first sighting of a kind after an instant.
func (w *watcher) since(at time.Time, what string) (sighting, bool) {
	for _, s := range w.sightings() {
		if s.What == what && s.At.After(at) {
			return s, true
		}
	}
	return sighting{}, false
}

// diary is what the role saw, for people.
func (w *watcher) diary() string {
	var b strings.Builder
	for _, s := range w.sightings() {
		fmt.Fprintf(&b, "  %s %-8s %6.2fs %s\n", s.At.Format("15:04:05.000"), s.What, s.For.Seconds(), s.Text)
	}
	return b.String()
}

// longest is the longest silence that began in a span of time.
func longest(saw []sighting, from, to time.Time) (all time.Duration) {
	for _, s := range saw {
		if s.What == silence && s.At.Add(s.For).After(from) && s.At.Before(to) {
			all = max(all, s.For)
		}
	}
	return all
}

// unbroken fails the test when a connection of the role ended.
func (w *watcher) unbroken(t testing.TB) {
	t.Helper()
	if s, ok := w.last(broken); ok {
		t.Errorf("%s: the connection broke at %s: %s", w.name, s.At.Format("15:04:05.000"), s.Text)
	}
	if _, ok := w.last(done); !ok {
		t.Errorf("%s did not come to its end: %s", w.name, w.talk.String())
	}
}

// waitPath waits until the path in use is of a kind, and tells when it became
// so: zero when it was all along.
func (w *watcher) waitPath(t testing.TB, kind string, from time.Time, within time.Duration) time.Duration {
	t.Helper()
	var at time.Time
	eventually(t, within-time.Since(from), "path "+kind, func() error {
		s, ok := w.last(onPath)
		if !ok || strings.Fields(s.Text + " none")[0] != kind {
			return fmt.Errorf("it is %q", s.Text)
		}
		at = s.At
		return nil
	})
	return max(0, at.Sub(from))
}

// status is what podnet says of itself on the machine.
func (m machine) status(t testing.TB) localapi.Status {
	t.Helper()
	var s localapi.Status
	text := m.podnet("status", "-o", "json").try(t).stdout
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("podnet status -o json: %v:\n%s", err, text)
	}
	return s
}

// connection is the machine's only one.
func (m machine) connection(t testing.TB) localapi.Connection {
	t.Helper()
	s := m.status(t)
	if len(s.Connections) != 1 {
		t.Fatalf("%d connections, want one: %+v", len(s.Connections), s)
	}
	return s.Connections[0]
}

// daemon is the process of the user's daemon: the one in the machine's network,
// as processes of all machines see each other.
func (m machine) daemon(t testing.TB) string {
	t.Helper()
	return host("sh", "-c", fmt.Sprintf(`for p in $(ip netns pids podnet-lab-%s); do
		tr '\0' ' ' < /proc/$p/cmdline | grep -q 'podnet daemon' && echo $p && exit; done; exit 1`, m.name)).must(t)
}

// installed has podnet installed with these flags in place of the usual ones,
// for the time of the test.
func installed(t *testing.T, flags ...string) {
	t.Helper()
	reinstall := func(flags ...string) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if err := admin.podnet("uninstall").run(ctx); err != nil {
			t.Fatalf("uninstall: %v", err)
		}
		if err := install(ctx, flags...); err != nil {
			t.Fatal(err)
		}
	}
	reinstall(flags...)
	t.Cleanup(func() { reinstall(usual...) })
}

// podAddress is the address of a pod of the shop.
func podAddress(t testing.TB, selector string) string {
	t.Helper()
	return kubectl("get", "pods", "-n", "shop", "-l", selector, "-o", "jsonpath={.items[0].status.podIP}").must(t)
}

// netns is the network namespace of a pod on node1, as the node names it.
func netns(t testing.TB, podIP string) string {
	t.Helper()
	return machine{name: "node1"}.sh(fmt.Sprintf(`for ns in $(ls /run/netns); do
		ip -n $ns -4 -o addr show | grep -q ' %s/' && echo $ns && exit; done; exit 1`, podIP)).must(t)
}

// serve runs iperf3's server on node1 for the time of the test: on the node
// itself, or in a pod's network where ns names it.
func serve(t testing.TB, ns string) {
	t.Helper()
	in := []string{}
	if ns != "" {
		in = []string{"nsenter", "--net=/run/netns/" + ns}
	}
	node := machine{name: "node1"}
	server := node.cmd(append(in, "iperf3", "-s")...).exec(context.Background())
	var talk bytes.Buffer
	server.Stdout, server.Stderr = &talk, &talk
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("iperf3's server said:\n%.2000s", talk.String())
		}
	})
	eventually(t, 5*time.Second, "iperf3 serves", func() error {
		if node.cmd(append(in, "ss", "-Hltn", "sport = :5201")...).must(t) == "" {
			return fmt.Errorf("nobody listens")
		}
		return nil
	})
}
