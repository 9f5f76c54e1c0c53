package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSession connects when told to.
type fakeSession struct {
	req    localapi.ConnectRequest
	events func(localapi.Event)
	host   *fakeHost
	Steering
	Exposing
	Naming
	Probing
	Catalog

	mu      sync.Mutex
	phase   localapi.Phase
	primary bool
}

// fakeHost is what sessions change: how many have it at once, and what fails.
type fakeHost struct {
	mu      sync.Mutex
	inUse   int
	peak    int
	made    int
	hold    chan struct{} // connecting waits for it
	fail    error
	end     chan error          // ends a ready session
	later   chan localapi.Event // happen to a ready session
	undoing time.Duration
	stuck   bool // nobody becomes primary
	told    told

	steering Steering
	exposing Exposing
	catalog  Catalog
}

func (h *fakeHost) session(req localapi.ConnectRequest, events func(localapi.Event)) Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.made++
	return &fakeSession{req: req, events: events, host: h, Steering: h.steering, Exposing: h.exposing, Catalog: h.catalog}
}

func (h *fakeHost) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inUse += n
	h.peak = max(h.peak, h.inUse)
}

func (h *fakeHost) count() (inUse, made int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse, h.made
}

func (f *fakeSession) Run(ctx context.Context) error {
	f.host.add(1)
	defer f.host.add(-1)
	defer time.Sleep(f.host.undoing)
	f.events(localapi.Event{Type: localapi.EventPhase, Phase: localapi.PhaseAuth})
	select {
	case <-f.host.hold:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.host.mu.Lock()
	fail := f.host.fail
	f.host.mu.Unlock()
	if fail != nil {
		return fail
	}
	f.mu.Lock()
	f.phase = localapi.PhaseReady
	f.mu.Unlock()
	f.events(localapi.Event{Type: localapi.EventReady})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-f.host.end:
			return err
		case e := <-f.host.later:
			f.events(e)
		}
	}
}

func (f *fakeSession) Status() (localapi.Connection, []localapi.Warning) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return localapi.Connection{Name: "kind", Namespaces: f.req.Namespaces, Phase: f.phase}, nil
}

func (f *fakeSession) SetPrimary(_ context.Context, yes bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	if f.host.stuck && f.phase == localapi.PhaseReady && yes {
		return errors.New("the resolver is stuck")
	}
	f.primary = yes
	return nil
}

// start runs a daemon until the test ends and returns its client.
func start(t *testing.T, h *fakeHost, edit func(*Options)) (*localapi.Client, string, chan error) {
	t.Helper()
	if h.hold == nil {
		h.hold = make(chan struct{})
		close(h.hold)
	}
	if h.end == nil {
		h.end = make(chan error)
	}
	o := Options{Socket: filepath.Join(t.TempDir(), "run", "d.sock"), NewSession: h.session, Log: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o); close(done) }()
	t.Cleanup(func() {
		cancel()
		for range done {
		}
		if n, _ := h.count(); n != 0 {
			t.Errorf("%d sessions were not undone", n)
		}
	})
	c := localapi.NewClient(o.Socket)
	eventually(t, "the daemon answers", func() bool { _, err := c.Version(t.Context()); return err == nil })
	return c, o.Socket, done
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func state(t *testing.T, c *localapi.Client) localapi.State {
	t.Helper()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.State
}

func ignore(localapi.Event) {}

