package virtual

import (
	"slices"
	"strings"
	"testing"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/ranges"
)

func prefixes(texts ...string) []podnet.VirtualPrefix {
	var all []podnet.VirtualPrefix
	for _, s := range texts {
		real, virtual, _ := strings.Cut(s, " ")
		all = append(all, podnet.VirtualPrefix{Real: real, Virtual: virtual})
	}
	return all
}

func TestWhatIsMapped(t *testing.T) {
	published := ranges.Parse([]string{"10.244.0.0/24", "10.244.1.0/24", "10.96.0.0/12", "fd00:10:244::/64"})
	pods, services := "10.244.0.0/16 100.64.0.0/16", "10.96.0.0/12 172.16.0.0/12"
	for _, c := range []struct {
		what    string
		spec    []podnet.VirtualPrefix
		mapped  []podnet.VirtualPrefix
		refused string
	}{
		{"nothing", nil, nil, ""},
		{"all of the cluster's", prefixes(pods, services, "fd00:10:244::/64 fdaa::/64"), prefixes(pods, services, "fd00:10:244::/64 fdaa::/64"), ""},
		{"part of what is published", prefixes("10.244.1.0/25 100.64.0.0/25"), prefixes("10.244.1.0/25 100.64.0.0/25"), ""},
		{"somebody else's", prefixes(pods, "192.0.2.0/24 100.65.0.0/24", services), prefixes(pods, services), "Not mapped: 192.0.2.0/24: nothing of the cluster's pods and Services."},
		{"only somebody else's", prefixes("192.0.2.0/24 100.65.0.0/24"), nil, "Not mapped: 192.0.2.0/24:"},
		{"no prefix", prefixes(pods, "10.96.0.0 172.16.0.0/12"), nil, `Nothing is mapped: real "10.96.0.0": want a prefix`},
		{"a contradiction", prefixes(pods, "10.96.0.0/16 100.64.0.0/16"), nil, "Nothing is mapped: "},
		{"the tunnel's own", prefixes("10.244.0.0/16 198.18.0.0/16"), nil, "Nothing is mapped: "},
	} {
		m := Of(c.spec, published)
		if got := m.Told(); !slices.Equal(got, c.mapped) || !strings.HasPrefix(m.Refused, c.refused) || (m.Refused == "") != (c.refused == "") {
			t.Errorf("%s: %v mapped, %q; want %v, %q", c.what, got, m.Refused, c.mapped, c.refused)
		}
	}
}
