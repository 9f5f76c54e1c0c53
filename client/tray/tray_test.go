package tray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
	"podnet.dev/client/tray/fakedaemon"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is a Desktop that remembers.
type screen struct {
	clicks chan Action
	opened chan struct{}

	mu     sync.Mutex
	menu   Menu
	notes  []Note
	copied string
	page   string
	login  bool
	broken error // of the clipboard
}

func (s *screen) Show(m Menu)             { s.mu.Lock(); defer s.mu.Unlock(); s.menu = m }
func (s *screen) Notify(n Note)           { s.mu.Lock(); defer s.mu.Unlock(); s.notes = append(s.notes, n) }
func (s *screen) Clicks() <-chan Action   { return s.clicks }
func (s *screen) Opened() <-chan struct{} { return s.opened }
func (s *screen) StartsAtLogin() (on, can bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.login, true
}
func (s *screen) SetStartsAtLogin(on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = on
	return nil
}

func (s *screen) Copy(_ context.Context, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copied = text
	return s.broken
}

func (s *screen) Open(url string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page = url
	return nil
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var w strings.Builder
	fmt.Fprintf(&w, "icon %s, %s\n", s.menu.Icon, s.menu.Title)
	print(&w, s.menu.Items, "")
	return w.String()
}

// heard are the titles of the notes.
func (s *screen) heard() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notes {
		all = append(all, n.Title)
	}
	return all
}

// user sits before a screen.
type user struct {
	t      *testing.T
	screen *screen
	config config.Store
	daemon *fakedaemon.Daemon
	socket string
	start  func(context.Context) error
	over   chan struct{}
}

