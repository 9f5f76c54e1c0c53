package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperArg {
		os.Exit(helperMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

const lan = "# by hand\ndomain lan\nsearch lan corp.example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0 timeout:3\nsortlist 10.0.0.0\n"

// host is a folder that plays /etc and the journal's.
type host struct {
	t    *testing.T
	etc  string
	conf string
	opts Options
	warn atomic.Pointer[string]
}

func newHost(t *testing.T) *host {
	h := &host{t: t, etc: t.TempDir()}
	h.conf = filepath.Join(h.etc, "resolv.conf")
	h.opts = Options{
		JournalDir: filepath.Join(t.TempDir(), "journal"), ResolvConf: h.conf,
		NSSwitch: filepath.Join(h.etc, "nsswitch.conf"), BusAddress: "unix:path=" + filepath.Join(h.etc, "no-bus"),
		Warn: func(s string) { h.warn.Store(&s) },
	}
	return h
}

func (h *host) write(content string) {
	h.t.Helper()
	if err := os.WriteFile(h.conf, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read() string {
	b, _ := os.ReadFile(h.conf)
	return string(b)
}

func (h *host) manager() Manager {
	h.t.Helper()
	m, err := New(context.Background(), h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { m.Close() })
	if m.Mode() != ModeDirect {
		h.t.Fatalf("mode %s", m.Mode())
	}
	return m
}

func (h *host) set(m Manager, want ...Config) {
	h.t.Helper()
	if err := m.Set(context.Background(), want); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) close(m Manager) {
	h.t.Helper()
	if err := m.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) want(content string) {
	h.t.Helper()
	if got := h.read(); got != content {
		h.t.Errorf("resolv.conf:\n%s\nwant:\n%s", got, content)
	}
}

// clean says that nothing of ours is left lying about.
func (h *host) clean() {
	h.t.Helper()
	for _, dir := range []string{h.etc, h.opts.JournalDir} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), "podnet") || strings.HasPrefix(e.Name(), journalName) {
				h.t.Errorf("left behind: %s", e.Name())
			}
		}
	}
}

func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.t.Fatalf("%s: not within 5 s; resolv.conf:\n%s", what, h.read())
}

func TestSetAndRestore(t *testing.T) {
	h := newHost(t)
	h.write(lan)
	if err := os.Chmod(h.conf, 0o640); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(h.conf)
	m := h.manager()
	if got := fmt.Sprint(m.Base()); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Errorf("base before: %s", got)
	}
	h.want(lan)
	h.set(m, wish)
	h.want(string(planResolvConf([]byte(lan), wish)))
	if got := fmt.Sprint(m.Base()); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Errorf("base: %s", got)
	}
	info, _ := os.Stat(h.conf)
	if info.Mode() != before.Mode() {
		t.Errorf("mode %v, want %v", info.Mode(), before.Mode())
	}

	// The same wish again writes nothing.
	first, _ := os.Stat(h.conf)
	h.set(m, wish)
	second, _ := os.Stat(h.conf)
	if !os.SameFile(first, second) || first.ModTime() != second.ModTime() {
		t.Error("the same wish wrote the file again")
	}

	other := wish
	other.SearchDomains = []string{"pay.svc.cluster.local"}
	h.set(m, other)
	h.want(string(planResolvConf([]byte(lan), other)))

	h.set(m)
	h.want(lan)
	h.clean()
	h.set(m, wish)
	h.close(m)
	h.close(m)
	h.want(lan)
	h.clean()
	after, _ := os.Stat(h.conf)
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("after: %v %v, want %v %v", after.Mode(), after.ModTime(), before.Mode(), before.ModTime())
	}
	if err := m.Set(context.Background(), []Config{wish}); err == nil {
		t.Error("Set after Close works")
	}
}

// TestOneFileForSeveral: resolv.conf tells no domains apart, so it has the first.
func TestOneFileForSeveral(t *testing.T) {
	h := newHost(t)
	h.write(lan)
	m := h.manager()
	second := Config{Link: "podnet1", Servers: []netip.Addr{netip.MustParseAddr("198.18.0.10")}, MatchDomains: []string{"blue.podnet.internal"}}
	h.set(m, wish, second)
	h.want(string(planResolvConf([]byte(lan), wish)))
	if err := m.Set(t.Context(), []Config{wish, {Link: "podnet1"}}); err == nil {
		t.Error("a link without servers was set")
	}
	h.set(m, second, wish)
	h.want(string(planResolvConf([]byte(lan), second)))
	h.write("nameserver 198.18.0.9\nnameserver 192.0.2.1\n") // by somebody who has read the first one's
	time.Sleep(4 * settle)
	h.want(string(planResolvConf([]byte(lan), second)))
	if got := fmt.Sprint(m.Base()); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
		t.Errorf("base: %s", got)
	}
	h.set(m, wish)
	h.want(string(planResolvConf([]byte(lan), wish)))
	h.close(m)
	h.want(lan)
	h.clean()
}

