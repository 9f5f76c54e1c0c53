//go:build unix

package outbound_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// fakeRooms has Rooms that are this machine, or none.
type fakeRooms struct {
	blocked error // why there are none
	asked   outbound.RoomOptions
	session localapi.ConnectRequest
	fail    error // of connecting
	kept    map[string]bool
	started []outbound.KeptRoom
	open    int
}

type noRoom struct{}

func (noRoom) Error() string { return "make a user namespace: operation not permitted" }
func (noRoom) Hint() string  { return "a seccomp filter forbids it" }
func (noRoom) Blocked()      {}

func (f *fakeRooms) Open(_ context.Context, o outbound.RoomOptions) (outbound.Room, error) {
	if f.asked = o; f.blocked != nil {
		return nil, f.blocked
	}
	f.open++
	return &fakeRoom{rooms: f}, nil
}

func (f *fakeRooms) Join(name string) (outbound.JoinedRoom, error) {
	if !f.kept[name] {
		return nil, nil
	}
	return &fakeRoom{rooms: f, name: name}, nil
}

func (f *fakeRooms) Start(_ context.Context, k outbound.KeptRoom, events func(localapi.Event)) error {
	if f.blocked != nil {
		return f.blocked
	}
	f.started = append(f.started, k)
	f.kept = map[string]bool{k.Name: true}
	events(localapi.Event{Type: localapi.EventDone, Phase: "auth", Text: "alice"})
	return nil
}

func (f *fakeRooms) Keep(context.Context) error { return nil }
func (f *fakeRooms) Agent() error               { return nil }

type fakeRoom struct {
	outbound.Here
	rooms *fakeRooms
	name  string
}

func (r *fakeRoom) Connect(ctx context.Context, req localapi.ConnectRequest, events func(localapi.Event), ready func()) error {
	if r.rooms.session = req; r.rooms.fail != nil {
		return r.rooms.fail
	}
	events(localapi.Event{Type: localapi.EventDone, Phase: "auth", Text: "alice"})
	ready()
	<-ctx.Done()
	return nil
}

func (r *fakeRoom) Published() []proxy.Forward { return r.rooms.asked.Publish }
func (r *fakeRoom) End(context.Context) error  { delete(r.rooms.kept, r.name); return nil }
func (r *fakeRoom) Close() error               { r.rooms.open--; return nil }

func TestExecInARoom(t *testing.T) {
	m := fakemachine.New(t)
	rooms := &fakeRooms{}
	m.Rooms = rooms
	r := m.Podnet("exec", "-n", "shop", "--as", "deploy/web", "-p", "3000:8080", "-p", "[::1]:53:53/udp", "--", "sh", "-c", "echo hello; cat; exit 7")
	if r.Code != 7 || r.Out != "hello\n" || rooms.session.As != "deploy/web" || rooms.session.Namespaces[0] != "shop" || rooms.open != 0 {
		t.Errorf("exit status %d, %+v\n%s%s", r.Code, rooms, r.Out, r.Stderr)
	}
	if p := rooms.asked.Publish; len(p) != 2 || p[0].String() != "127.0.0.1:3000=127.0.0.1:8080/tcp" || p[1].String() != "[::1]:53=127.0.0.1:53/udp" {
		t.Errorf("published %v", p)
	}
	for _, say := range []string{"mode       namespace: ", "auth", "127.0.0.1:3000 leads to the command's 127.0.0.1:8080"} {
		if !strings.Contains(r.Stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.Stderr)
		}
	}
	if m.Started != 0 {
		t.Error("a daemon was started")
	}
	rooms.fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "you may not", Hint: "ask"}
	m.Podnet("exec", "--", "true").Want(t, outbound.Failed, "you may not")

	rooms.fail = nil
	r = m.Podnet("exec", "-o", "json", "--isolate", "--", "true")
	var modes []string
	for line := range strings.Lines(r.Stderr) {
		var e localapi.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if e.Type == localapi.EventMode {
			modes = append(modes, e.Code)
		}
	}
	if r.Code != 0 || !slices.Equal(modes, []string{"namespace"}) || !rooms.asked.Isolate {
		t.Errorf("exit status %d, modes %v:\n%s", r.Code, modes, r.Stderr)
	}
}

