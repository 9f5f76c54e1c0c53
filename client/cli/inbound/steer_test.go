package inbound_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/steer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
		m := fakemachine.New(t)
		m.Environ = []string{"PODNET_PATH=apiserver"} // connect's, not a pattern
		m.Podnet(append([]string{"steer", "--detach", "-n", "shop"}, strings.Fields(line)...)...).Want(t, 0, map[bool]string{true: "2/2 agents ready", false: "the Service itself: a gateway takes"}[want.Via == ""])
		if want.OnError == "" {
			want.OnError = "fail"
		}
		want.Namespace = "shop"
		if len(m.Steering.Asked) != 1 {
			t.Fatalf("%s: asked %d times", line, len(m.Steering.Asked))
		}
		got := m.Steering.Asked[0]
		got.Kube = localapi.Kube{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", line, got, want)
		}
		if m.Last.Path != "apiserver" || !slices.Equal(m.Last.Namespaces, []string{"shop"}) {
			t.Errorf("connected by %+v", m.Last)
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
		m := fakemachine.New(t)
		r := m.Podnet(append([]string{"steer"}, strings.Fields(line)...)...)
		r.Want(t, exit.Usage, says)
		if m.Started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}

func TestSteerInForeground(t *testing.T) {
	m := fakemachine.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.When, m.Then = "connection refused", interrupt
	r := m.PodnetContext(ctx, "steer", "deploy/web", "8080:3000", "--header", "x-user: alice*", "--path", "/cart*")
	r.Want(t, 0, "target     deploy/web: 2 pods", "2/2 agents ready", "header x-user: alice*, path /cart*", "port 3000 of this machine",
		"curl -H 'x-user: alice' http://10.244.0.7:8080/cart", "bob steers this port too: bobs", "until     this command ends",
		"GET /cart  200  12 ms  web-1  laptop", "POST /pay  -  12 ms  web-2  app  connection refused at 127.0.0.1:3000")
	if left := m.Steering.Names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if !m.Steering.Asked[0].Hold {
		t.Error("the rule does not end with the command")
	}
}

