package export_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExport(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"PODNET_LEASE=2m", "PODNET_OUTPUT=json"} // connect's
	r := m.Podnet("export", "-n", "shop", "--dns", "192.168.1.1", "--context", "kind")
	if r.Want(t, 0); r.Out != fakemachine.ExportedConfig || !strings.Contains(r.Stderr, "let in until") || strings.Contains(r.Stderr, "only resolver") {
		t.Errorf("printed %s\n%s", r.Out, r.Stderr)
	}
	if q := m.Exports.Asked[0]; q.LeaseSeconds != 24*3600 || len(q.Resolvers) != 1 || q.Kube.Flags["context"][0] != "kind" || q.GatewayNamespace != "podnet-system" {
		t.Errorf("asked for %+v", q)
	}
	m.Environ = nil
	m.Podnet("export", "list").Want(t, 0, "u1-device-ab12", "shop", "yes")
	var list localapi.ExportList
	if r := m.Podnet("export", "list", "-o", "json"); json.Unmarshal([]byte(r.Out), &list) != nil || len(list.Exports) != 1 || list.Kind != "ExportList" {
		t.Errorf("as JSON: %s", r.Out)
	}
	m.Podnet("status").Want(t, exit.NotConnected, "exported: u1-device-ab12 until")
	m.Podnet("disconnect").Want(t, 0, "the daemon stays to renew")
	m.Podnet("export", "revoke", "device").Want(t, 0, "u1-device-ab12 revoked")
	m.Podnet("export", "revoke", "--all").Want(t, 0, "nothing is exported")
	m.Podnet("export", "list").Want(t, 0, "nothing is exported")
}

// TestExportToFile writes the only copy of a key, and over nothing.
func TestExportToFile(t *testing.T) {
	m, file := fakemachine.New(t), filepath.Join(t.TempDir(), "phone.conf")
	r := m.Podnet("export", "-o", file)
	r.Want(t, 0, "its private key")
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != fakemachine.ExportedConfig || strings.Contains(r.Out, "PrivateKey") {
		t.Errorf("%v: wrote %s, printed %s", err, raw, r.Out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	m.Podnet("export", "-o", file).Want(t, exit.Usage, "file exists")
	if len(m.Exports.Asked) != 1 {
		t.Errorf("asked %d times", len(m.Exports.Asked))
	}
}

func TestExportAsQR(t *testing.T) {
	m := fakemachine.New(t)
	if r := m.Podnet("export", "--qr"); r.Code != 0 || !strings.Contains(r.Out, "█") || strings.Contains(r.Out, "PrivateKey") {
		t.Errorf("exit %d, printed %s%s", r.Code, r.Out, r.Stderr)
	}
	m = fakemachine.New(t)
	m.Exports.Long = true // what cannot be handed over lets nobody in
	m.Podnet("export", "--qr").Want(t, exit.Usage, "a QR code takes 2953")
	if len(m.Exports.Asked) != 1 || len(m.Exports.All) != 0 {
		t.Errorf("let in: %v", m.Exports.All)
	}
}

func TestBadExport(t *testing.T) {
	for line, says := range map[string]string{
		"export --lease 30s":         "1m to 168h",
		"export --lease 200h":        "1m to 168h",
		"export --name Phone!":       "Phone!",
		"export --dns one.one":       "one.one",
		"export --dns 127.0.0.1":     "127.0.0.1",
		"export -n No_Such!":         "No_Such!",
		"export -A -n a -n b":        "--all-namespaces",
		"export phone":               "no arguments",
		"export revoke":              "names of devices",
		"export revoke --all phone":  "names of devices",
		"export list -o xml":         "yaml",
		"export -o /no/such/dir/x.c": "no such file",
	} {
		m := fakemachine.New(t)
		m.Podnet(strings.Fields(line)...).Want(t, exit.Usage, says)
		if m.Started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}