func TestConnectStatusDisconnect(t *testing.T) {
	c, _, _ := start(t, &fakeHost{}, nil)
	if got := state(t, c); got != localapi.Disconnected {
		t.Errorf("state %s before", got)
	}
	var phases []string
	s, err := c.Connect(t.Context(), localapi.ConnectRequest{Namespaces: []string{"shop"}}, func(e localapi.Event) {
		phases = append(phases, string(e.Type))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.State != localapi.Connected || len(s.Connections) != 1 || s.Connections[0].Namespaces[0] != "shop" || s.Since == nil {
		t.Errorf("status %+v", s)
	}
	if got := strings.Join(phases, " "); got != "phase ready" {
		t.Errorf("events %q", got)
	}
	for want := 1; want >= 0; want-- { // the second time there is nothing to do
		r, err := c.Disconnect(t.Context())
		if err != nil || r.Sessions != want {
			t.Errorf("disconnect = %+v, %v, want %d sessions", r, err, want)
		}
	}
	if got := state(t, c); got != localapi.Disconnected {
		t.Errorf("state %s after", got)
	}
}

func TestConnectTwiceIsOneSession(t *testing.T) {
	h := &fakeHost{hold: make(chan struct{})}
	c, _, _ := start(t, h, nil)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(h.hold)
	wg.Wait()
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Error(err)
	}
	if _, made := h.count(); made != 1 {
		t.Errorf("%d sessions were made", made)
	}
}

func TestConnectElsewhereIsRefused(t *testing.T) {
	c, _, _ := start(t, &fakeHost{}, nil)
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{Namespaces: []string{"shop"}}, ignore); err != nil {
		t.Fatal(err)
	}
	_, err := c.Connect(t.Context(), localapi.ConnectRequest{Namespaces: []string{"pay"}}, ignore)
	var e *localapi.Error
	if !errors.As(err, &e) || e.Code != localapi.CodeConflict || e.Hint == "" {
		t.Errorf("got %#v, want a conflict with a hint", err)
	}
}