func TestSteerForACommand(t *testing.T) {
	m := fakemachine.New(t)
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7, "kill -9 $$": 1} {
		r := m.Podnet("steer", "deploy/web", "8080:3000", "9090", "--", "sh", "-c", script)
		if r.Code != want {
			t.Errorf("%s: exit status %d, want %d\n%s", script, r.Code, want, r.Stderr)
		}
		if strings.Contains(r.Out, "GET") || want == 0 && !strings.Contains(r.Out, "from the command") {
			t.Errorf("said %s", r.Out)
		}
		if left := m.Steering.Names(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	m.Podnet("steer", "deploy/web", "8080:3000", "--", "/nonexistent").Want(t, exit.Usage, "does not start")
	if left := m.Steering.Names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestSteerDay(t *testing.T) {
	m := fakemachine.New(t)
	for _, line := range []string{"steer list", "steer stop web-8080", "steer stop --all", "steer revoke x -n shop", "steer list --all-owners"} {
		r := m.Podnet(strings.Fields(line)...)
		if r.Code != exit.NotConnected || !strings.Contains(r.Stderr, "error: nothing is connected\nhint: ") {
			t.Errorf("%s: %d %s", line, r.Code, r.Stderr)
		}
	}
	m.Podnet("steer", "--detach", "deploy/web", "8080:3000", "9090").Want(t, 0, "web-8080", "web-9090")
	m.Podnet("steer", "list").Want(t, 0, "NAME", "web-8080", "deploy/web", "2/2", "all that reaches the port")
	m.Podnet("steer", "list", "--all-owners").Want(t, 0, "OWNER", "bobs")
	r := m.Podnet("steer", "list", "-o", "json")
	var l localapi.SteerList
	if err := json.Unmarshal([]byte(r.Out), &l); err != nil || l.APIVersion != "podnet/v1" || l.Kind != "SteerList" || len(l.Rules) != 2 {
		t.Errorf("%v: %s", err, r.Out)
	}
	m.Podnet("steer", "stop", "web-8080").Want(t, 0, "web-8080 stopped")
	m.Podnet("steer", "stop", "web-8080").Want(t, exit.Generic, "no rule web-8080")
	m.Podnet("steer", "stop", "--all").Want(t, 0, "web-9090 stopped")
	m.Podnet("steer", "stop", "--all").Want(t, 0, "nothing is steered")
	m.Podnet("steer", "list").Want(t, 0, "nothing is steered")
	m.Podnet("steer", "revoke", "bobs", "-n", "shop").Want(t, 0, "bob/bobs revoked")
	if m.Steering.Revoked.Name != "bobs" || m.Steering.Revoked.Namespace != "shop" {
		t.Errorf("revoked %+v", m.Steering.Revoked)
	}
	m.Steering.Refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "bob steals the same requests", Hint: "ask bob"}
	m.Podnet("steer", "--detach", "deploy/web", "8080:3000").Want(t, exit.Conflict, "bob steals")
	m.Podnet("steer", "deploy/web", "8080:3000").Want(t, exit.Conflict, "bob steals")
}

// TestSteerInstead: where no agent is let in, whoever sits at a terminal is asked.
func TestSteerInstead(t *testing.T) {
	for _, mode := range [][]string{{"--detach"}, {"--", "true"}} {
		m := fakemachine.New(t)
		m.Steering.Refuse = &localapi.Error{Code: localapi.CodeForbidden, Message: "the cluster lets no agent into pod web-1", Hint: "--via service"}
		m.Steering.Instead = "shop-front"
		line := append([]string{"steer", "deploy/web", "8080:3000"}, mode...)
		m.Podnet(line...).Want(t, exit.Credentials, "lets no agent", "hint: --via service")
		asked := ""
		m.Ask = func(_ context.Context, question string) bool { asked = question; return false }
		m.Podnet(line...).Want(t, exit.Credentials, "lets no agent", "hint: --via service")
		if asked != "steer Service shop-front instead?" || len(m.Steering.Asked) != 2 {
			t.Errorf("asked %q, steered %d times", asked, len(m.Steering.Asked))
		}
		m.Ask = func(context.Context, string) bool { return true }
		r := m.Podnet(line...)
		if last := m.Steering.Asked[len(m.Steering.Asked)-1]; r.Code != 0 || last.Via != "service" || last.Target != "deploy/web" {
			t.Errorf("exit status %d, asked for %+v\n%s", r.Code, last, r.Stderr)
		}
		m.Podnet("steer", "list").Want(t, 0, map[bool]string{true: "  service  ", false: "nothing is steered"}[mode[0] == "--detach"])
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
	m := fakemachine.New(t)
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
	m.Podnet("steer", "apply", "-f", file).Want(t, 0, "cart", "2/2 agents ready")
	if a := m.Steering.Asked; len(a) != 2 || a[0].Port != "8080" || a[0].Local != "3000" || a[0].Matches[0].Path != "/api/*" || a[0].Hold || !a[1].Mirror || a[1].Selector != "app=db" {
		t.Errorf("asked for %+v", a)
	}
	head := "apiVersion: podnet/v1\nkind: Steer\n"
	for text, says := range map[string]string{
		"": "no rule", "kind: Steer": "apiVersion", head + "target: deploy/web\nprot: 80": "prot", head + "target: deploy/web\nport: 80\nhold: true": "hold",
		head + "target: deploy/web\nport: 80\n---\n" + head + "port: 80": "document 2", "x: [": "yaml",
	} {
		write(text)
		before := len(m.Steering.Asked)
		m.Podnet("steer", "apply", "-f", file).Want(t, exit.Usage, says)
		if len(m.Steering.Asked) != before {
			t.Errorf("%q: something was asked for", text)
		}
	}
}
