package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/steer"
)

// fakeSteering makes every rule that it is asked for, in two pods.
type fakeSteering struct {
	mu      sync.Mutex
	asked   []localapi.SteerRequest
	as      []localapi.AsRequest
	rules   map[string]localapi.SteerRule
	held    map[string]context.CancelFunc
	refuse  error
	instead string // in place of what is refused
	revoked localapi.RevokeRequest
}

func (f *fakeSteering) Steer(ctx context.Context, req localapi.SteerRequest, say func(localapi.SteerEvent)) error {
	now := time.Now()
	r := localapi.SteerRule{Name: req.Name, Namespace: "shop", Owner: "alice", Target: req.Words(), Via: req.Via, Port: req.Port, Protocol: "tcp", Mode: "steal", Matches: req.Matches,
		Local: req.Local, OnError: "fail", Held: req.Hold, Since: &now, Ready: 2, Inspect: req.Inspect, Others: []localapi.SteerOther{{Owner: "bob", Name: "bobs"}},
		Pods: []localapi.SteerPod{{Name: "web-1", Port: 8080, Address: "10.244.0.7", State: localapi.SteerPodReady}, {Name: "web-2", Port: 8080, State: localapi.SteerPodReady}}}
	if r.Name == "" {
		r.Name = "web-" + req.Port
	}
	if req.Via != "" {
		r.Ready, r.Pods = 1, []localapi.SteerPod{{Name: "web", Port: 80, Address: "10.96.0.7", State: localapi.SteerPodReady, Text: "all is well"}}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.asked = append(f.asked, req)
	if f.refuse != nil && (f.instead == "" || req.Via == "") {
		f.mu.Unlock()
		if f.instead != "" {
			say(localapi.SteerEvent{Time: now, Type: localapi.SteerInstead, Service: f.instead})
		}
		return f.refuse
	}
	if f.rules == nil {
		f.rules, f.held = map[string]localapi.SteerRule{}, map[string]context.CancelFunc{}
	}
	f.rules[r.Name], f.held[r.Name] = r, cancel
	f.mu.Unlock()
	say(localapi.SteerEvent{Time: now, Type: localapi.SteerTarget, Text: req.Words() + ": 2 pods"})
	say(localapi.SteerEvent{Time: now, Type: localapi.SteerReady, Rule: &r})
	if !req.Hold {
		return nil
	}
	<-ctx.Done()
	f.remove(r.Name)
	return nil
}

// As is a rule named after the target.
func (f *fakeSteering) As(ctx context.Context, req localapi.AsRequest, say func(localapi.SteerEvent)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.as = append(f.as, req)
	if f.refuse != nil {
		f.mu.Unlock()
		return f.refuse
	}
	if f.rules == nil {
		f.rules, f.held = map[string]localapi.SteerRule{}, map[string]context.CancelFunc{}
	}
	r := localapi.SteerRule{Name: "as-web", Target: req.Target, Mode: localapi.ModeEgress}
	f.rules[r.Name], f.held[r.Name] = r, cancel
	f.mu.Unlock()
	say(localapi.SteerEvent{Time: time.Now(), Type: localapi.SteerTarget, Text: req.Target + ": 1 pod"})
	say(localapi.SteerEvent{Time: time.Now(), Type: localapi.SteerReady, Rule: &r})
	<-ctx.Done()
	f.remove(r.Name)
	return nil
}

// endAll ends every rule that is held, as when somebody deletes it.
func (f *fakeSteering) endAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.held {
		end()
	}
}

func (f *fakeSteering) remove(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.rules[name]
	if ok {
		f.held[name]()
		delete(f.rules, name)
	}
	return ok
}

func (f *fakeSteering) names() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.rules {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (f *fakeSteering) Steered(_ context.Context, all bool, namespace string) ([]localapi.SteerRule, error) {
	var out []localapi.SteerRule
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		out = append(out, r)
	}
	if all {
		out = append(out, localapi.SteerRule{Name: "bobs", Owner: "bob", Namespace: namespace})
	}
	return out, nil
}

func (f *fakeSteering) StopSteering(_ context.Context, name string) ([]string, error) {
	if name != "" {
		if !f.remove(name) {
			return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + name, Hint: "podnet steer list", Status: 404}
		}
		return []string{name}, nil
	}
	var out []string
	for _, n := range f.names() {
		f.remove(n)
		out = append(out, n)
	}
	return out, nil
}

