package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// fakeExports lets every device in.
type fakeExports struct {
	mu    sync.Mutex
	asked []localapi.ExportRequest
	all   []localapi.Export
	long  bool
}

const exportedConfig = "# for people\n[Interface]\nPrivateKey = abc\n\n[Peer]\nEndpoint = 203.0.113.7:31820\n"

func (f *fakeExports) Run(ctx context.Context) { <-ctx.Done() }

func (f *fakeExports) Export(_ context.Context, req localapi.ExportRequest) (localapi.Exported, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req)
	now := time.Now()
	e := localapi.Export{Name: "u1-" + req.Device + "-ab12", Device: req.Device, User: "alice", Namespaces: req.Namespaces, Gateway: "podnet-gateway-0", Made: now,
		ExpiresAt: now.Add(time.Duration(req.LeaseSeconds) * time.Second), Renewed: true}
	f.all = append(f.all, e)
	config := exportedConfig
	if f.long {
		config += strings.Repeat("x", 3000)
	}
	return localapi.Exported{Export: e, Config: config}, nil
}

func (f *fakeExports) List(context.Context, localapi.ExportListRequest) ([]localapi.Export, error) {
	return f.Exports(), nil
}

func (f *fakeExports) Revoke(_ context.Context, req localapi.ExportRevokeRequest) (names []string, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.all {
		names = append(names, e.Name)
	}
	f.all = nil
	return names, nil
}

func (f *fakeExports) Exports() []localapi.Export {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]localapi.Export{}, f.all...)
}

func (f *fakeExports) Renewing() bool { return len(f.Exports()) > 0 }

func TestExport(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODNET_LEASE=2m", "PODNET_OUTPUT=json"} // connect's
	r := m.podnet("export", "-n", "shop", "--dns", "192.168.1.1", "--context", "kind")
	if r.want(t, 0); r.out != exportedConfig || !strings.Contains(r.stderr, "let in until") || strings.Contains(r.stderr, "only resolver") {
		t.Errorf("printed %s\n%s", r.out, r.stderr)
	}
	if q := m.exports.asked[0]; q.LeaseSeconds != 24*3600 || len(q.Resolvers) != 1 || q.Kube.Flags["context"][0] != "kind" || q.GatewayNamespace != "podnet-system" {
		t.Errorf("asked for %+v", q)
	}
	m.environ = nil
	m.podnet("export", "list").want(t, 0, "u1-device-ab12", "shop", "yes")
	var list localapi.ExportList
	if r := m.podnet("export", "list", "-o", "json"); json.Unmarshal([]byte(r.out), &list) != nil || len(list.Exports) != 1 || list.Kind != "ExportList" {
		t.Errorf("as JSON: %s", r.out)
	}
	m.podnet("status").want(t, exit.NotConnected, "exported: u1-device-ab12 until")
	m.podnet("disconnect").want(t, 0, "the daemon stays to renew")
	m.podnet("export", "revoke", "device").want(t, 0, "u1-device-ab12 revoked")
	m.podnet("export", "revoke", "--all").want(t, 0, "nothing is exported")
	m.podnet("export", "list").want(t, 0, "nothing is exported")
}

// TestExportToFile writes the only copy of a key, and over nothing.
func TestExportToFile(t *testing.T) {
	m, file := newMachine(t), filepath.Join(t.TempDir(), "phone.conf")
	r := m.podnet("export", "-o", file)
	r.want(t, 0, "its private key")
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != exportedConfig || strings.Contains(r.out, "PrivateKey") {
		t.Errorf("%v: wrote %s, printed %s", err, raw, r.out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	m.podnet("export", "-o", file).want(t, exit.Usage, "file exists")
	if len(m.exports.asked) != 1 {
		t.Errorf("asked %d times", len(m.exports.asked))
	}
}

func TestExportAsQR(t *testing.T) {
	m := newMachine(t)
	if r := m.podnet("export", "--qr"); r.code != 0 || !strings.Contains(r.out, "█") || strings.Contains(r.out, "PrivateKey") {
		t.Errorf("exit %d, printed %s%s", r.code, r.out, r.stderr)
	}
	m = newMachine(t)
	m.exports.long = true // what cannot be handed over lets nobody in
	m.podnet("export", "--qr").want(t, exit.Usage, "a QR code takes 2953")
	if len(m.exports.asked) != 1 || len(m.exports.all) != 0 {
		t.Errorf("let in: %v", m.exports.all)
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
		m := newMachine(t)
		m.podnet(strings.Fields(line)...).want(t, exit.Usage, says)
		if m.started != 0 {
			t.Errorf("%s started a daemon", line)
		}
	}
}
