package report_test

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStatusJSON(t *testing.T) {
	m := fakemachine.New(t)
	for _, connected := range []bool{false, true} {
		if connected {
			m.Podnet("connect").Want(t, 0)
		}
		r := m.Podnet("status", "-o", "json")
		var s struct {
			APIVersion, Kind, State string
			Connections             []struct{ Name, Context, Namespace string }
			Warnings                []any
		}
		if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
			t.Fatalf("%v in %s", err, r.Out)
		}
		want := map[bool]string{false: "Disconnected", true: "Connected"}[connected]
		if s.APIVersion != "podnet/v1" || s.Kind != "Status" || s.State != want || s.Warnings == nil || s.Connections == nil || connected && s.Connections[0].Name != "kind" {
			t.Errorf("got %s", r.Out)
		}
	}
}

func TestStatusStrict(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect").Want(t, 0) // the fake one never looks whether names resolve
	m.Podnet("status").Want(t, 0)
	if r := m.Podnet("status", "--strict"); r.Code != exit.DNS || !strings.Contains(r.Out, "connected") {
		t.Errorf("exit status %d: %s%s", r.Code, r.Out, r.Stderr)
	}
}

// watching runs status --watch until the test has seen what it waits for.
func watching(t *testing.T, m *fakemachine.Machine, args ...string) (next func() string, stop func() int) {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, cli.Env{Env: caller.Env{In: strings.NewReader(""), Out: w, Err: io.Discard, Environ: []string{"PODNET_SOCKET=" + m.Socket}, Kube: fakemachine.NewKube()}}, append([]string{"status", "--watch"}, args...))
		w.Close()
	}()
	lines := json.NewDecoder(r)
	buf := make([]byte, 4096)
	next = func() string {
		t.Helper()
		if len(args) > 0 {
			var e localapi.Event
			if err := lines.Decode(&e); err != nil {
				t.Fatal(err)
			}
			return string(e.Type)
		}
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	return next, func() int { cancel(); r.Close(); return <-code }
}

func TestWatchSeesTheDaemonComeAndGo(t *testing.T) {
	m := fakemachine.New(t)
	next, stop := watching(t, m)
	if got := next(); !strings.Contains(got, "disconnected  nothing is connected") {
		t.Errorf("at first: %q", got)
	}
	m.Podnet("connect").Want(t, 0)
	for _, want := range []string{"  auth          kind: alice at https://api\n", "  ready         kind: connected\n"} {
		if got := next(); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	m.Podnet("disconnect").Want(t, 0)
	if got := next(); !strings.HasSuffix(got, "  disconnected  kind: disconnected\n") {
		t.Errorf("at last: %q", got)
	}
	if code := stop(); code != 0 {
		t.Errorf("an interrupted watch ends with %d", code)
	}
}

func TestWatchAsJSON(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect").Want(t, 0)
	next, stop := watching(t, m, "-o", "json")
	got := make(chan string, 1)
	go func() { got <- next() }()
	for heard := false; !heard; { // the watch takes a moment to begin
		m.Podnet("disconnect").Want(t, 0)
		m.Podnet("connect").Want(t, 0)
		select {
		case e := <-got:
			heard = true
			if e == "" {
				t.Error("an event without a type")
			}
		default:
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("an interrupted watch ends with %d", code)
	}
}
