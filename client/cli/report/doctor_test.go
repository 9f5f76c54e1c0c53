package report_test

import (
	"encoding/json"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestDoctor(t *testing.T) {
	m := fakemachine.New(t)
	m.Findings = []localapi.Finding{
		{Check: "cluster/name", Result: localapi.ResultOK, Text: "api.example is 203.0.113.5"},
		{Check: "cluster/clock", Result: localapi.ResultWarning, Text: "the clock is ahead", Fix: "set it"},
		{Check: "host/routes", Result: localapi.ResultSkipped, Text: "nothing to compare"},
	}
	r := m.Podnet("doctor", "-n", "shop", "--gateway-namespace", "net", "--context", "kind")
	const want = `cluster
  ok       name          api.example is 203.0.113.5
  warning  clock         the clock is ahead
                         fix: set it

host
  skipped  routes        nothing to compare

no problems, 1 warning
`
	if r.Out != want || r.Code != 0 {
		t.Errorf("exit status %d, got\n%swant\n%s%s", r.Code, r.Out, want, r.Stderr)
	}
	if e := m.Examined; e.GatewayNamespace != "net" || len(e.Namespaces) != 1 || e.Namespaces[0] != "shop" || e.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", e)
	}

	m.Findings = append(m.Findings, localapi.Finding{Check: "host/dns", Result: localapi.ResultProblem, Text: "broken", Fix: "mend it"})
	if r := m.Podnet("doctor"); r.Code != exit.Generic || r.Stderr != "" {
		t.Errorf("a problem ends with %d and says %q", r.Code, r.Stderr)
	}
	r = m.Podnet("doctor", "-o", "json")
	var doc struct {
		APIVersion, Kind string
		Findings         []localapi.Finding
	}
	if err := json.Unmarshal([]byte(r.Out), &doc); err != nil || r.Code != exit.Generic {
		t.Fatalf("exit status %d, %v in %s", r.Code, err, r.Out)
	}
	if doc.APIVersion != "podnet/v1" || doc.Kind != "Findings" || len(doc.Findings) != 4 || doc.Findings[3].Fix != "mend it" {
		t.Errorf("got %+v", doc)
	}
	if m.Started != 1 {
		t.Errorf("%d daemons were started", m.Started)
	}
}
