//go:build unix

package cli

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

	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// fakeRooms has Rooms that are this machine, or none.
type fakeRooms struct {
	blocked error // why there are none
	asked   RoomOptions
	session localapi.ConnectRequest
	fail    error // of connecting
	kept    map[string]bool
	started []KeptRoom
	open    int
}

type noRoom struct{}

func (noRoom) Error() string { return "make a user namespace: operation not permitted" }
func (noRoom) Hint() string  { return "a seccomp filter forbids it" }
func (noRoom) Blocked()      {}

func (f *fakeRooms) Open(_ context.Context, o RoomOptions) (Room, error) {
	if f.asked = o; f.blocked != nil {
		return nil, f.blocked
	}
	f.open++
	return &fakeRoom{rooms: f}, nil
}

func (f *fakeRooms) Join(name string) (JoinedRoom, error) {
	if !f.kept[name] {
		return nil, nil
	}
	return &fakeRoom{rooms: f, name: name}, nil
}

func (f *fakeRooms) Start(_ context.Context, k KeptRoom, events func(localapi.Event)) error {
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
	here
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
	m := newMachine(t)
	rooms := &fakeRooms{}
	m.rooms = rooms
	r := m.podnet("exec", "-n", "shop", "--as", "deploy/web", "-p", "3000:8080", "-p", "[::1]:53:53/udp", "--", "sh", "-c", "echo hello; cat; exit 7")
	if r.code != 7 || r.out != "hello\n" || rooms.session.As != "deploy/web" || rooms.session.Namespaces[0] != "shop" || rooms.open != 0 {
		t.Errorf("exit status %d, %+v\n%s%s", r.code, rooms, r.out, r.stderr)
	}
	if p := rooms.asked.Publish; len(p) != 2 || p[0].String() != "127.0.0.1:3000=127.0.0.1:8080/tcp" || p[1].String() != "[::1]:53=127.0.0.1:53/udp" {
		t.Errorf("published %v", p)
	}
	for _, say := range []string{"mode       namespace: ", "auth", "127.0.0.1:3000 leads to the command's 127.0.0.1:8080"} {
		if !strings.Contains(r.stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.stderr)
		}
	}
	if m.started != 0 {
		t.Error("a daemon was started")
	}
	rooms.fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "you may not", Hint: "ask"}
	m.podnet("exec", "--", "true").want(t, exitExec, "you may not")

	rooms.fail = nil
	r = m.podnet("exec", "-o", "json", "--isolate", "--", "true")
	var modes []string
	for line := range strings.Lines(r.stderr) {
		var e localapi.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if e.Type == localapi.EventMode {
			modes = append(modes, e.Code)
		}
	}
	if r.code != 0 || !slices.Equal(modes, []string{"namespace"}) || !rooms.asked.Isolate {
		t.Errorf("exit status %d, modes %v:\n%s", r.code, modes, r.stderr)
	}
}

// TestExecLadder takes the next way, says so, and keeps the command's exit status.
func TestExecLadder(t *testing.T) {
	m := newMachine(t)
	m.rooms = &fakeRooms{blocked: noRoom{}}
	var asked ProxyOptions
	ended := false
	m.proxy = proxied(m, "127.0.0.1:4711", &asked, &ended)
	r := m.podnet("exec", "-n", "shop", "--", "sh", "-c", "echo $ALL_PROXY $all_proxy $http_proxy $HTTPS_PROXY $no_proxy; exit 7")
	if r.code != 7 || r.out != "socks5h://127.0.0.1:4711 socks5h://127.0.0.1:4711 http://127.0.0.1:4711 http://127.0.0.1:4711 localhost,127.0.0.1,::1\n" || !ended || asked.Listen != "127.0.0.1:0" {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
	for _, say := range []string{"operation not permitted (a seccomp filter forbids it)", "mode       proxy: "} {
		if !strings.Contains(r.stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.stderr)
		}
	}
	m.podnet("exec", "--mode", "namespace", "--", "true").want(t, exitExec, "operation not permitted", "seccomp")
	m.podnet("exec", "--isolate", "--", "true").want(t, exitExec, "operation not permitted")
	m.podnet("exec", "--join", "ci", "--", "true").want(t, 0, "--join is for nothing", "proxy: ")
	m.podnet("exec", "-p", "1:2", "--", "true").want(t, 0, "--publish is for nothing", "proxy: ")
	if m.started != 0 {
		t.Error("a daemon was started")
	}
	m.privileged = true
	m.podnet("exec", "-n", "shop", "--", "true").want(t, 0, "mode       tun: ")
	if m.started == 0 || !m.last.Hold {
		t.Error("it was no session of the daemon's")
	}
	m.rooms = &fakeRooms{blocked: errors.New("port 1 is taken")}
	m.podnet("exec", "--", "true").want(t, exitExec, "port 1 is taken")
}

