package cli

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// fakeExposing makes every exposure that it is asked for; each takes a connection.
type fakeExposing struct {
	mu     sync.Mutex
	asked  []localapi.ExposeRequest
	all    map[string]localapi.Exposure // by NAMESPACE/NAME
	held   map[string]context.CancelFunc
	refuse error
}

func (f *fakeExposing) Expose(ctx context.Context, req localapi.ExposeRequest, say func(localapi.ExposeEvent)) error {
	local, protocol, ports, err := req.Place()
	if err != nil {
		return err
	}
	now, later := time.Now(), time.Now().Add(5*time.Minute)
	e := localapi.Exposure{Name: req.Name, Namespace: req.Namespace, Owner: "alice", Local: local, Protocol: string(protocol), Ports: ports, Host: "podnet-x-1.podnet-system.svc.cluster.local",
		State: localapi.ExposeStateReady, Held: req.Hold, Since: &now, ExpiresAt: &later, Connections: 3, Failed: 1}
	if e.Namespace == "" {
		e.Namespace = "shop"
	}
	at := e.Namespace + "/" + e.Name
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.asked = append(f.asked, req)
	if f.refuse != nil {
		f.mu.Unlock()
		return f.refuse
	}
	if f.all == nil {
		f.all, f.held = map[string]localapi.Exposure{}, map[string]context.CancelFunc{}
	}
	f.all[at], f.held[at] = e, cancel
	f.mu.Unlock()
	say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeAdmitted, Text: "the gateway leads here"})
	say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeReady, Exposure: &e})
	if !req.Hold {
		return nil
	}
	for _, why := range []string{"", "connection refused at 127.0.0.1:3000"} {
		say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeConnection, Connection: &localapi.ExposedConnection{Time: now, Name: e.Name, Namespace: e.Namespace, TookMs: 12.3, In: 77, Out: 2048, Error: why}})
	}
	<-ctx.Done()
	f.remove(at)
	return nil
}

func (f *fakeExposing) remove(at string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.all[at]
	if ok {
		f.held[at]()
		delete(f.all, at)
	}
	return ok
}

func (f *fakeExposing) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.all))
}

func (f *fakeExposing) Exposed(_ context.Context, all bool, namespace string) (out []localapi.Exposure, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range slices.Sorted(maps.Keys(f.all)) {
		out = append(out, f.all[at])
	}
	if all {
		out = append(out, localapi.Exposure{Name: "bobs", Owner: "bob", Namespace: namespace, State: localapi.ExposeStateTrouble, Text: "its Peer is gone"})
	}
	return out, nil
}

func (f *fakeExposing) StopExposing(_ context.Context, namespace, name string) ([]string, error) {
	out := []string{}
	for _, at := range f.names() {
		ns, n, _ := strings.Cut(at, "/")
		if (name == "" || n == name) && (namespace == "" || ns == namespace) && f.remove(at) {
			out = append(out, at)
		}
	}
	if name != "" && len(out) == 0 {
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no exposure " + name, Hint: "podnet expose list", Status: 404}
	}
	return out, nil
}

func TestExposeFlags(t *testing.T) {
	for line, want := range map[string]localapi.ExposeRequest{
		"3000 --as my-api":                                  {Local: "3000", Name: "my-api"},
		"app.test:3000 --as my-api -n shop":                 {Local: "app.test:3000", Name: "my-api", Namespace: "shop"},
		"5353/udp --as=dns":                                 {Local: "5353/udp", Name: "dns"},
		"--as my-api --port 8080 --port 80 [::1]:3000":      {Local: "[::1]:3000", Name: "my-api", Ports: []uint16{8080, 80}},
		"3000 --as my-api --port 8080,9090 --context=kind1": {Local: "3000", Name: "my-api", Ports: []uint16{8080, 9090}},
	} {
		m := newMachine(t)
		m.environ = []string{"PODNET_AS=carol", "PODNET_AS_GROUP=devs"} // kubectl's, not a name
		m.podnet(append([]string{"expose", "--detach"}, strings.Fields(line)...)...).want(t, 0, "exposing", want.Name, "podnet expose stop "+want.Name)
		if len(m.exposing.asked) != 1 {
			t.Fatalf("%s: asked %d times", line, len(m.exposing.asked))
		}
		got := m.exposing.asked[0]
		if as, group := got.Kube.Flags["as"], got.Kube.Flags["as-group"]; !slices.Equal(as, []string{"carol"}) || !slices.Equal(group, []string{"devs"}) {
			t.Errorf("%s: acts as %v in %v", line, as, group)
		}
		if strings.Contains(line, "kind1") != (got.Kube.Flags["context"] != nil) {
			t.Errorf("%s: flags %v", line, got.Kube.Flags)
		}
		got.Kube = localapi.Kube{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", line, got, want)
		}
		if want.Namespace != "" && !slices.Contains(m.last.Namespaces, want.Namespace) {
			t.Errorf("connected by %+v", m.last)
		}
	}
}

