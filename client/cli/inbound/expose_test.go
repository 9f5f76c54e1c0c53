package inbound_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestExposeFlags(t *testing.T) {
	for line, want := range map[string]localapi.ExposeRequest{
		"3000 --as my-api":                                  {Local: "3000", Name: "my-api"},
		"app.test:3000 --as my-api -n shop":                 {Local: "app.test:3000", Name: "my-api", Namespace: "shop"},
		"5353/udp --as=dns":                                 {Local: "5353/udp", Name: "dns"},
		"--as my-api --port 8080 --port 80 [::1]:3000":      {Local: "[::1]:3000", Name: "my-api", Ports: []uint16{8080, 80}},
		"3000 --as my-api --port 8080,9090 --context=kind1": {Local: "3000", Name: "my-api", Ports: []uint16{8080, 9090}},
	} {
		m := fakemachine.New(t)
		m.Environ = []string{"PODNET_AS=carol", "PODNET_AS_GROUP=devs"} // kubectl's, not a name
		m.Podnet(append([]string{"expose", "--detach"}, strings.Fields(line)...)...).Want(t, 0, "exposing", want.Name, "podnet expose stop "+want.Name)
		if len(m.Exposing.Asked) != 1 {
			t.Fatalf("%s: asked %d times", line, len(m.Exposing.Asked))
		}
		got := m.Exposing.Asked[0]
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
		if want.Namespace != "" && !slices.Contains(m.Last.Namespaces, want.Namespace) {
			t.Errorf("connected by %+v", m.Last)
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
		m := fakemachine.New(t)
		m.Podnet(append([]string{"expose"}, strings.Fields(line)...)...).Want(t, exit.Usage, says)
		if m.Started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}

func TestExposeInForeground(t *testing.T) {
	m := fakemachine.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	m.When, m.Then = "connection refused", interrupt
	r := m.PodnetContext(ctx, "expose", "3000", "--as", "my-api")
	r.Want(t, 0, "admitted   the gateway leads here", "my-api in namespace shop, ports 80, 3000", "port 3000 of this machine", "http://my-api.shop\n",
		"this command ends; the lease is renewed, and ends at ", "connection  12 ms  77 B in, 2.0 KiB out", "connection refused at 127.0.0.1:3000")
	if left := m.Exposing.Names(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if !m.Exposing.Asked[0].Hold {
		t.Error("the exposure does not end with the command")
	}
	ctx, interrupt = context.WithCancel(t.Context())
	m.When, m.Then = "connection refused", interrupt
	r = m.PodnetContext(ctx, "expose", "5353/udp", "--as", "dns", "-o", "json")
	r.Want(t, 0)
	lines := strings.Split(strings.TrimSpace(r.Out), "\n")
	var e localapi.Exposure
	var c localapi.ExposedConnection
	if len(lines) != 3 || json.Unmarshal([]byte(lines[0]), &e) != nil || e.Name != "dns" || e.Protocol != "udp" || json.Unmarshal([]byte(lines[2]), &c) != nil || c.Out != 2048 || c.Error == "" {
		t.Errorf("said %s", r.Out)
	}
}

func TestExposeForACommand(t *testing.T) {
	m := fakemachine.New(t)
	for script, want := range map[string]int{"echo from the command": 0, "exit 7": 7} {
		r := m.Podnet("expose", "3000", "--as", "my-api", "--", "sh", "-c", script)
		if r.Code != want {
			t.Errorf("%s: exit status %d, want %d\n%s", script, r.Code, want, r.Stderr)
		}
		if strings.Contains(r.Out, "KiB out") || want == 0 && !strings.Contains(r.Out, "from the command") {
			t.Errorf("said %s", r.Out)
		}
		if left := m.Exposing.Names(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	m.Podnet("expose", "3000", "--as", "my-api", "--", "/nonexistent").Want(t, exit.Usage, "does not start")
}

func TestExposeDay(t *testing.T) {
	m := fakemachine.New(t)
	for _, line := range []string{"expose list", "expose stop my-api", "expose stop --all", "expose list --all-owners"} {
		r := m.Podnet(strings.Fields(line)...)
		if r.Code != exit.NotConnected || !strings.Contains(r.Stderr, "error: nothing is connected\nhint: ") {
			t.Errorf("%s: %d %s", line, r.Code, r.Stderr)
		}
	}
	m.Podnet("expose", "--detach", "3000", "--as", "my-api").Want(t, 0, "http://my-api.shop")
	m.Podnet("expose", "--detach", "3000", "--as", "my-api", "-n", "pay", "--port", "8080").Want(t, 0, "http://my-api.pay:8080")
	m.Podnet("expose", "--detach", "5353/udp", "--as", "dns").Want(t, 0, "dns.shop:5353, by UDP", "port 5353/udp")
	m.Podnet("expose", "list").Want(t, 0, "NAME", "my-api", "80, 3000", "ready", "3 (1 failed)", "5353/udp")
	if r := m.Podnet("expose", "list", "-n", "pay"); strings.Contains(r.Out, "dns") || !strings.Contains(r.Out, "my-api") {
		t.Errorf("in one namespace: %s", r.Out)
	}
	m.Podnet("expose", "list", "--all-owners").Want(t, 0, "OWNER", "bobs", "shop/bobs: its Peer is gone")
	r := m.Podnet("expose", "list", "-o", "json")
	var l localapi.ExposeList
	if err := json.Unmarshal([]byte(r.Out), &l); err != nil || l.APIVersion != "podnet/v1" || l.Kind != "ExposeList" || len(l.Exposures) != 3 {
		t.Errorf("%v: %s", err, r.Out)
	}
	m.Podnet("expose", "stop", "my-api", "-n", "pay").Want(t, 0, "pay/my-api stopped")
	m.Podnet("expose", "stop", "my-api").Want(t, 0, "shop/my-api stopped")
	m.Podnet("expose", "stop", "my-api").Want(t, exit.Generic, "no exposure my-api")
	m.Podnet("expose", "stop", "--all").Want(t, 0, "shop/dns stopped")
	m.Podnet("expose", "stop", "--all").Want(t, 0, "nothing is exposed")
	m.Podnet("expose", "list").Want(t, 0, "nothing is exposed")
	m.Exposing.Refuse = &localapi.Error{Code: localapi.CodeConflict, Message: "bob exposes my-api", Hint: "ask bob"}
	m.Podnet("expose", "--detach", "3000", "--as", "my-api").Want(t, exit.Conflict, "bob exposes")
	m.Podnet("expose", "3000", "--as", "my-api").Want(t, exit.Conflict, "bob exposes")
}
