package localapi

import (
	"slices"
	"strings"
	"testing"
)

func TestBeyondIsSpeltOneWay(t *testing.T) {
	given := Beyond{AlsoRoutes: []string{"10.20.0.0/16", "2001:DB8::/32"}, AlsoDomains: []string{"Corp.Internal."}, NeverRoutes: []string{"10.244.7.0/24"}}
	b := given
	if err := b.Tidy(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.AlsoRoutes, []string{"10.20.0.0/16", "2001:db8::/32"}) || b.AlsoDomains[0] != "corp.internal" || b.Never()[0].String() != "10.244.7.0/24" {
		t.Errorf("%+v", b)
	}
	if given.AlsoDomains[0] != "Corp.Internal." {
		t.Error("what the caller had was changed")
	}
	for says, b := range map[string]Beyond{
		"want a prefix":                 {AlsoRoutes: []string{"10.20.0.1"}},
		"did you mean 10.20.0.0/16?":    {AlsoRoutes: []string{"10.20.3.0/16"}},
		"wider than /8":                 {AlsoRoutes: []string{"0.0.0.0/0"}},
		"or /32 of IPv6":                {AlsoRoutes: []string{"2000::/8"}},
		"--never-route \"x\"":           {NeverRoutes: []string{"x"}},
		"two labels":                    {AlsoDomains: []string{"com"}},
		"10.in-addr.arpa":               {AlsoDomains: []string{"10.in-addr.arpa"}},
		"9 prefixes and 0 domains":      {AlsoRoutes: slices.Repeat([]string{"10.0.0.0/8"}, 9)},
		"--also-domain \"a b.example\"": {AlsoDomains: []string{"a b.example"}},
	} {
		err := b.Tidy()
		if e, ok := err.(*Error); !ok || e.Code != CodeUsage || !strings.Contains(e.Message+e.Hint, says) {
			t.Errorf("%+v: %v, want %q", b, err, says)
		}
	}
	if (ConnectRequest{Beyond: given}).SameAs(ConnectRequest{}) {
		t.Error("a session without serves who wants it with")
	}
}
