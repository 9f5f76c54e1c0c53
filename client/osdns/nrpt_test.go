package osdns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestNRPTGolden(t *testing.T) {
	many := planned()
	for i := range 60 {
		many.MatchDomains = append(many.MatchDomains, fmt.Sprintf("team-%d", i))
	}
	second := planned()
	second.Link, second.Servers = "podnet1", []netip.Addr{netip.MustParseAddr("198.18.0.10")}
	second.MatchDomains = []string{"blue.podnet.internal", "cluster.local"}
	var text strings.Builder
	for _, k := range planNRPT([]string{"{somebody}", strings.ToUpper(nrptRule + "00}"), nrptRule + "07}"}, []string{nrptRule + "00}"}, []Config{many, second}) {
		text.WriteString(k.String())
	}
	golden(t, "nrpt.golden", text.String())
}

// playedRegistry is a registry in memory.
type playedRegistry struct {
	keys      map[string]bool
	search    map[string]string
	servers   []netip.Addr
	refreshes int
}

func (r *playedRegistry) Keys(path string) ([]string, error) {
	var out []string
	for k := range r.keys {
		if name, ok := strings.CutPrefix(k, path+`\`); ok {
			out = append(out, name)
		}
	}
	return out, nil
}

func (r *playedRegistry) Apply(k regKey) error {
	if k.values == nil {
		delete(r.keys, k.path)
	} else {
		r.keys[k.path] = true
	}
	return nil
}

func (r *playedRegistry) SetSearch(link string, domains []string) error {
	r.search[link] = strings.Join(domains, ",")
	return nil
}

func (r *playedRegistry) Servers([]string) ([]netip.Addr, error) { return r.servers, nil }
func (r *playedRegistry) Refresh(context.Context) error          { r.refreshes++; return nil }

// Rules are where Windows reads them, and all of ours go, also those of a podnet
// that was killed.
func TestNRPT(t *testing.T) {
	for what, foreign := range map[string]string{
		"own rules": nrptLocal + `\{somebody}`, "group policy": nrptPolicy + `\{somebody}`,
	} {
		t.Run(what, func(t *testing.T) {
			killed := nrptLocal + `\` + nrptRule + "05}"
			r := &playedRegistry{keys: map[string]bool{foreign: true, killed: true}, search: map[string]string{},
				servers: []netip.Addr{wish.Servers[0], netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("fec0:0:0:ffff::1"), netip.MustParseAddr("192.0.2.53")}}
			n := &nrpt{reg: r, log: Options{}.withDefaults().Log}
			for range 2 {
				if err := n.Set(t.Context(), []Config{wish}); err != nil {
					t.Fatal(err)
				}
			}
			at := nrptLocal
			if what == "group policy" {
				at = nrptPolicy
			}
			if len(r.keys) != 2 || !r.keys[foreign] || !r.keys[at+`\`+nrptRule+"00}"] || r.refreshes != 1 {
				t.Errorf("keys %v, %d refreshes", r.keys, r.refreshes)
			}
			if r.search["podnet0"] != strings.Join(wish.SearchDomains, ",") {
				t.Errorf("search %v", r.search)
			}
			if got := n.Base(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}) {
				t.Errorf("base %v", got)
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			if len(r.keys) != 1 || !r.keys[foreign] {
				t.Errorf("left %v", r.keys)
			}
		})
	}
}
