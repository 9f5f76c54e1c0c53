package cli

import (
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

// TestPartsOfAnAnswer has scripts take what they need, as they do with kubectl.
func TestPartsOfAnAnswer(t *testing.T) {
	m := newMachine(t)
	m.podnet("status", "-o", "jsonpath={.state}").want(t, exitNotConnected, "Disconnected")
	if r := m.podnet("status", "-o", "jsonpath={.connections[0].name}"); r.code != exitNotConnected || r.out+r.stderr != "" {
		t.Errorf("of nothing: exit status %d, %q", r.code, r.out+r.stderr)
	}
	m.findings = []localapi.Finding{{Check: "cluster/name", Result: localapi.ResultOK, Text: "resolves"}, {Check: "path/udp", Result: localapi.ResultWarning, Text: "no answer", Fix: "a firewall"}}
	for _, c := range []struct{ line, want string }{
		{"connect -n shop -o jsonpath={.connections[0].namespaces}", `["shop"]`},
		{"status -o jsonpath=.connections[*].namespace", "shop"},
		{`doctor -o jsonpath={.findings[?(@.result=="warning")].fix}`, "a firewall"},
		{"steer list -o jsonpath={.rules[*].name}", ""},
		{"expose list -o jsonpath=kind", "ExposeList"},
		{"version -o jsonpath=kind", "Versions"},
	} {
		if r := m.podnet(strings.Fields(c.line)...); r.code != 0 || r.out != c.want {
			t.Errorf("%s: exit status %d, %q, want %q\n%s", c.line, r.code, r.out, c.want, r.stderr)
		}
	}
	m.podnet("status", "-o", "jsonpath={.connections[7].name}").want(t, exitGeneric, "the answer has no {.connections[7].name}", "-o json shows")
	for line, says := range map[string]string{
		"status -o jsonpath={.state":      "want one as {.state}",
		"status -o jsonpath=":             "want one as {.state}",
		"status -o jsonpath":              "want table, wide, json, yaml, jsonpath=TEMPLATE or name",
		"steer web 1 -o jsonpath=.rules":  "want table, json, yaml or name",
		"exec -o jsonpath=.state -- true": "want table or json",
		"install -o jsonpath=.kind":       "want yaml or json",
	} {
		m.podnet(strings.Fields(line)...).want(t, exitUsage, says)
	}
}
