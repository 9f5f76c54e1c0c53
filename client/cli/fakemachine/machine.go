// Package fakemachine is a machine with podnet's command line and daemon, and no cluster,
// for tests of what commands do.
package fakemachine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/daemon"
	"podnet.dev/client/localapi"
)

// Machine is one user's machine: the command line and the daemon that it starts, in this
// process. Its fields are set before a command line runs, and read after it.
type Machine struct {
	t *testing.T
	// Socket is the daemon's. Started counts the daemons, Log is what they say their log
	// file is.
	Socket  string
	Started int
	Log     string

	// Environ is the user's environment beside the socket, Ask answers for them.
	Environ []string
	Ask     func(context.Context, string) bool
	// When this is printed, Then is called.
	When string
	Then func()

	// Last is what was last asked of a session, which fails for a reason or is never
	// ready. Where says which cluster is meant.
	Last  localapi.ConnectRequest
	Fail  error
	Never bool
	Where func(localapi.Kube) (context, server string, err error)
	// What sessions and the daemon do.
	Steering Steering
	Exposing Exposing
	Exports  Exports
	Names    Names
	Ways     Ways
	// Findings are the doctor's, Examined is what it was asked for.
	Findings []localapi.Finding
	Examined localapi.DoctorRequest

	// What clusters do.
	Install Installer
	Admin   Admin
	Cluster *Cluster
	// What the machine does: see the fields of the same names of cli.Env.
	Proxy       func(context.Context, outbound.ProxyOptions) error
	Spawn       func([]string) (*outbound.Spawned, error)
	Rooms       outbound.Rooms
	Privileged  bool
	Signals     func() (<-chan os.Signal, func())
	Environment func(context.Context, outbound.ContainerRequest) (outbound.ContainerEnvironment, error)
	LogFile     string
	autostart   autostart
	// Cleaned counts how often what a killed daemon left was taken back.
	Cleaned int
}

// New is a machine where nothing runs.
func New(t *testing.T) *Machine {
	return &Machine{t: t, Socket: filepath.Join(t.TempDir(), "run", "d.sock")}
}

// screenful is what was printed; with the word when it calls then.
type screenful struct {
	text bytes.Buffer
	when string
	then func()
}

func (s *screenful) String() string { return s.text.String() }

func (s *screenful) Write(p []byte) (int, error) {
	if s.when != "" && strings.Contains(string(p), s.when) {
		defer s.then()
	}
	return s.text.Write(p)
}

// Result is what became of a command line.
type Result struct {
	Code        int
	Out, Stderr string
}

// Podnet runs a command line.
func (m *Machine) Podnet(args ...string) Result {
	m.t.Helper()
	return m.PodnetContext(m.t.Context(), args...)
}

// PodnetContext runs one until ctx is done.
func (m *Machine) PodnetContext(ctx context.Context, args ...string) Result {
	m.t.Helper()
	out, errs := screenful{when: m.When, then: m.Then}, bytes.Buffer{}
	env := cli.Env{
		Env: caller.Env{
			In: strings.NewReader(""), Out: &out, Err: &errs, Environ: append([]string{"PODNET_SOCKET=" + m.Socket}, m.Environ...),
			Kube: NewKube(), Ask: m.Ask, StartDaemon: m.StartDaemon,
		},
		Host: outbound.Host{
			Proxy: m.Proxy, Spawn: m.Spawn, Rooms: m.Rooms, Privileged: func() bool { return m.Privileged }, Signals: m.Signals, ContainerEnvironment: m.Environment,
		},
		Clusters: admin.Clusters{Installer: &m.Install, Admin: &m.Admin, DefaultImage: "podnet.dev/gateway:test", DefaultAgentImage: "podnet.dev/agent:test"},
		Cleanup:  func(context.Context) error { m.Cleaned++; return nil },
		Guard:    func(string, io.Reader) error { return nil }, LogFile: m.LogFile, Autostart: &m.autostart,
	}
	if m.Cluster != nil {
		env.Cluster = m.Cluster
	}
	code := cli.Run(ctx, env, args)
	return Result{code, out.String(), errs.String()}
}

// StartDaemon starts a daemon, for as long as the test runs.
func (m *Machine) StartDaemon(_ context.Context, socket string) error {
	m.Started++
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Options{Socket: socket, LogFile: m.Log, Log: slog.New(slog.DiscardHandler), Exports: &m.Exports, Where: m.Where,
			NewSession: func(req localapi.ConnectRequest, events func(localapi.Event)) daemon.Session {
				m.Last = req
				return &session{req: req, events: events, fail: m.Fail, never: m.Never, Steering: &m.Steering, Exposing: &m.Exposing, Names: &m.Names, Ways: &m.Ways}
			},
			Doctor: func(_ context.Context, req localapi.DoctorRequest, _ func() localapi.Status, say func(localapi.Finding)) error {
				m.Examined = req
				for _, f := range m.Findings {
					say(f)
				}
				return nil
			}})
	}()
	m.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Error(err)
		}
	})
	c := localapi.NewClient(socket)
	for range 1000 {
		if _, err := c.Version(ctx); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the daemon does not answer")
}

// Want wants an exit status and these words, and of a failure one error and one hint.
func (r Result) Want(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit status %d, want %d\n%s%s", r.Code, code, r.Out, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Out+r.Stderr, w) {
			t.Errorf("no %q in\n%s%s", w, r.Out, r.Stderr)
		}
	}
	if code != 0 && code != exit.NotConnected && code != exit.Interrupted {
		if strings.Count(r.Stderr, "error: ") != 1 || strings.Count(r.Stderr, "hint: ") != 1 {
			t.Errorf("want one error and one hint:\n%s", r.Stderr)
		}
		if strings.Contains(r.Out, "error") {
			t.Errorf("an error on standard output: %s", r.Out)
		}
	}
}

// Prints wants success, and exactly this on standard output.
func (r Result) Prints(t *testing.T, want string) {
	t.Helper()
	if r.Code != 0 || r.Out != want {
		t.Errorf("exit status %d, got\n%swant\n%s%s", r.Code, r.Out, want, r.Stderr)
	}
}

// Quiet wants a failure that is told on standard output alone.
func (r Result) Quiet(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.Code != code || r.Stderr != "" {
		t.Errorf("exit status %d, want %d\n%s", r.Code, code, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Out, w) {
			t.Errorf("no %q in\n%s", w, r.Out)
		}
	}
}
