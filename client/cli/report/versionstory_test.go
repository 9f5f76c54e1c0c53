package report_test

import (
	"encoding/json"
	"testing"

	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

func TestVersions(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect").Want(t, 0)
	var said struct {
		Kind, Version      string
		Daemon             *localapi.Version
		Gateways, Warnings []any
	}
	r := m.Podnet("version", "-o", "json")
	if err := json.Unmarshal([]byte(r.Out), &said); err != nil || said.Kind != "Versions" || said.Version != version.Version || said.Daemon == nil || said.Gateways == nil || said.Warnings == nil {
		t.Errorf("%v in %s", err, r.Out)
	}
}
