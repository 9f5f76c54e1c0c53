package answer_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPartsOfAnAnswer has scripts take what they need, as they do with kubectl.
func TestPartsOfAnAnswer(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("status", "-o", "jsonpath={.state}").Want(t, exit.NotConnected, "Disconnected")
	if r := m.Podnet("status", "-o", "jsonpath={.connections[0].name}"); r.Code != exit.NotConnected || r.Out+r.Stderr != "" {
		t.Errorf("of nothing: exit status %d, %q", r.Code, r.Out+r.Stderr)
	}
	m.Findings = []localapi.Finding{{Check: "cluster/name", Result: localapi.ResultOK, Text: "resolves"}, {Check: "path/udp", Result: localapi.ResultWarning, Text: "no answer", Fix: "a firewall"}}
	for _, c := range []struct{ line, want string }{
		{"connect -n shop -o jsonpath={.connections[0].namespaces}", `["shop"]`},
		{"status -o jsonpath=.connections[*].namespace", "shop"},
		{`doctor -o jsonpath={.findings[?(@.result=="warning")].fix}`, "a firewall"},
		{"steer list -o jsonpath={.rules[*].name}", ""},
		{"expose list -o jsonpath=kind", "ExposeList"},
		{"version -o jsonpath=kind", "Versions"},
	} {
		if r := m.Podnet(strings.Fields(c.line)...); r.Code != 0 || r.Out != c.want {
			t.Errorf("%s: exit status %d, %q, want %q\n%s", c.line, r.Code, r.Out, c.want, r.Stderr)
		}
	}
	m.Podnet("status", "-o", "jsonpath={.connections[7].name}").Want(t, exit.Generic, "the answer has no {.connections[7].name}", "-o json shows")
	for line, says := range map[string]string{
		"status -o jsonpath={.state":      "want one as {.state}",
		"status -o jsonpath=":             "want one as {.state}",
		"status -o jsonpath":              "want table, wide, json, yaml, jsonpath=TEMPLATE, custom-columns=NAME:PATH or name",
		"steer web 1 -o jsonpath=.rules":  "want table, json, yaml or name",
		"exec -o jsonpath=.state -- true": "want table or json",
		"install -o jsonpath=.kind":       "want yaml or json",
	} {
		m.Podnet(strings.Fields(line)...).Want(t, exit.Usage, says)
	}
}

// TestColumnsOfAnAnswer has scripts choose what a table has, as they do with kubectl.
func TestColumnsOfAnAnswer(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("status", "-o", "custom-columns=NAME:.name").Want(t, exit.NotConnected, "NAME\n")
	m.Names.Answers = map[string]localapi.DNSAnswer{"web A": {Answers: []localapi.DNSRecord{{Data: "10.96.0.20", TTL: 5}}}}
	m.Findings = []localapi.Finding{{Check: "cluster/name", Result: localapi.ResultOK, Text: "resolves"}, {Check: "path/udp", Result: localapi.ResultWarning, Text: "no answer", Fix: "a firewall"}}
	for _, c := range []struct{ line, want string }{
		{"connect -n shop -o custom-columns=NAME:.name,SPACES:.namespaces[*]", "NAME   SPACES\nkind   shop\n"},
		{"status -o custom-columns=NAME:name,ROUTES:{.routes},WHY:.path.reason", "NAME   ROUTES             WHY\nkind   [\"10.96.0.0/16\"]   <none>\n"},
		{"wait -o custom-columns=:.name", "\nkind\n"},
		{"doctor -o custom-columns=CHECK:.check,FIX:.fix", "CHECK          FIX\ncluster/name   <none>\npath/udp       a firewall\n"},
		{"steer list -o custom-columns=RULE:.name", "RULE\n"},
		{"expose list -o custom-columns=NAME:.name", "NAME\n"},
		{"export list -o custom-columns=PEER:.name", "PEER\n"},
		{"profile list -o custom-columns=PROFILE:.name", "PROFILE\n"},
		{"dns query web A -o custom-columns=DATA:.data,TTL:.ttl", "DATA         TTL\n10.96.0.20   5\n"},
		{"version -o custom-columns=KIND:.kind", "KIND\nVersions\n"},
		{"config view -o custom-columns=KIND:.kind", "KIND\nConfig\n"},
	} {
		if r := m.Podnet(strings.Fields(c.line)...); r.Code != 0 || r.Out != c.want {
			t.Errorf("%s: exit status %d, %q, want %q\n%s", c.line, r.Code, r.Out, c.want, r.Stderr)
		}
	}
	m.Podnet("status", "-o", "custom-columns=N:.name,ROUTE:.routes[7]").Want(t, exit.Generic, "the answer has no N:.name,ROUTE:.routes[7]: ROUTE: array index out of bounds", "-o json shows")
	for line, says := range map[string]string{
		"status -o custom-columns=":                  "want them as NAME:.name,",
		"status -o custom-columns=name":              `"name" has no colon`,
		"status -o custom-columns=NAME:":             "it is empty",
		"status -o custom-columns=NAME:.name,":       `"" has no colon`,
		"status -o custom-columns=NAME:{.name":       "want them as NAME:.name,",
		"status -o custom-columns":                   "want table, wide, json",
		"steer web 1 -o custom-columns=NAME:.name":   "want table, json, yaml or name",
		"admin top -o custom-columns=NAME:.gateways": "want table, wide, json or yaml",
	} {
		m.Podnet(strings.Fields(line)...).Want(t, exit.Usage, says)
	}
}

