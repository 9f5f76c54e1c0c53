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

func TestParseGetent(t *testing.T) {
	const out = "10.96.0.20      STREAM web.shop\n10.96.0.20      DGRAM  \n10.96.0.20      RAW    \n10.96.0.7 STREAM\n"
	want := []netip.Addr{netip.MustParseAddr("10.96.0.7"), netip.MustParseAddr("10.96.0.20")}
	if got := parseGetent(out); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseGetent("nonsense\n\n"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// Every way is told of, and what is wrong with it.
func TestLookUpTellsOfEachWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("search example.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ways := LookUp(context.Background(), Options{ResolvConf: file}, "podnet-check.invalid")
	if ways[0].Err == nil || !strings.Contains(ways[0].Err.Error(), "names no server") || !strings.Contains(ways[0].Programs, file) {
		t.Errorf("file without a server: %+v", ways[0])
	}
	for _, w := range ways[1:] { // a name of nobody (RFC 6761)
		if w.Err == nil || len(w.Addrs) > 0 {
			t.Errorf("%+v", w)
		}
	}
}