func TestExecJoins(t *testing.T) {
	m := newMachine(t)
	rooms := &fakeRooms{}
	m.rooms = rooms
	for range 2 {
		if r := m.podnet("exec", "--join", "ci", "-n", "shop", "--", "sh", "-c", "exit 7"); r.code != 7 || !strings.Contains(r.stderr, "in the sandbox ci") {
			t.Errorf("exit status %d: %s", r.code, r.stderr)
		}
	}
	if len(rooms.started) != 1 || rooms.started[0].Request.Namespaces[0] != "shop" {
		t.Errorf("started %+v", rooms.started)
	}
	m.podnet("exec", "--join", "ci", "--isolate", "--", "true").want(t, 0, "flags that say otherwise count for nothing")
	m.podnet("exec", "--leave", "ci").want(t, 0)
	m.podnet("exec", "--leave", "ci").want(t, 0, "there is no sandbox ci")
}

func TestExecEnvFrom(t *testing.T) {
	m := newMachine(t)
	m.rooms = &fakeRooms{}
	var asked ContainerRequest
	m.environment = func(_ context.Context, r ContainerRequest) (ContainerEnvironment, error) {
		asked = r
		return ContainerEnvironment{Container: "web of pod web-0", Vars: []string{"COLOUR=red", "TOKEN=abc"}, Unknown: []string{"NODE: it is not known"}}, nil
	}
	m.environ = []string{"COLOUR=blue"}
	r := m.podnet("exec", "-n", "shop", "--env-from", "deploy/web", "--container", "web", "--", "sh", "-c", "echo $COLOUR $TOKEN")
	if r.code != 0 || r.out != "red abc\n" || !strings.Contains(r.stderr, "web of pod web-0: NODE: it is not known") || strings.Contains(r.stderr, "abc") {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
	if asked.Namespace != "shop" || asked.Target != "deploy/web" || asked.Container != "web" {
		t.Errorf("asked for %+v", asked)
	}
}

// TestExecPassesSignalsOn to a command that has its own idea of them.
func TestExecPassesSignalsOn(t *testing.T) {
	m := newMachine(t)
	m.rooms = &fakeRooms{}
	sent := make(chan os.Signal, 1)
	m.signals = func() (<-chan os.Signal, func()) { return sent, func() {} }
	m.when, m.then = "going", func() { sent <- syscall.SIGUSR1 }
	r := m.podnet("exec", "--", "sh", "-c", "trap 'echo told; exit 3' USR1; echo going; while :; do sleep 0.01; done")
	if r.code != 3 || !strings.Contains(r.out, "told") {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
}

// TestExecAsEndsWithItsPod: in a session that others use, too, a command that was to
// leave from a pod must not go on from the gateway.
func TestExecAsEndsWithItsPod(t *testing.T) {
	m := newMachine(t)
	m.podnet("connect", "-n", "shop").want(t, 0)
	on := filepath.Join(t.TempDir(), "on")
	m.when, m.then = "going", m.steering.endAll
	r := m.podnet("exec", "--mode", "system", "--as", "deploy/web", "--", "sh", "-c", "trap 'exit 0' TERM; echo going; while :; do sleep 0.01; done; touch "+on)
	if r.code != exitExec || !strings.Contains(r.stderr, "nothing leaves from deploy/web any more") {
		t.Errorf("exit status %d: %s", r.code, r.stderr)
	}
	if _, err := os.Stat(on); err == nil {
		t.Error("the command went on")
	}
}
