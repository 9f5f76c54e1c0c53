package inbound_test

import (
	"encoding/json"
	"testing"

	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestSteerInspect(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("steer", "--detach", "--inspect", "-n", "shop", "deploy/web", "8080:3000").Want(t, 0, "podnet steer inspect web-8080")
	if !m.Steering.Asked[0].Inspect {
		t.Error("the daemon was not asked to")
	}
	m.Podnet("steer", "inspect", "web-8080").Want(t, 0, "> GET /cart HTTP/1.1", "< HTTP/1.1 200 OK")
	r := m.Podnet("steer", "inspect", "web-8080", "-o", "json")
	var all localapi.Inspections
	if err := json.Unmarshal([]byte(r.Out), &all); err != nil || all.Rule != "web-8080" || len(all.Connections) != 1 || string(all.Connections[0].Exchanges[0].Out) != "HTTP/1.1 200 OK\r\n\r\n" {
		t.Errorf("%v: %s", err, r.Out)
	}
	m.Podnet("steer", "inspect").Want(t, 2, "want the name of one rule")
	m.Podnet("steer", "inspect", "other").Want(t, 1, "there is no rule other")
	m.Podnet("steer", "--inspect", "-n", "shop", "deploy/dns", "53/udp").Want(t, 2, "UDP is not inspected")
}
