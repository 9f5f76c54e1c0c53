package osdns

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestResolverDirGolden(t *testing.T) {
	second := planned()
	second.Link, second.Servers = "podnet1", []netip.Addr{netip.MustParseAddr("198.18.0.10")}
	second.MatchDomains = []string{"blue.podnet.internal", "cluster.local", "../evil", ""}
	ops, taken := planResolverDir(map[string]string{
		"dev":     "nameserver 192.0.2.1\n",                                                        // somebody's
		"corp":    "nameserver 192.0.2.2\n",                                                        // somebody's
		"pay":     resolverMarker + "\nnameserver 198.18.0.9\n",                                    // ours, of a namespace that went
		"default": resolverMarker + "\nnameserver 198.18.0.66\n",                                   // ours, with another address
		"svc":     resolverMarker + "\nnameserver 198.18.0.9\nnameserver fd70:6f64:6e65:7400::9\n", // as it is to be
	}, []Config{planned(), second})
	var text strings.Builder
	for _, op := range ops {
		text.WriteString(op.String())
	}
	golden(t, "resolverdir.golden", text.String())
	if !slices.Equal(taken, []string{"dev"}) {
		t.Errorf("taken %q", taken)
	}
}

func TestResolverDirOnDisk(t *testing.T) {
	etc := t.TempDir()
	dir, conf := filepath.Join(etc, "resolver"), filepath.Join(etc, "resolv.conf")
	for file, content := range map[string]string{conf: "nameserver 192.0.2.53\nnameserver 198.18.0.9\n"} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	flushes, warnings := 0, 0
	open := func() *resolverDir {
		opts := Options{ResolvConf: conf, Warn: func(string) { warnings++ }}.withDefaults()
		return &resolverDir{opts: opts, log: opts.Log, dir: resolverPath(opts), flush: func(context.Context) error { flushes++; return nil }}
	}
	names := func() []string {
		var all []string
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	m := open()
	if err := m.Set(t.Context(), nil); err != nil || flushes != 0 {
		t.Errorf("nothing wanted, nothing there: %v, %d flushes", err, flushes)
	}
	for range 2 {
		if err := m.Set(t.Context(), []Config{wish}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"cluster.local", "search.podnet", "shop", "svc"}; !slices.Equal(names(), want) || flushes != 1 {
		t.Errorf("files %q, %d flushes", names(), flushes)
	}
	if got := m.Base(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}) {
		t.Errorf("base %v", got)
	}

	// Killed here. Somebody has put a file and a link there since.
	foreign := filepath.Join(dir, "corp")
	if err := os.WriteFile(foreign, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(conf, filepath.Join(dir, "dev")); err != nil {
		t.Fatal(err)
	}
	next := open()
	own := wish
	own.MatchDomains = []string{"dev"}
	if err := next.Set(t.Context(), []Config{own}); err != nil {
		t.Fatal(err)
	}
	if warnings != 1 {
		t.Errorf("%d warnings", warnings)
	}
	for range 2 {
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"corp", "dev"}; !slices.Equal(names(), want) {
		t.Errorf("left %q", names())
	}
}