// sit begins a tray without a daemon.
func sit(t *testing.T) *user {
	environ := []string{"KUBECONFIG=/k", "XDG_CONFIG_HOME=" + t.TempDir()}
	u := &user{t: t, screen: &screen{clicks: make(chan Action), opened: make(chan struct{})}, config: config.StoreOf(environ),
		daemon: fakedaemon.New(), socket: filepath.Join(t.TempDir(), "d.sock"), over: make(chan struct{})}
	u.daemon.Contexts = contexts()
	u.start = func(context.Context) error {
		if _, err := os.Stat(u.socket); err != nil {
			u.daemon.Start(t, u.socket)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(u.over)
		_ = Run(ctx, Options{Client: localapi.NewClient(u.socket), Desktop: u.screen, Environ: environ, Version: "dev", Docs: "file:///docs/index.html",
			StartDaemon: func(ctx context.Context) error { return u.start(ctx) }, Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() { cancel(); <-u.over })
	return u
}

func (u *user) click(a Action) {
	u.t.Helper()
	select {
	case u.screen.clicks <- a:
	case <-time.After(5 * time.Second):
		u.t.Fatal("nobody takes the click")
	}
}

// sees waits until the screen has all of the pieces.
func (u *user) sees(pieces ...string) {
	u.t.Helper()
	u.until(func() error {
		text := u.screen.text()
		for _, p := range pieces {
			if !strings.Contains(text, p) {
				return fmt.Errorf("no %q in:\n%s", p, text)
			}
		}
		return nil
	})
}

func (u *user) until(holds func() error) {
	u.t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	u.t.Fatal(err)
}

func TestConnectStartsTheDaemon(t *testing.T) {
	u := sit(t)
	u.sees("icon off, Not connected", "List the contexts of the kubeconfig")
	u.click(Action{Verb: ListContexts})
	u.sees("Connect to staging / shop", "[ ] kind_dev / default", "[ ] blue")
	u.until(func() error { // by the click, and because a daemon runs
		if n := u.daemon.Listed(); n < 2 {
			return fmt.Errorf("listed %d times", n)
		}
		return nil
	})
	u.daemon.Stop()
	u.sees("icon off", "[ ] blue") // it remembers what there was
	u.click(Action{Verb: Connect})
	u.sees("icon on, Connected to staging / shop - 12 ms", "[x] staging / shop")
	u.click(Action{Verb: ConnectContext, Name: "blue"})
	u.sees("Connected to staging / shop and blue", "Disconnect all")
	u.click(Action{Verb: Disconnect, Session: "blue"})
	u.sees("icon on, Connected to staging / shop - 12 ms", "[ ] blue")
	u.click(Action{Verb: DisconnectAll})
	u.sees("icon off, Not connected")
	for i, want := range []string{"map[]", "map[context:[blue]]"} {
		if got := u.daemon.Requests()[i]; fmt.Sprint(got.Kube.Flags) != want || got.Kube.Env[0] != "KUBECONFIG=/k" || got.Reconnect {
			t.Errorf("request %d: %+v", i, got)
		}
	}
	want := []string{"Connected to staging / shop", "Connected to blue / shop", "Disconnected from blue", "Disconnected from staging"}
	u.until(func() error {
		if got := u.screen.heard(); !slices.Equal(got, want) {
			return fmt.Errorf("heard %q, want %q", got, want)
		}
		return nil
	})
}

func TestWhyItDoesNotConnect(t *testing.T) {
	u := sit(t)
	u.start = func(context.Context) error { return errors.New("the program podnet is not there") }
	u.click(Action{Verb: Connect})
	u.sees("icon error, Not connected: the program podnet is not there")
	u.start = func(context.Context) error { u.daemon.Start(t, u.socket); return nil }
	u.daemon.Refuse = &localapi.Error{Code: localapi.CodeForbidden, Message: "you may not", Hint: "ask for it"}
	u.click(Action{Verb: Connect})
	u.sees("icon error, Not connected: you may not", "ask for it   => copy ask for it")
	if got := u.screen.heard(); !slices.Equal(got, []string{"Could not connect", "Could not connect"}) {
		t.Errorf("heard %q", got)
	}
}

// TestConfiguration is heeded as it is when something is clicked.
func TestConfiguration(t *testing.T) {
	u := sit(t)
	u.daemon.Start(t, u.socket)
	pay := localapi.Profile{Name: "pay", Connect: localapi.Words{Context: "blue", Namespaces: []string{"pay"}}}
	for _, err := range []error{u.config.Set("defaults.path", "udp"), u.config.SaveProfile(pay)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	u.sees("icon off")
	u.screen.opened <- struct{}{}
	u.sees("[ ] pay (profile)")
	u.click(Action{Verb: ConnectProfile, Name: "pay"})
	u.sees("Connected to pay / shop")
	if r := u.daemon.Requests()[0]; r.Name != "pay" || r.Path != "udp" || fmt.Sprint(r.Kube.Flags, r.Namespaces) != "map[context:[blue]] [pay]" {
		t.Errorf("asked for %+v", r)
	}
	u.click(Action{Verb: DisconnectAll})
	u.sees("icon off")
	if err := os.WriteFile(u.config.User, []byte("nonsense: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.click(Action{Verb: Connect})
	u.sees("icon error, Not connected: " + u.config.User[:20])
}

func TestConnectingIsGivenUp(t *testing.T) {
	u := sit(t)
	u.daemon.Hold, u.daemon.Refuse = make(chan struct{}), &localapi.Error{Code: localapi.CodeCanceled, Message: "given up"}
	u.click(Action{Verb: ConnectContext, Name: "staging"})
	u.sees("icon connecting, Connecting to staging...")
	u.click(Action{Verb: ConnectContext, Name: "blue"}) // one at a time
	c := fakedaemon.Ready("staging", "shop")
	c.Since, c.Phase = nil, localapi.PhaseHandshake
	u.daemon.Change(func(s *localapi.Status) { s.State, s.Connections = localapi.Connecting, []localapi.Connection{c} })
	u.sees("Connecting to staging (handshake)...", "Cancel   => disconnect-all")
	u.click(Action{Verb: DisconnectAll})
	close(u.daemon.Hold)
	u.sees("icon off, Not connected")
	if n := len(u.daemon.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestDaemonComesAndGoes as others start it, kill it, and start it again.
func TestDaemonComesAndGoes(t *testing.T) {
	u := sit(t)
	u.daemon.Change(func(s *localapi.Status) {
		*s = connected(localapi.Connected, fakedaemon.Ready("staging", "shop"))
	})
	u.daemon.Start(t, u.socket)
	u.sees("icon on, Connected to staging")
	u.daemon.Stop()
	u.sees("icon off, Not connected")
	u.daemon.Start(t, u.socket)
	u.screen.opened <- struct{}{} // somebody looks: no need to wait
	u.sees("icon on, Connected to staging")
	u.daemon.Change(func(s *localapi.Status) {
		s.State, s.Warnings = localapi.Degraded, []localapi.Warning{{Connection: "staging", Severity: "high", Text: "the gateway does not answer"}}
	})
	u.sees("icon degraded, staging / shop is degraded: the gateway does not answer", "Warnings (1)")
}

func TestClicksReachTheSessions(t *testing.T) {
	u := sit(t)
	blue := fakedaemon.Ready("blue", "pay")
	blue.Primary, blue.AllNamespaces = true, true
	blue.Steering.Count = 1
	u.daemon.Change(func(s *localapi.Status) {
		*s = connected(localapi.Connected, fakedaemon.Ready("staging", "shop"), blue)
	})
	u.daemon.Namespaces = []string{"pay", "shop"}
	u.daemon.Services = []localapi.Service{{Namespace: "pay", Name: "web", ClusterIP: "10.96.0.10", Ports: []localapi.ServicePort{{Port: 80, URL: "http://web.pay"}}}}
	u.daemon.Rules = []localapi.SteerRule{{Name: "web-8080", Namespace: "pay", Target: "deploy/web", Port: "8080", Local: "127.0.0.1:3000"}}
	u.daemon.Start(t, u.socket)
	u.sees("[ ] shop   => namespace blue shop", "http://web.pay", "Stop web-8080")
	for _, a := range []Action{
		{SetNamespace, "blue", "shop"}, {SetPrimary, "staging", ""}, {StopRule, "blue", "web-8080"}, {Copy, "", "http://web.pay"}, {Verb: StartAtLogin}, {Verb: Reconnect}, {Verb: OpenDashboard},
	} {
		u.click(a)
	}
	u.sees("[x] Start at login", "[x] Reconnect automatically")
	u.until(func() error {
		got := u.daemon.Asked()
		slices.Sort(got)
		if want := []string{"DELETE /v1/steer/web-8080?session=blue", "POST /v1/namespace?session=blue", "POST /v1/primary", "POST /v1/ui"}; !slices.Equal(got, want) {
			return fmt.Errorf("asked %q, want %q", got, want)
		}
		u.screen.mu.Lock()
		defer u.screen.mu.Unlock()
		if u.screen.copied != "http://web.pay" || u.screen.page != "http://127.0.0.1:1/?token=x" {
			return fmt.Errorf("copied %q, opened %q", u.screen.copied, u.screen.page)
		}
		return nil
	})
	u.click(Action{Verb: OpenDocs})
	u.until(func() error {
		u.screen.mu.Lock()
		defer u.screen.mu.Unlock()
		if u.screen.page != "file:///docs/index.html" {
			return fmt.Errorf("opened %q", u.screen.page)
		}
		return nil
	})
	if c, err := u.config.Load(); err != nil || c.Flag("reconnect") != "true" {
		t.Errorf("the preference is forgotten: %v", err)
	}
}

func TestDiagnostics(t *testing.T) {
	u := sit(t)
	u.daemon.Findings = []localapi.Finding{{Check: "path/udp", Result: localapi.ResultOK, Text: "answers"}, {Check: "cluster/connection", Result: localapi.ResultProblem, Text: "is away", Fix: "wait"}}
	u.click(Action{Verb: Notifications})
	u.sees("[ ] Notifications")
	u.click(Action{Verb: Notifications})
	u.sees("[x] Notifications")
	u.click(Action{Verb: CopyDiagnostics})
	u.until(func() error {
		if got := u.screen.heard(); !slices.Equal(got, []string{"The diagnostics are in the clipboard"}) {
			return fmt.Errorf("heard %q", got)
		}
		return nil
	})
	var found localapi.Findings
	if err := json.Unmarshal([]byte(u.screen.copied), &found); err != nil || found.Kind != "Findings" || len(found.Findings) != 2 {
		t.Errorf("%v in %s", err, u.screen.copied)
	}
	u.screen.mu.Lock()
	u.screen.broken = &localapi.Error{Message: "nothing here can fill the clipboard", Hint: "install xclip"}
	u.screen.mu.Unlock()
	u.click(Action{Verb: Notifications})
	u.sees("[ ] Notifications")
	u.click(Action{Verb: CopyDiagnostics}) // what was asked for and cannot be done is told anyhow
	u.until(func() error {
		if got := u.screen.heard(); len(got) != 2 || got[1] != "podnet could not do that" {
			return fmt.Errorf("heard %q", got)
		}
		return nil
	})
}

func TestQuit(t *testing.T) {
	for verb, left := range map[Verb]int{Quit: 1, QuitAll: 0} {
		u := sit(t)
		u.click(Action{Verb: Connect})
		u.sees("icon on")
		u.click(Action{Verb: verb})
		select {
		case <-u.over:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s does not", verb)
		}
		s, err := localapi.NewClient(u.socket).Status(t.Context())
		if err != nil || len(s.Connections) != left {
			t.Errorf("%s leaves %d sessions, want %d (%v)", verb, len(s.Connections), left, err)
		}
	}
}
