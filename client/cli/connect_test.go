package cli_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestConnectJSON(t *testing.T) {
	r := fakemachine.New(t).Podnet("connect", "--wait", "-o", "json")
	r.Want(t, 0)
	var s localapi.Status
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil || s.State != localapi.Connected {
		t.Errorf("%v: %s", err, r.Out)
	}
}

func TestConnectAs(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"PODNET_AS=carol"}
	m.Podnet("connect", "--as", "deploy/web").Want(t, 0, "connected")
	if m.Last.As != "deploy/web" || m.Last.Hold || !slices.Equal(m.Last.Kube.Flags["as"], []string{"carol"}) {
		t.Errorf("asked for %+v", m.Last)
	}
	m.Podnet("connect").Want(t, exit.Conflict, "in another way")
}

func TestEphemeral(t *testing.T) {
	for line, want := range map[string]int32{
		"":                          300,
		"--ephemeral":               120,
		"--ephemeral --lease 60s":   60,
		"--lease 10m --ephemeral":   120,
		"--ephemeral --lease 10m":   120,
		"--ephemeral=false":         300,
		"--lease 90s":               90,
		"CI=true":                   120,
		"CI=true --lease 5m":        300,
		"PODNET_EPHEMERAL=true":     120,
		"PODNET_EPHEMERAL=0 -n pay": 300,
	} {
		m := fakemachine.New(t)
		words := strings.Fields(line)
		if len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "-") {
			m.Environ, words = words[:1], words[1:]
		}
		m.Podnet(append([]string{"connect"}, words...)...).Want(t, 0)
		if m.Last.LeaseSeconds != want {
			t.Errorf("%s: a lease of %d s", line, m.Last.LeaseSeconds)
		}
	}
	fakemachine.New(t).Podnet("connect", "--ephemeral=perhaps").Want(t, exit.Usage, "perhaps")
}