// TestColumnsOfWhatComes has one line of headers for all questions of a log.
func TestColumnsOfWhatComes(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	m.Names.Queries = []localapi.DNSQuery{{Seq: 1, DNSAnswer: localapi.DNSAnswer{Name: "web.", Type: "A"}}, {Seq: 2, DNSAnswer: localapi.DNSAnswer{Name: "nas.", Type: "AAAA"}}}
	if r := m.Podnet("dns", "log", "-o", "custom-columns=NAME:.name,TYPE:.type"); r.Code != 0 || r.Out != "NAME   TYPE\nweb.   A\nnas.   AAAA\n" {
		t.Errorf("exit status %d\n%s%s", r.Code, r.Out, r.Stderr)
	}
}

// Every command that prints things prints them in every form it says it knows.
func TestForms(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	m.Podnet("status", "-o", "name").Want(t, 0)
	for command, forms := range map[string][]string{
		"status": answer.ListForms, "connect -n shop": answer.ListForms, "steer list": answer.ListForms, "expose list": answer.ListForms, "export list": answer.ListForms,
		"version": answer.FactForms, "doctor": answer.FactForms, "wait": answer.ListForms,
	} {
		for _, form := range forms {
			r := m.Podnet(append(strings.Fields(command), "-o", form)...)
			r.Want(t, 0)
			var v map[string]any
			err := json.Unmarshal([]byte(r.Out), &v)
			switch {
			case form == answer.JSON && (err != nil || v["apiVersion"] != localapi.APIVersion || v["kind"] == ""):
				t.Errorf("%s -o json: %v in %s", command, err, r.Out)
			case form == answer.YAML && !strings.Contains(r.Out, "apiVersion: "+localapi.APIVersion+"\n"):
				t.Errorf("%s -o yaml:\n%s", command, r.Out)
			case form == answer.Table && r.Out != m.Podnet(strings.Fields(command)...).Out && command != "status" && command != "connect -n shop" && command != "wait":
				t.Errorf("%s -o table is not what %s prints", command, command)
			case (command == "status" || strings.HasPrefix(command, "connect")) && form == answer.Name && r.Out != "kind\n":
				t.Errorf("%s -o name: %q", command, r.Out)
			case command == "status" && form == answer.Wide && !strings.Contains(r.Out, "SESSION"):
				t.Errorf("%s -o wide:\n%s", command, r.Out)
			}
		}
	}
}