func TestAbsentFile(t *testing.T) {
	h := newHost(t)
	m := h.manager()
	h.set(m, wish)
	if !isOurs([]byte(h.read())) {
		t.Errorf("resolv.conf: %q", h.read())
	}
	if got := fmt.Sprint(m.Base()); got != "[127.0.0.1:53]" {
		t.Errorf("base: %s", got)
	}
	h.close(m)
	if _, err := os.Lstat(h.conf); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	h.clean()
}

func TestSymlink(t *testing.T) {
	for _, dangling := range []bool{false, true} {
		h := newHost(t)
		run := filepath.Join(h.etc, "run")
		if err := os.Mkdir(run, 0o755); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(run, "resolv.conf")
		if err := os.Symlink("run/resolv.conf", h.conf); err != nil {
			t.Fatal(err)
		}
		if !dangling {
			if err := os.WriteFile(target, []byte(lan), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m := h.manager()
		h.set(m, wish)
		if info, _ := os.Lstat(h.conf); info.Mode()&os.ModeSymlink != 0 || info.Mode().Perm() != 0o644 {
			t.Errorf("while connected: %v", info.Mode())
		}
		// The owner of the target goes on writing it, on another network now.
		if err := os.WriteFile(target, []byte("nameserver 203.0.113.1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(m.Base()); got != "[203.0.113.1:53]" {
			t.Errorf("base: %s", got)
		}
		h.close(m)
		if got, _ := os.Readlink(h.conf); got != "run/resolv.conf" {
			t.Errorf("link to %q", got)
		}
		h.want("nameserver 203.0.113.1\n")
		h.clean()
	}
}

func TestTrampledFileIsRepaired(t *testing.T) {
	const dhcp = "# by dhcp\nnameserver 203.0.113.1\n"
	h := newHost(t)
	h.write(lan)
	m := h.manager()
	h.set(m, wish)
	repaired := func(original string) func() bool {
		return func() bool { return h.read() == string(planResolvConf([]byte(original), wish)) }
	}

	h.write("") // somebody's shell redirection
	h.until("repair of an emptied file", repaired(lan))
	if err := os.Remove(h.conf); err != nil {
		t.Fatal(err)
	}
	h.until("repair of a removed file", repaired(lan))

	// A whole new file, moved into place: this is a DHCP client's.
	tmp := h.conf + ".dhcp"
	if err := os.WriteFile(tmp, []byte(dhcp), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, h.conf); err != nil {
		t.Fatal(err)
	}
	h.until("repair of a replaced file", repaired(dhcp))
	if got := fmt.Sprint(m.Base()); got != "[203.0.113.1:53]" {
		t.Errorf("base: %s", got)
	}
	h.close(m)
	h.want(dhcp)
	h.clean()
}

func TestStubbornWriterWins(t *testing.T) {
	h := newHost(t)
	h.write(lan)
	m := h.manager()
	h.set(m, wish)
	stop := time.Now().Add(4 * time.Second)
	n := 0
	for ; time.Now().Before(stop) && h.warn.Load() == nil; n++ {
		h.write(fmt.Sprintf("nameserver 203.0.113.%d\n", n%200+1))
		time.Sleep(2 * settle)
	}
	if h.warn.Load() == nil || !strings.Contains(*h.warn.Load(), h.conf) {
		t.Fatalf("no warning after %d overwrites", n)
	}
	if n < repairLimit {
		t.Errorf("gave up after %d overwrites", n)
	}
	h.write("nameserver 203.0.113.250\n")
	time.Sleep(4 * settle)
	h.want("nameserver 203.0.113.250\n")
	h.close(m)
	h.want("nameserver 203.0.113.250\n")
	h.clean()
}

func TestForeignFileSurvivesCleanup(t *testing.T) {
	h := newHost(t)
	h.write(lan)
	if err := writeJournal(h.opts.JournalDir, &journal{Mode: ModeDirect, Path: h.conf, Original: &original{Kind: kindFile, Content: []byte("nameserver 192.0.2.1\n")}}); err != nil {
		t.Fatal(err)
	}
	if err := CleanupWith(context.Background(), h.opts); err != nil {
		t.Fatal(err)
	}
	h.want(lan)
	h.clean()
}

func TestLostOrDamagedJournal(t *testing.T) {
	for _, damage := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.WriteFile(path, []byte("{half"), 0o600) },
	} {
		h := newHost(t)
		h.write(lan)
		m := h.manager().(*direct)
		h.set(m, wish)
		if err := damage(filepath.Join(h.opts.JournalDir, journalName)); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock() // it was killed
		m.original = nil
		m.mu.Unlock()
		next := h.manager()
		if got := fmt.Sprint(next.Base()); got != "[192.0.2.53:53 [2001:db8::53]:53]" {
			t.Errorf("base: %s", got)
		}
		if got := parseResolvConf([]byte(h.read())); fmt.Sprint(got) != fmt.Sprint(parseResolvConf([]byte(lan))) {
			t.Errorf("resolv.conf:\n%s", h.read())
		}
		h.clean()
	}
}

// The helper is this test's binary under another first argument: a process
// that can be killed.
const helperArg = "-podnet-osdns-helper"

func helperMain(args []string) int {
	m, err := New(context.Background(), Options{JournalDir: args[0], ResolvConf: args[1], NSSwitch: "/nonexistent"})
	if err == nil {
		fmt.Println("base", m.Base())
		if len(args) > 2 { // flap until killed
			for err == nil {
				if err = m.Set(context.Background(), []Config{wish}); err == nil {
					err = m.Set(context.Background(), nil)
				}
			}
		} else if err = m.Set(context.Background(), []Config{wish}); err == nil {
			fmt.Println("set", m.Base())
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestKilledAtAnyMoment(t *testing.T) {
	h := newHost(t)
	h.write(lan)
	for i := range 25 {
		cmd := exec.Command(os.Args[0], helperArg, h.opts.JournalDir, h.conf, "flap")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+i*3) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if stderr.Len() > 0 {
			t.Fatalf("round %d: %s", i, stderr.String())
		}
		for range 2 { // cleanup is idempotent
			if err := CleanupWith(context.Background(), h.opts); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			h.want(lan)
			h.clean()
		}
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
}

// In containers resolv.conf is a mount point: it cannot be replaced, only
// overwritten.
func TestBindMountedFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	h := newHost(t)
	source := filepath.Join(h.etc, "source")
	if err := os.WriteFile(source, []byte(lan), 0o644); err != nil {
		t.Fatal(err)
	}
	h.write("")
	script := `set -e
mount --bind "$1" "$2"
"$3" "$4" "$5" "$2" > "$5.out" & pid=$!
for i in $(seq 200); do grep -q ^set "$5.out" 2>/dev/null && break; sleep 0.02; done
cat "$5.out"; echo; cat "$1"
echo nameserver 203.0.113.9 > "$1"
for i in $(seq 100); do grep -q 198.18.0.9 "$1" && break; sleep 0.02; done
echo repaired; cat "$1"
kill -9 $pid; wait $pid || true
"$3" "$4" "$5" "$2" > "$5.out" & pid=$!
for i in $(seq 200); do grep -q ^set "$5.out" 2>/dev/null && break; sleep 0.02; done
echo again; cat "$5.out"
kill -9 $pid; wait $pid || true
`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", source, h.conf, os.Args[0], helperArg, h.opts.JournalDir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "unshare") {
			t.Skipf("no mount namespaces here: %s", stderr.String())
		}
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	dhcp := "nameserver 203.0.113.9\n"
	base := "[192.0.2.53:53 [2001:db8::53]:53]"
	want := fmt.Sprintf("base %s\nset %s\n\n%srepaired\n%sagain\nbase [203.0.113.9:53]\nset [203.0.113.9:53]\n", base, base,
		planResolvConf([]byte(lan), wish), planResolvConf([]byte(dhcp), wish))
	if string(out) != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
	// The mount has gone with its namespace; the file below it was never ours.
	h.want("")
	h.opts.ResolvConf = source
	j, err := readJournal(h.opts.JournalDir)
	if err != nil || j == nil {
		t.Fatalf("journal %v, %v", j, err)
	}
	j.Path = source
	if err := writeJournal(h.opts.JournalDir, j); err != nil {
		t.Fatal(err)
	}
	if err := CleanupWith(context.Background(), h.opts); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(source); string(b) != dhcp {
		t.Errorf("after cleanup: %q", b)
	}
}