func (f *fakeSteering) SteeredRequests(ctx context.Context, rule string, follow bool, begin func(), line func(localapi.SteeredRequest) error) error {
	begin()
	q := localapi.SteeredRequest{Time: time.Now(), Rule: rule, Pod: "web-1", By: "laptop", Method: "GET", Target: "/cart", Status: 200, TookMs: 12.3}
	if err := line(q); err != nil {
		return err
	}
	q.Pod, q.By, q.Method, q.Target, q.Status, q.Error = "web-2", "app", "POST", "/pay", 0, "connection refused at 127.0.0.1:3000"
	if err := line(q); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeSteering) InspectSteering(_ context.Context, rule string) ([]localapi.Inspection, error) {
	if !slices.Contains(f.names(), rule) {
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + rule, Hint: "podnet steer list", Status: 404}
	}
	return []localapi.Inspection{{Pod: "web-1", Exchanges: []localapi.Exchange{{In: []byte("GET /cart HTTP/1.1\r\n\r\n"), Out: []byte("HTTP/1.1 200 OK\r\n\r\n")}}}}, nil
}

func (f *fakeSteering) ReplaySteered(context.Context, string, localapi.ReplayRequest) (localapi.Inspection, error) {
	return localapi.Inspection{}, nil
}

func (f *fakeSteering) RevokeSteering(_ context.Context, req localapi.RevokeRequest) ([]string, error) {
	f.revoked = req
	return []string{"bob/" + req.Name}, nil
}

func TestSteerFlags(t *testing.T) {
	header := func(name, value string) []steer.Condition { return []steer.Condition{{Name: name, Value: value}} }
	for line, want := range map[string]localapi.SteerRequest{
		"deploy/web 8080:3000":                          {Target: "deploy/web", Port: "8080", Local: "3000"},
		"deploy/web 8080":                               {Target: "deploy/web", Port: "8080"},
		"svc/web http:app.test:3000 --header x-user:me": {Target: "svc/web", Port: "http", Local: "app.test:3000", Matches: []steer.Match{{Headers: header("x-user", "me")}}},
		"svc/web http:3000 --via service":               {Target: "svc/web", Port: "http", Local: "3000", Via: "service"},
		"pod/dns 53/udp:[::1]:5353 --on-error=app":      {Target: "pod/dns", Port: "53/udp", Local: "[::1]:5353", OnError: "app"},
		"-l app=web 8080:3000 --mirror --name mine":     {Selector: "app=web", Port: "8080", Local: "3000", Mirror: true, Name: "mine"},
		"deploy/web 8080 --header a:1 --path /x --or --method POST --query q=~^v[12]$ --or --grpc shop.Cart/* --host web.*": {Target: "deploy/web", Port: "8080", Matches: []steer.Match{
			{Headers: header("a", "1"), Path: "/x"}, {Method: "POST", Query: header("q", "~^v[12]$")}, {GRPC: "shop.Cart/*", Host: "web.*"}}},
	} {
		m := newMachine(t)
		m.environ = []string{"PODNET_PATH=apiserver"} // connect's, not a pattern
		m.podnet(append([]string{"steer", "--detach", "-n", "shop"}, strings.Fields(line)...)...).want(t, 0, map[bool]string{true: "2/2 agents ready", false: "the Service itself: a gateway takes"}[want.Via == ""])
		if want.OnError == "" {
			want.OnError = "fail"
		}
		want.Namespace = "shop"
		if len(m.steering.asked) != 1 {
			t.Fatalf("%s: asked %d times", line, len(m.steering.asked))
		}
		got := m.steering.asked[0]
		got.Kube = localapi.Kube{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", line, got, want)
		}
		if m.last.Path != "apiserver" || !slices.Equal(m.last.Namespaces, []string{"shop"}) {
			t.Errorf("connected by %+v", m.last)
		}
	}
}

