package desktop

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"podnet.dev/client/localapi"
	"podnet.dev/client/tray"
	"podnet.dev/client/tray/desktop/fakepanel"
	"podnet.dev/client/tray/fakedaemon"
)

// socketVariable makes this test binary, run again, a tray: the library for icons
// works once in a process.
const socketVariable = "PODNET_TEST_TRAY_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVariable); socket != "" {
		os.Exit(beTray(socket))
	}
	os.Exit(m.Run())
}

func beTray(socket string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client := localapi.NewClient(socket)
	err := Run(ctx, Options{Environ: os.Environ(), Talk: os.Stderr, Tray: tray.Options{
		Client: client, Environ: os.Environ(), Version: "dev", Log: slog.New(slog.DiscardHandler),
		StartDaemon: func(ctx context.Context) error { _, err := client.Version(ctx); return err },
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// session is a desktop session of a user, with nothing in it at first.
type session struct {
	t      *testing.T
	dir    string // home, runtime folder, and what programs there are
	daemon *fakedaemon.Daemon
}

func newSession(t *testing.T) *session {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("dbus-daemon is not here (package dbus)")
	}
	s := &session{t, t.TempDir(), fakedaemon.New()}
	s.daemon.Contexts = []localapi.Context{{Name: "gke_shop_west", Namespace: "shop", Current: true}, {Name: "blue"}}
	s.daemon.Start(t, s.file("daemon.sock"))
	return s
}

func (s *session) file(name string) string { return filepath.Join(s.dir, name) }

// bus begins the session bus where a login has it, and connects the test.
func (s *session) bus() (conn *dbus.Conn, end func()) {
	s.t.Helper()
	address := "unix:path=" + s.file("bus")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1", "--address="+address)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s.t.Cleanup(end)
	if !bufio.NewScanner(out).Scan() {
		s.t.Fatal("dbus-daemon says nothing")
	}
	if conn, err = dbus.Connect(address); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn, end
}

// program is a run of the tray.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	over chan struct{}

	mu   sync.Mutex
	talk bytes.Buffer
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.talk.Write(b)
}
func (p *program) said() string { p.mu.Lock(); defer p.mu.Unlock(); return p.talk.String() }

func (s *session) tray(more ...string) *program {
	s.t.Helper()
	p := &program{t: s.t, cmd: exec.Command(os.Args[0]), over: make(chan struct{})}
	p.cmd.Env = append([]string{socketVariable + "=" + s.file("daemon.sock"), "XDG_RUNTIME_DIR=" + s.dir, "HOME=" + s.dir, "PATH=" + s.dir + ":" + os.Getenv("PATH")}, more...)
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { defer close(p.over); _ = p.cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.over
		if s.t.Failed() {
			s.t.Logf("the tray said:\n%s", p.said())
		}
	})
	return p
}

// ends waits until the program has ended, with a status.
func (p *program) ends(status int) {
	p.t.Helper()
	select {
	case <-p.over:
		if got := p.cmd.ProcessState.ExitCode(); got != status {
			p.t.Errorf("exit status %d, want %d", got, status)
		}
	case <-time.After(10 * time.Second):
		p.t.Fatal("it does not end")
	}
}

func (p *program) says(piece string) {
	p.t.Helper()
	until(p.t, func() error {
		if got := p.said(); !strings.Contains(got, piece) {
			return fmt.Errorf("no %q in: %s", piece, got)
		}
		return nil
	})
}

func until(t *testing.T, holds func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// panel is one that is in the session.
func (s *session) panel(bus *dbus.Conn) *fakepanel.Panel {
	s.t.Helper()
	p, err := fakepanel.New(bus)
	if err == nil {
		err = p.Appear()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func icon(t *testing.T, p *fakepanel.Panel) fakepanel.Item {
	t.Helper()
	select {
	case it := <-p.Items():
		return it
	case <-time.After(10 * time.Second):
		t.Fatal("no icon")
		return fakepanel.Item{}
	}
}

// shows waits until the menu has all of the pieces, under a title of its own.
func shows(t *testing.T, it fakepanel.Item, c tray.Icon, title string, pieces ...string) {
	t.Helper()
	until(t, func() error {
		lines, err := it.Menu()
		if err != nil {
			return err
		}
		for _, p := range pieces {
			if text := fakepanel.Text(lines); !strings.Contains(text, p) {
				return fmt.Errorf("no %q in:\n%s", p, text)
			}
		}
		if got, err := it.Title(); err != nil || got != title {
			return fmt.Errorf("title %q, want %q (%v)", got, title, err)
		}
		want := c.Color()
		if got, err := it.Color(); err != nil || got != fmt.Sprintf("#%02x%02x%02x", want.R, want.G, want.B) {
			return fmt.Errorf("colour %s, want that of %v (%v)", got, c, err)
		}
		return nil
	})
}

// TestDesktopComesLater than the tray, piece by piece, and goes before it.
func TestDesktopComesLater(t *testing.T) {
	s := newSession(t)
	p := s.tray()
	p.says("no desktop session to show an icon in yet")
	bus, end := s.bus()
	p.says("no panel here shows status icons yet")
	it := icon(t, s.panel(bus))
	shows(t, it, tray.IconOff, "Not connected", "Connect to gke_shop_west / shop\n", "Connections\n", "    blue\n")
	end()
	p.ends(0)
}

func TestPanelRestarts(t *testing.T) {
	s := newSession(t)
	bus, _ := s.bus()
	panel := s.panel(bus)
	p := s.tray()
	it := icon(t, panel)
	shows(t, it, tray.IconOff, "Not connected", "    blue\n")
	for range 2 {
		if err := panel.Vanish(); err != nil {
			t.Fatal(err)
		}
		if err := panel.Appear(); err != nil {
			t.Fatal(err)
		}
		it = icon(t, panel)
		shows(t, it, tray.IconOff, "Not connected", "    blue\n")
	}
	s.daemon.Change(func(st *localapi.Status) {
		c := fakedaemon.Ready("blue", "shop")
		st.State, st.Connections = localapi.Connected, []localapi.Connection{c}
	})
	shows(t, it, tray.IconOn, "Connected to blue / shop - 12 ms", "    * blue / shop\n")
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.ends(0)
}

func TestOneTrayIsEnough(t *testing.T) {
	s := newSession(t)
	bus, _ := s.bus()
	panel := s.panel(bus)
	s.tray()
	icon(t, panel)
	second := s.tray()
	second.says("podnet-tray runs already")
	second.ends(1)
}

// notifications keeps what is to be shown.
type notifications struct{ titles chan string }

func (n notifications) Notify(_ string, _ uint32, _, title, text string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	n.titles <- title + " | " + text
	return 1, nil
}

// TestClicks go all the way, from the bus to the daemon and back.
func TestClicks(t *testing.T) {
	s := newSession(t)
	bus, _ := s.bus()
	heard := notifications{make(chan string, 8)}
	if err := bus.Export(heard, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName("org.freedesktop.Notifications", 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file("xclip"), []byte("#!/bin/sh\ncat > "+s.file("clipboard")+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.daemon.Services = []localapi.Service{{Namespace: "shop", Name: "web", ClusterIP: "10.96.0.10", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 80, URL: "http://web.shop"}}}}
	panel := s.panel(bus)
	s.tray("DISPLAY=:7")
	it := icon(t, panel)
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-heard.titles:
			if got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %q", want)
		}
	}
	click := func(labels ...string) {
		t.Helper()
		if err := it.Click(labels...); err != nil {
			t.Fatal(err)
		}
	}
	shows(t, it, tray.IconOff, "Not connected", "    blue\n")
	click("Connections", "blue")
	shows(t, it, tray.IconOn, "Connected to blue / shop - 12 ms", "http://web.shop   10.96.0.10:80")
	hears("Connected to blue / shop | Path: udp to 203.0.113.7:31820, 12 ms")

	click("Services", "http://web.shop")
	hears("Copied | http://web.shop")
	if got, err := os.ReadFile(s.file("clipboard")); err != nil || string(got) != "http://web.shop" {
		t.Errorf("the clipboard has %q, %v", got, err)
	}

	click("Preferences", "Start at login")
	shows(t, it, tray.IconOn, "Connected to blue / shop - 12 ms", "    * Start at login\n")
	file, err := os.ReadFile(s.file(".config/autostart/podnet-tray.desktop"))
	if err != nil || !strings.Contains(string(file), "\nExec=\""+os.Args[0]+"\"\n") {
		t.Errorf("the file says %s, %v", file, err)
	}
	click("Preferences", "Start at login")
	shows(t, it, tray.IconOn, "Connected to blue / shop - 12 ms", "    Start at login\n")

	s.daemon.Change(func(st *localapi.Status) {
		st.State, st.Warnings = localapi.Degraded, []localapi.Warning{{Connection: "blue", Severity: "high", Text: "the gateway <b> does not answer"}}
	})
	shows(t, it, tray.IconDegraded, "blue / shop is degraded: the gateway <b> does not answer", "Warnings (1)\n")
	hears("blue is degraded | the gateway &lt;b&gt; does not answer")
	click("Disconnect")
	shows(t, it, tray.IconOff, "Not connected", "\nQuit\n")
	hears("Disconnected from blue | ")
}