func TestBadExposing(t *testing.T) {
	for line, says := range map[string]string{
		"":                                     "nothing to expose",
		"3000":                                 "by which name",
		"3000 4000 --as x":                     "one thing too many",
		"3000 --as My":                         "a Service's",
		"3000 --as 1st":                        "a letter first",
		"3000 --as a.b":                        "a Service's",
		"http --as x":                          "local port",
		"0 --as x":                             "local port",
		":3000 --as x":                         "host:port",
		"3000/sctp --as x":                     "tcp or udp",
		"3000 --as x --port 0":                 "number from 1 to 65535",
		"3000 --as x --port 70000":             "number from 1 to 65535",
		"3000 --as x --port http":              "invalid",
		"3000 --as x --port 1,2,3,4,5,6,7,8,9": "more than 8",
		"3000 --as x --as-group devs":          "unknown flag",
		"3000 --as x -n SHOP":                  "namespace",
		"3000 --as x -o xml":                   "json",
		"3000 --as x --detach -- true":         "--detach",
		"3000 --as x --":                       "no command",
		"stop":                                 "--all",
		"stop x --all":                         "--all",
		"stop --all -n shop":                   "together",
		"list -A -n shop":                      "together",
		"list -o xml":                          "json",
		"list x":                               "no arguments",
		"3000 --as " + strings.Repeat("a", 64): "at most 63",
	} {
		m := newMachine(t)
		m.podnet(append([]string{"expose"}, strings.Fields(line)...)...).want(t, exit.Usage, says)
		if m.started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}

func TestExposeInForeground(t *testing.T) {
	m := newMachine(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.when, m.then = "connection refused", interrupt
	r := m.podnetContext(ctx, "expose", "3000", "--as", "my-api")
	r.want(t, 0, "admitted   the gateway leads here", "my-api in namespace shop, ports 80, 3000", "port 3000 of this machine", "http://my-api.shop\n",
		"this command ends; the lease is renewed, and ends at ", "connection  12 ms  77 B in, 2.0 KiB out", "connection refused at 127.0.0.1:3000")
	if left := m.exposing.names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if !m.exposing.asked[0].Hold {
		t.Error("the exposure does not end with the command")
	}
	ctx, interrupt = context.WithCancel(t.Context())
	m.when, m.then = "connection refused", interrupt
	r = m.podnetContext(ctx, "expose", "5353/udp", "--as", "dns", "-o", "json")
	r.want(t, 0)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	var e localapi.Exposure
	var c localapi.ExposedConnection
	if len(lines) != 3 || json.Unmarshal([]byte(lines[0]), &e) != nil || e.Name != "dns" || e.Protocol != "udp" || json.Unmarshal([]byte(lines[2]), &c) != nil || c.Out != 2048 || c.Error == "" {
		t.Errorf("said %s", r.out)
	}
}

func TestExposeForACommand(t *testing.T) {
	m := newMachine(t)
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7} {
		r := m.podnet("expose", "3000", "--as", "my-api", "--", "sh", "-c", script)
		if r.code != want {
			t.Errorf("%s: exit status %d, want %d\n%s", script, r.code, want, r.stderr)
		}
		if strings.Contains(r.out, "KiB out") || want == 0 && !strings.Contains(r.out, "from the command") {
			t.Errorf("said %s", r.out)
		}
		if left := m.exposing.names(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	m.podnet("expose", "3000", "--as", "my-api", "--", "/nonexistent").want(t, exit.Usage, "does not start")
}

func TestExposeDay(t *testing.T) {
	m := newMachine(t)
	for _, line := range []string{"expose list", "expose stop my-api", "expose stop --all", "expose list --all-owners"} {
		r := m.podnet(strings.Fields(line)...)
		if r.code != exit.NotConnected || !strings.Contains(r.stderr, "error: nothing is connected\nhint: ") {
			t.Errorf("%s: %d %s", line, r.code, r.stderr)
		}
	}
	m.podnet("expose", "--detach", "3000", "--as", "my-api").want(t, 0, "http://my-api.shop")
	m.podnet("expose", "--detach", "3000", "--as", "my-api", "-n", "pay", "--port", "8080").want(t, 0, "http://my-api.pay:8080")
	m.podnet("expose", "--detach", "5353/udp", "--as", "dns").want(t, 0, "dns.shop:5353, by UDP", "port 5353/udp")
	m.podnet("expose", "list").want(t, 0, "NAME", "my-api", "80, 3000", "ready", "3 (1 failed)", "5353/udp")
	if r := m.podnet("expose", "list", "-n", "pay"); strings.Contains(r.out, "dns") || !strings.Contains(r.out, "my-api") {
		t.Errorf("in one namespace: %s", r.out)
	}
	m.podnet("expose", "list", "--all-owners").want(t, 0, "OWNER", "bobs", "shop/bobs: its Peer is gone")
	r := m.podnet("expose", "list", "-o", "json")
	var l localapi.ExposeList
	if err := json.Unmarshal([]byte(r.out), &l); err != nil || l.APIVersion != "podnet/v1" || l.Kind != "ExposeList" || len(l.Exposures) != 3 {
		t.Errorf("%v: %s", err, r.out)
	}
	m.podnet("expose", "stop", "my-api", "-n", "pay").want(t, 0, "pay/my-api stopped")
	m.podnet("expose", "stop", "my-api").want(t, 0, "shop/my-api stopped")
	m.podnet("expose", "stop", "my-api").want(t, exit.Generic, "no exposure my-api")
	m.podnet("expose", "stop", "--all").want(t, 0, "shop/dns stopped")
	m.podnet("expose", "stop", "--all").want(t, 0, "nothing is exposed")
	m.podnet("expose", "list").want(t, 0, "nothing is exposed")
	m.exposing.refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "bob exposes my-api", Hint: "ask bob"}
	m.podnet("expose", "--detach", "3000", "--as", "my-api").want(t, exit.Conflict, "bob exposes")
	m.podnet("expose", "3000", "--as", "my-api").want(t, exit.Conflict, "bob exposes")
}
