package cli

import (
	"encoding/json"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

func TestDoctor(t *testing.T) {
	m := newMachine(t)
	m.findings = []localapi.Finding{
		{Check: "cluster/name", Result: localapi.ResultOK, Text: "api.example is 203.0.113.5"},
		{Check: "cluster/clock", Result: localapi.ResultWarning, Text: "the clock is ahead", Fix: "set it"},
		{Check: "host/routes", Result: localapi.ResultSkipped, Text: "nothing to compare"},
	}
	r := m.podnet("doctor", "-n", "shop", "--gateway-namespace", "net", "--context", "kind")
	const want = `cluster
  ok       name          api.example is 203.0.113.5
  warning  clock         the clock is ahead
                         fix: set it

host
  skipped  routes        nothing to compare

no problems, 1 warning
`
	if r.out != want || r.code != 0 {
		t.Errorf("exit status %d, got\n%swant\n%s%s", r.code, r.out, want, r.stderr)
	}
	if e := m.examined; e.GatewayNamespace != "net" || len(e.Namespaces) != 1 || e.Namespaces[0] != "shop" || e.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", e)
	}

	m.findings = append(m.findings, localapi.Finding{Check: "host/dns", Result: localapi.ResultProblem, Text: "broken", Fix: "mend it"})
	if r := m.podnet("doctor"); r.code != exit.Generic || r.stderr != "" {
		t.Errorf("a problem ends with %d and says %q", r.code, r.stderr)
	}
	r = m.podnet("doctor", "-o", "json")
	var doc struct {
		APIVersion, Kind string
		Findings         []localapi.Finding
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || r.code != exit.Generic {
		t.Fatalf("exit status %d, %v in %s", r.code, err, r.out)
	}
	if doc.APIVersion != "podnet/v1" || doc.Kind != "Findings" || len(doc.Findings) != 4 || doc.Findings[3].Fix != "mend it" {
		t.Errorf("got %+v", doc)
	}
	if m.started != 1 {
		t.Errorf("%d daemons were started", m.started)
	}
}