func TestBadSteering(t *testing.T) {
	for line, says := range map[string]string{
		"":                                        "nothing to steer",
		"deploy/web":                              "no port",
		"web 8080":                                "KIND/NAME",
		"deploy/web 0:3000":                       "number from 1 to 65535",
		"deploy/web 70000":                        "number from 1 to 65535",
		"deploy/web http":                         "has a name",
		"deploy/web 8080:":                        "behind the colon",
		"deploy/web 8080:x":                       "local port",
		"deploy/web 53/sctp":                      "tcp or udp",
		"deploy/web 8080 --header x":              "name: pattern",
		"deploy/web 8080 --header x:~(":           "cannot be",
		"deploy/web 8080 --path / --path /x":      "twice",
		"deploy/web 8080 --or":                    "cannot be",
		"deploy/web 53/udp --path /x":             "UDP",
		"deploy/web 8080 --client-address=head":   "cannot be",
		"deploy/web 8080 --client-address=header": "whole port",
		"deploy/web 8080 --on-error=retry":        "fail or app",
		"svc/web 8080 --via ingress":              "want service",
		"svc/dns 53/udp --via service":            "TCP only",
		"deploy/web 8080 --name Ä":                "name",
		"deploy/web 8080 -n SHOP":                 "namespace",
		"deploy/web 8080 -l app=web":              "tcp or udp",
		"deploy/web 8080 -o xml":                  "json",
		"deploy/web 8080 --detach -- true":        "--detach",
		"deploy/web 8080 --":                      "no command",
		"stop":                                    "--all",
		"stop x --all":                            "--all",
		"revoke x":                                "namespace",
		"list -A -n shop":                         "together",
		"apply":                                   "which file",
		"apply -f /nonexistent":                   "no such file",
	} {
		m := newMachine(t)
		r := m.podnet(append([]string{"steer"}, strings.Fields(line)...)...)
		r.want(t, exit.Usage, says)
		if m.started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}

func TestSteerInForeground(t *testing.T) {
	m := newMachine(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.when, m.then = "connection refused", interrupt
	r := m.podnetContext(ctx, "steer", "deploy/web", "8080:3000", "--header", "x-user: alice*", "--path", "/cart*")
	r.want(t, 0, "target     deploy/web: 2 pods", "2/2 agents ready", "header x-user: alice*, path /cart*", "port 3000 of this machine",
		"curl -H 'x-user: alice' http://10.244.0.7:8080/cart", "bob steers this port too: bobs", "until     this command ends",
		"GET /cart  200  12 ms  web-1  laptop", "POST /pay  -  12 ms  web-2  app  connection refused at 127.0.0.1:3000")
	if left := m.steering.names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if !m.steering.asked[0].Hold {
		t.Error("the rule does not end with the command")
	}
}

func TestSteerForACommand(t *testing.T) {
	m := newMachine(t)
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7, "kill -9 $$": 1} {
		r := m.podnet("steer", "deploy/web", "8080:3000", "9090", "--", "sh", "-c", script)
		if r.code != want {
			t.Errorf("%s: exit status %d, want %d\n%s", script, r.code, want, r.stderr)
		}
		if strings.Contains(r.out, "GET") || want == 0 && !strings.Contains(r.out, "from the command") {
			t.Errorf("said %s", r.out)
		}
		if left := m.steering.names(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	m.podnet("steer", "deploy/web", "8080:3000", "--", "/nonexistent").want(t, exit.Usage, "does not start")
	if left := m.steering.names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestSteerDay(t *testing.T) {
	m := newMachine(t)
	for _, line := range []string{"steer list", "steer stop web-8080", "steer stop --all", "steer revoke x -n shop", "steer list --all-owners"} {
		r := m.podnet(strings.Fields(line)...)
		if r.code != exit.NotConnected || !strings.Contains(r.stderr, "error: nothing is connected\nhint: ") {
			t.Errorf("%s: %d %s", line, r.code, r.stderr)
		}
	}
	m.podnet("steer", "--detach", "deploy/web", "8080:3000", "9090").want(t, 0, "web-8080", "web-9090")
	m.podnet("steer", "list").want(t, 0, "NAME", "web-8080", "deploy/web", "2/2", "all that reaches the port")
	m.podnet("steer", "list", "--all-owners").want(t, 0, "OWNER", "bobs")
	r := m.podnet("steer", "list", "-o", "json")
	var l localapi.SteerList
	if err := json.Unmarshal([]byte(r.out), &l); err != nil || l.APIVersion != "podnet/v1" || l.Kind != "SteerList" || len(l.Rules) != 2 {
		t.Errorf("%v: %s", err, r.out)
	}
	m.podnet("steer", "stop", "web-8080").want(t, 0, "web-8080 stopped")
	m.podnet("steer", "stop", "web-8080").want(t, exit.Generic, "no rule web-8080")
	m.podnet("steer", "stop", "--all").want(t, 0, "web-9090 stopped")
	m.podnet("steer", "stop", "--all").want(t, 0, "nothing is steered")
	m.podnet("steer", "list").want(t, 0, "nothing is steered")
	m.podnet("steer", "revoke", "bobs", "-n", "shop").want(t, 0, "bob/bobs revoked")
	if m.steering.revoked.Name != "bobs" || m.steering.revoked.Namespace != "shop" {
		t.Errorf("revoked %+v", m.steering.revoked)
	}
	m.steering.refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "bob steals the same requests", Hint: "ask bob"}
	m.podnet("steer", "--detach", "deploy/web", "8080:3000").want(t, exit.Conflict, "bob steals")
	m.podnet("steer", "deploy/web", "8080:3000").want(t, exit.Conflict, "bob steals")
}

// TestSteerInstead: where no agent is let in, whoever sits at a terminal is asked.
func TestSteerInstead(t *testing.T) {
	for _, mode := range [][]string{{"--detach"}, {"--", "true"}} {
		m := newMachine(t)
		m.steering.refuse = &localapi.Error{Code: localapi.CodeForbidden, Message: "the cluster lets no agent into pod web-1", Hint: "--via service"}
		m.steering.instead = "shop-front"
		line := append([]string{"steer", "deploy/web", "8080:3000"}, mode...)
		m.podnet(line...).want(t, exit.Credentials, "lets no agent", "hint: --via service")
		asked := ""
		m.ask = func(_ context.Context, question string) bool { asked = question; return false }
		m.podnet(line...).want(t, exit.Credentials, "lets no agent", "hint: --via service")
		if asked != "steer Service shop-front instead?" || len(m.steering.asked) != 2 {
			t.Errorf("asked %q, steered %d times", asked, len(m.steering.asked))
		}
		m.ask = func(context.Context, string) bool { return true }
		r := m.podnet(line...)
		if last := m.steering.asked[len(m.steering.asked)-1]; r.code != 0 || last.Via != "service" || last.Target != "deploy/web" {
			t.Errorf("exit status %d, asked for %+v\n%s", r.code, last, r.stderr)
		}
		m.podnet("steer", "list").want(t, 0, map[bool]string{true: "  service  ", false: "nothing is steered"}[mode[0] == "--detach"])
	}
}

func TestApply(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t)
	write(`# two rules
apiVersion: podnet/v1
kind: Steer
name: cart
namespace: shop
target: deploy/web
port: 8080
local: 3000
matches:
- headers:
  - {name: x-user, value: alice}
  path: /api/*
---
{"apiVersion": "podnet/v1", "kind": "Steer", "selector": "app=db", "port": "5432", "mirror": true}
---
`)
	m.podnet("steer", "apply", "-f", file).want(t, 0, "cart", "2/2 agents ready")
	if a := m.steering.asked; len(a) != 2 || a[0].Port != "8080" || a[0].Local != "3000" || a[0].Matches[0].Path != "/api/*" || a[0].Hold || !a[1].Mirror || a[1].Selector != "app=db" {
		t.Errorf("asked for %+v", a)
	}
	head := "apiVersion: podnet/v1\nkind: Steer\n"
	for text, says := range map[string]string{
		"": "no rule", "kind: Steer": "apiVersion", head + "target: deploy/web\nprot: 80": "prot", head + "target: deploy/web\nport: 80\nhold: true": "hold",
		head + "target: deploy/web\nport: 80\n---\n" + head + "port: 80": "document 2", "x: [": "yaml",
	} {
		write(text)
		before := len(m.steering.asked)
		m.podnet("steer", "apply", "-f", file).want(t, exit.Usage, says)
		if len(m.steering.asked) != before {
			t.Errorf("%q: something was asked for", text)
		}
	}
}
