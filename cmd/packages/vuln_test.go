package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKnownWeakness has make vuln look at podnet-helper with weaknesses that were made up.
func TestKnownWeakness(t *testing.T) {
	if testing.Short() {
		t.Skip("builds govulncheck")
	}
	for what, c := range map[string]struct {
		pkg, symbol string
		ends        bool // make does, without an error
		says        string
	}{
		"it can be reached":  {"os", "ReadFile", false, "vuln: a known weakness can be reached"},
		"it is not linked":   {"net/http", "Get", true, "Your code is affected by 0 vulnerabilities"},
		"nobody can be told": {"", "", false, "vuln: NOT LOOKED AT"},
	} {
		t.Run(what, func(t *testing.T) {
			db := t.TempDir()
			if c.pkg != "" {
				weakness(t, db, c.pkg, c.symbol)
			}
			cmd := exec.Command("make", "vuln", "VULNDB=file://"+db, "RELEASED=./cmd/podnet-helper", "RELEASED-linux=", "RELEASED-windows=")
			cmd.Dir, cmd.Env = "../..", append(os.Environ(), "MAKEFLAGS=")
			said, err := cmd.CombinedOutput()
			if (err == nil) != c.ends || !strings.Contains(string(said), c.says) {
				t.Errorf("%v: %s", err, said)
			}
			if systems := strings.Count(string(said), c.says); c.ends && systems != 3 {
				t.Errorf("it looked at %d systems: %s", systems, said)
			}
		})
	}
}

// weakness makes a database, https://go.dev/doc/security/vuln/database, that knows one
// weakness of every Go's library.
func weakness(t *testing.T, dir, pkg, symbol string) {
	t.Helper()
	const known = `"id": "GO-2000-0001", "modified": "2000-01-01T00:00:00Z", "database_specific": {"url": "https://example.org"}`
	for name, text := range map[string]string{
		"index/db.json":        `{"modified": "2000-01-01T00:00:00Z"}`,
		"index/modules.json":   `[{"path": "stdlib", "vulns": [{` + known + `}]}]`,
		"index/vulns.json":     `[{` + known + `}]`,
		"ID/GO-2000-0001.json": fmt.Sprintf(`{`+known+`, "affected": [{"package": {"name": "stdlib", "ecosystem": "Go"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}], "ecosystem_specific": {"imports": [{"path": %q, "symbols": [%q]}]}}]}`, pkg, symbol),
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
