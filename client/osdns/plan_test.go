package osdns

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// wish is what a session wants, in short.
var wish = Config{
	Link:          "podnet0",
	Servers:       []netip.Addr{netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd70:6f64:6e65:7400::9")},
	MatchDomains:  []string{"cluster.local", "svc", "shop"},
	SearchDomains: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
}

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
	}
}

func planned() Config {
	match, search := Domains("cluster.local", []string{"shop", "default", "dev"}, "shop", []netip.Prefix{
		netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10:96::/112"),
	})
	return Config{
		Link:    "podnet0",
		Servers: []netip.Addr{netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd70:6f64:6e65:7400::9")},

		MatchDomains: match, SearchDomains: search,
	}
}

func TestResolvConfGoldens(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, in := range inputs {
		t.Run(filepath.Base(in), func(t *testing.T) {
			original, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			out := planResolvConf(original, planned())
			golden(t, strings.TrimSuffix(filepath.Base(in), ".in")+".golden", string(out))
			checkPlan(t, original, out, planned())
		})
	}
}

// checkPlan holds for every original there can be.
func checkPlan(t *testing.T, original, out []byte, want Config) {
	t.Helper()
	got := parseResolvConf(out)
	if one := want.Servers[:1]; !slices.Equal(got.servers, one) {
		t.Errorf("servers %v, want %v", got.servers, one)
	}
	had := parseResolvConf(original)
	if !slices.Equal(got.search, mergeSearch(want.SearchDomains, had.search)) {
		t.Errorf("search %v, had %v", got.search, had.search)
	}
	back := parseResolvConf(recoverResolvConf(out))
	if !slices.Equal(back.servers, had.servers) || !slices.Equal(back.search, had.search) {
		t.Errorf("recovered %+v, had %+v", back, had)
	}
	if !isOurs(out) || isOurs(recoverResolvConf(out)) && !isOurs(original) {
		t.Error("the marker is wrong")
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("nameserver 192.0.2.53\nsearch lan # home\noptions edns0\n"))
	f.Add([]byte("nameserver fe80::1%eth0\r\ndomain corp.example\n;nameserver 1.1.1.1\nnameserver"))
	f.Fuzz(func(t *testing.T, original []byte) {
		if isOurs(original) {
			t.Skip("never planned from")
		}
		checkPlan(t, original, planResolvConf(original, planned()), planned())
		baseServers(original, planned().Servers)
		wiredToResolved(original, original)
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"mode":"direct","path":"/etc/resolv.conf","original":{"kind":"file","content":"","uid":0,"gid":0}}`))
	f.Add([]byte(`{"mode":"resolved","link":"podnet0"}`))
	f.Add([]byte(`{"mode":"resolved","links":["podnet0","podnet1"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parseJournal(b)
		if err == nil && j.Mode == ModeResolved && (len(j.Links) == 0 || j.Link != "") {
			t.Errorf("accepted %+v", j)
		}
		if err == nil && j.Mode == ModeDirect && (j.Original == nil || !filepath.IsAbs(j.Path)) {
			t.Errorf("accepted %+v", j)
		}
	})
}

func TestResolvedGolden(t *testing.T) {
	var b strings.Builder
	for _, c := range planResolved(7, planned()) {
		b.WriteString(c.String() + "\n")
	}
	b.WriteString("\n")
	for _, c := range planResolved(7, Config{}) {
		b.WriteString(c.String() + "\n")
	}
	golden(t, "resolved.golden", b.String())
}

func TestFewerDomains(t *testing.T) {
	got := fewerDomains(planDomains(planned()), 5)
	for _, d := range got {
		if strings.HasSuffix(d.Domain, ".arpa") {
			t.Errorf("kept %s", d.Domain)
		}
	}
	if len(got) != 5 || got[0] != (resolvedDomain{"shop.svc.cluster.local", false}) {
		t.Errorf("kept %v", got)
	}
}

func TestDomains(t *testing.T) {
	match, search := Domains("Cluster.Local.", []string{"shop", "default", "svc"}, "", []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")})
	if want := []string{"cluster.local", "svc", "default", "shop", "244.10.in-addr.arpa"}; !slices.Equal(match, want) {
		t.Errorf("match %v, want %v", match, want)
	}
	if want := []string{"svc.cluster.local", "cluster.local"}; !slices.Equal(search, want) {
		t.Errorf("search %v, want %v", search, want)
	}
}

func TestReverseZones(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		want   string // "first ... last count", or all
		n      int
	}{
		{"10.0.0.0/8", "10.in-addr.arpa", 1},
		{"10.96.0.0/12", "96.10.in-addr.arpa 111.10.in-addr.arpa", 16},
		{"10.128.0.0/9", "10.in-addr.arpa", 1}, // 128 zones are too many
		{"10.244.1.0/24", "1.244.10.in-addr.arpa", 1},
		{"198.18.0.1/32", "1.0.18.198.in-addr.arpa", 1},
		{"172.16.4.0/22", "4.16.172.in-addr.arpa 7.16.172.in-addr.arpa", 4},
		{"fd70:6f64:6e65:7400::/64", "0.0.4.7.5.6.e.6.4.6.f.6.0.7.d.f.ip6.arpa", 1},
		{"fd00:10:96::/46", "4.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa 7.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa", 4},
		{"::ffff:10.244.0.0/112", "244.10.in-addr.arpa", 1},
	} {
		got := ReverseZones(netip.MustParsePrefix(tt.prefix))
		ends := strings.Join(slices.Compact([]string{got[0], got[len(got)-1]}), " ")
		if ends != tt.want || len(got) != tt.n {
			t.Errorf("%s: %v, want %s (%d)", tt.prefix, got, tt.want, tt.n)
		}
	}
	if got := ReverseZones(netip.Prefix{}); got != nil {
		t.Errorf("no prefix: %v", got)
	}
}

func TestWiredToResolved(t *testing.T) {
	for _, tt := range []struct {
		what, resolv, nss string
		want              bool
	}{
		{"stub", "nameserver 127.0.0.53\noptions edns0 trust-ad\n", "hosts: files dns\n", true},
		{"stub without extras", "nameserver 127.0.0.54\n", "", true},
		{"bypassed", "nameserver 192.0.2.1\n", "hosts: files dns\n", false},
		{"stub and another", "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "", false},
		{"through the C library", "nameserver 192.0.2.1\n", "hosts: files mymachines resolve [!UNAVAIL=return] dns\n", true},
		{"dns first", "nameserver 192.0.2.1\n", "hosts: files dns resolve\n", false},
		{"remarks do not count", "", "#hosts: resolve\nhosts: files # resolve\n", false},
		{"empty", "", "", false},
		{"ours", marker + "\nnameserver 127.0.0.53\n", "hosts: resolve", false},
	} {
		if got := wiredToResolved([]byte(tt.resolv), []byte(tt.nss)); got != tt.want {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}