// TestExecLadder takes the next way, says so, and keeps the command's exit status.
func TestExecLadder(t *testing.T) {
	m := fakemachine.New(t)
	m.Rooms = &fakeRooms{blocked: noRoom{}}
	var asked outbound.ProxyOptions
	ended := false
	m.Proxy = proxied(m, "127.0.0.1:4711", &asked, &ended)
	r := m.Podnet("exec", "-n", "shop", "--", "sh", "-c", "echo $ALL_PROXY $all_proxy $http_proxy $HTTPS_PROXY $no_proxy; exit 7")
	if r.Code != 7 || r.Out != "socks5h://127.0.0.1:4711 socks5h://127.0.0.1:4711 http://127.0.0.1:4711 http://127.0.0.1:4711 localhost,127.0.0.1,::1\n" || !ended || asked.Listen != "127.0.0.1:0" {
		t.Errorf("exit status %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	for _, say := range []string{"operation not permitted (a seccomp filter forbids it)", "mode       proxy: "} {
		if !strings.Contains(r.Stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.Stderr)
		}
	}
	m.Podnet("exec", "--mode", "namespace", "--", "true").Want(t, outbound.Failed, "operation not permitted", "seccomp")
	m.Podnet("exec", "--isolate", "--", "true").Want(t, outbound.Failed, "operation not permitted")
	m.Podnet("exec", "--join", "ci", "--", "true").Want(t, 0, "--join is for nothing", "proxy: ")
	m.Podnet("exec", "-p", "1:2", "--", "true").Want(t, 0, "--publish is for nothing", "proxy: ")
	if m.Started != 0 {
		t.Error("a daemon was started")
	}
	m.Privileged = true
	m.Podnet("exec", "-n", "shop", "--", "true").Want(t, 0, "mode       tun: ")
	if m.Started == 0 || !m.Last.Hold {
		t.Error("it was no session of the daemon's")
	}
	m.Rooms = &fakeRooms{blocked: errors.New("port 1 is taken")}
	m.Podnet("exec", "--", "true").Want(t, outbound.Failed, "port 1 is taken")
}

func TestExecJoins(t *testing.T) {
	m := fakemachine.New(t)
	rooms := &fakeRooms{}
	m.Rooms = rooms
	for range 2 {
		if r := m.Podnet("exec", "--join", "ci", "-n", "shop", "--", "sh", "-c", "exit 7"); r.Code != 7 || !strings.Contains(r.Stderr, "in the sandbox ci") {
			t.Errorf("exit status %d: %s", r.Code, r.Stderr)
		}
	}
	if len(rooms.started) != 1 || rooms.started[0].Request.Namespaces[0] != "shop" {
		t.Errorf("started %+v", rooms.started)
	}
	m.Podnet("exec", "--join", "ci", "--isolate", "--", "true").Want(t, 0, "flags that say otherwise count for nothing")
	m.Podnet("exec", "--leave", "ci").Want(t, 0)
	m.Podnet("exec", "--leave", "ci").Want(t, 0, "there is no sandbox ci")
}

func TestExecEnvFrom(t *testing.T) {
	m := fakemachine.New(t)
	m.Rooms = &fakeRooms{}
	var asked outbound.ContainerRequest
	m.Environment = func(_ context.Context, r outbound.ContainerRequest) (outbound.ContainerEnvironment, error) {
		asked = r
		return outbound.ContainerEnvironment{Container: "web of pod web-0", Vars: []string{"COLOUR=red", "TOKEN=abc"}, Unknown: []string{"NODE: it is not known"}}, nil
	}
	m.Environ = []string{"COLOUR=blue"}
	r := m.Podnet("exec", "-n", "shop", "--env-from", "deploy/web", "--container", "web", "--", "sh", "-c", "echo $COLOUR $TOKEN")
	if r.Code != 0 || r.Out != "red abc\n" || !strings.Contains(r.Stderr, "web of pod web-0: NODE: it is not known") || strings.Contains(r.Stderr, "abc") {
		t.Errorf("exit status %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	if asked.Namespace != "shop" || asked.Target != "deploy/web" || asked.Container != "web" {
		t.Errorf("asked for %+v", asked)
	}
}

// TestExecPassesSignalsOn to a command that has its own idea of them.
func TestExecPassesSignalsOn(t *testing.T) {
	m := fakemachine.New(t)
	m.Rooms = &fakeRooms{}
	sent := make(chan os.Signal, 1)
	m.Signals = func() (<-chan os.Signal, func()) { return sent, func() {} }
	m.When, m.Then = "going", func() { sent <- syscall.SIGUSR1 }
	r := m.Podnet("exec", "--", "sh", "-c", "trap 'echo told; exit 3' USR1; echo going; while :; do sleep 0.01; done")
	if r.Code != 3 || !strings.Contains(r.Out, "told") {
		t.Errorf("exit status %d: %s%s", r.Code, r.Out, r.Stderr)
	}
}

// TestExecAsEndsWithItsPod: in a session that others use, too, a command that was to
// leave from a pod must not go on from the gateway.
func TestExecAsEndsWithItsPod(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	on := filepath.Join(t.TempDir(), "on")
	m.When, m.Then = "going", m.Steering.EndAll
	r := m.Podnet("exec", "--mode", "system", "--as", "deploy/web", "--", "sh", "-c", "trap 'exit 0' TERM; echo going; while :; do sleep 0.01; done; touch "+on)
	if r.Code != outbound.Failed || !strings.Contains(r.Stderr, "nothing leaves from deploy/web any more") {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
	if _, err := os.Stat(on); err == nil {
		t.Error("the command went on")
	}
}