func TestFailureNamesPhaseAndHint(t *testing.T) {
	want := &localapi.Error{Code: localapi.CodeForbidden, Message: "alice may not", Hint: "ask", Phase: "gateway"}
	c, _, _ := start(t, &fakeHost{fail: fmt.Errorf("%w", want)}, nil)
	_, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore)
	var e *localapi.Error
	if !errors.As(err, &e) || *e != *want {
		t.Fatalf("got %#v, want %#v", err, want)
	}
	s, err := c.Status(t.Context())
	if err != nil || s.State != localapi.Failed || s.LastError == nil || s.LastError.Code != localapi.CodeForbidden {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestInterruptedConnectIsGivenUp(t *testing.T) {
	h := &fakeHost{hold: make(chan struct{}), undoing: 30 * time.Millisecond}
	c, _, _ := start(t, h, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Connect(ctx, localapi.ConnectRequest{}, func(localapi.Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	eventually(t, "the attempt is undone", func() bool { inUse, _ := h.count(); return inUse == 0 })
	close(h.hold)
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Fatal(err)
	}
	if inUse, made := h.count(); inUse != 1 || made != 2 {
		t.Errorf("%d in use of %d made", inUse, made)
	}
}

func TestNextSessionWaitsForTheLastOnesUndoing(t *testing.T) {
	h := &fakeHost{undoing: 20 * time.Millisecond}
	c, _, _ := start(t, h, nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
					var e *localapi.Error
					if !errors.As(err, &e) || e.Code != localapi.CodeCanceled {
						t.Error(err)
					}
				}
				if _, err := c.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, made := h.count(); h.peak != 1 || made < 5 {
		t.Errorf("at most %d at once of %d made, want 1 of at least 5", h.peak, made)
	}
}

func TestSessionThatEndsSaysWhy(t *testing.T) {
	h := &fakeHost{end: make(chan error)}
	c, _, _ := start(t, h, nil)
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Fatal(err)
	}
	h.end <- &localapi.Error{Code: localapi.CodeEnded, Message: "the peer was deleted"}
	eventually(t, "the status says why", func() bool {
		s, err := c.Status(t.Context())
		return err == nil && s.State == localapi.Failed && s.LastError != nil && s.LastError.Code == localapi.CodeEnded
	})
}

func TestOnDemandDaemonEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		_, _, done := start(t, &fakeHost{}, func(o *Options) { o.OnDemand, o.Idle = true, 50*time.Millisecond })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("after disconnect", func(t *testing.T) {
		c, socket, done := start(t, &fakeHost{}, func(o *Options) { o.OnDemand, o.Idle = true, time.Hour })
		if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
			t.Fatal(err)
		}
		r, err := c.Disconnect(t.Context())
		if err != nil || !r.Exits || r.Sessions != 1 {
			t.Errorf("disconnect = %+v, %v", r, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("not while connected", func(t *testing.T) {
		c, _, done := start(t, &fakeHost{}, func(o *Options) { o.OnDemand, o.Idle = true, 500*time.Millisecond })
		if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			t.Error("ended in mid-session")
		case <-time.After(150 * time.Millisecond):
		}
	})
}

func TestDoctor(t *testing.T) {
	hold := make(chan struct{})
	var asked localapi.DoctorRequest
	c, _, done := start(t, &fakeHost{}, func(o *Options) {
		o.OnDemand, o.Idle = true, 500*time.Millisecond
		o.Doctor = func(ctx context.Context, req localapi.DoctorRequest, status func() localapi.Status, say func(localapi.Finding)) error {
			asked = req
			say(localapi.Finding{Check: "host/session", Result: localapi.ResultOK, Text: string(status().State)})
			select {
			case <-hold: // longer than the daemon is patient
			case <-ctx.Done():
				return ctx.Err()
			}
			say(localapi.Finding{Check: "host/dns", Result: localapi.ResultProblem, Text: "broken", Fix: "mend it"})
			return nil
		}
	})
	var got []string
	time.AfterFunc(time.Second, func() { close(hold) })
	err := c.Doctor(t.Context(), localapi.DoctorRequest{GatewayNamespace: "net"}, func(f localapi.Finding) { got = append(got, f.Check+" "+f.Text) })
	if want := "host/session Disconnected, host/dns broken"; err != nil || strings.Join(got, ", ") != want || asked.GatewayNamespace != "net" {
		t.Errorf("got %q, want %q (%v, asked for %+v)", got, want, err, asked)
	}
	if err := <-done; err != nil { // and now there is nothing to do
		t.Error(err)
	}
}

func TestInterruptedDoctorIsGivenUp(t *testing.T) {
	over := make(chan error, 1)
	c, _, _ := start(t, &fakeHost{}, func(o *Options) {
		o.Doctor = func(ctx context.Context, _ localapi.DoctorRequest, _ func() localapi.Status, say func(localapi.Finding)) error {
			say(localapi.Finding{})
			<-ctx.Done()
			over <- ctx.Err()
			return ctx.Err()
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Doctor(ctx, localapi.DoctorRequest{}, func(localapi.Finding) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	<-over
}

func TestOneDaemonPerSocket(t *testing.T) {
	_, socket, _ := start(t, &fakeHost{}, nil)
	err := Run(t.Context(), Options{Socket: socket, NewSession: (&fakeHost{}).session, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, ErrRunning) {
		t.Errorf("got %v, want ErrRunning", err)
	}
}

func TestSocketIsPrivateAndStaleOneReplaced(t *testing.T) {
	h := &fakeHost{}
	_, socket, _ := start(t, h, func(o *Options) {
		if err := os.MkdirAll(filepath.Dir(o.Socket), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.Socket, nil, 0o666); err != nil { // of a daemon that was killed
			t.Fatal(err)
		}
	})
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestWebPagesAreRefused(t *testing.T) {
	_, socket, _ := start(t, &fakeHost{}, nil)
	ours := "Host: " + localapi.Host + "\r\n"
	for name, header := range map[string]string{
		"origin":         ours + "Origin: http://evil.example\r\n",
		"of nowhere":     ours + "Origin: null\r\n",
		"referer":        ours + "Referer: http://evil.example/page\r\n",
		"fetched":        ours + "Sec-Fetch-Site: none\r\n",
		"host":           "Host: evil.example\r\n",
		"an address":     "Host: 127.0.0.1:8080\r\n",
		"no host":        "Host:\r\n",
		"a suffix of it": "Host: " + localapi.Host + ".evil.example\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []string{"POST /v1/disconnect", "GET /v1/status", "DELETE /v1/profiles/lab", "GET /nothing"} {
				resp, body := ask(t, socket, fmt.Sprintf("%s HTTP/1.1\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", call, header))
				if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s: %s %s", call, resp.Status, body)
				}
			}
		})
	}
	// A form is what a page can send without asking first.
	resp, body := ask(t, socket, "POST /v1/connect HTTP/1.1\r\n"+ours+"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %s %s", resp.Status, body)
	}
}

// ask sends a request as it stands.
func ask(t *testing.T, socket, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestStartSaysWhyItDidNot(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "daemon.log")
	err := Start(t.Context(), filepath.Join(dir, "none.sock"), log, "/bin/sh", "-c", "echo first; echo cannot open tun >&2; exit 1")
	var e *localapi.Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, "cannot open tun") || !strings.Contains(e.Hint, log) {
		t.Errorf("got %v", err)
	}
}
