package ranges

import (
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func prefixes(t *testing.T, texts ...string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestCollapse(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"10.244.1.0/24", "10.244.0.0/24"}, []string{"10.244.0.0/23"}},
		{[]string{"10.244.1.0/24", "10.244.2.0/24"}, []string{"10.244.1.0/24", "10.244.2.0/24"}}, // neighbours, but no halves
		{[]string{"10.244.0.0/16", "10.244.3.0/24", "10.244.0.0/16"}, []string{"10.244.0.0/16"}},
		{[]string{"10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/25", "10.0.1.0/24"}, []string{"10.0.0.0/23"}},
		{[]string{"10.244.0.5/24"}, []string{"10.244.0.0/24"}},
		{[]string{"0.0.0.0/0", "::/0"}, []string{"0.0.0.0/0", "::/0"}},
		{[]string{"fd00:10:244:1::/64", "fd00:10:244::/64", "10.244.0.0/24"}, []string{"10.244.0.0/24", "fd00:10:244::/63"}},
	} {
		if got := Texts(collapse(prefixes(t, c.in...))); !slices.Equal(got, c.want) {
			t.Errorf("collapse(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// TestCollapseKeepsTheSet compares with the plain truth about every address of
// a small range.
func TestCollapseKeepsTheSet(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		var in []netip.Prefix
		for range r.IntN(12) {
			a := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(256))})
			in = append(in, netip.PrefixFrom(a, 24+r.IntN(9)).Masked())
		}
		out := collapse(in)
		small := limit(out, 3)
		if len(small) > 3 {
			t.Fatalf("seed %d: limit left %v", seed, small)
		}
		for i := range 512 {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			inside := slices.ContainsFunc(in, func(p netip.Prefix) bool { return p.Contains(a) })
			if Cover(out, a) != inside {
				t.Fatalf("seed %d: %v became %v, wrong about %s", seed, in, out, a)
			}
			if inside && !Cover(small, a) {
				t.Fatalf("seed %d: limit of %v to %v lost %s", seed, out, small, a)
			}
		}
	}
}

func TestLimitNeverSwallowsTheWorld(t *testing.T) {
	got := limit(prefixes(t, "10.0.0.0/24", "172.16.0.0/24", "192.168.0.0/16", "fd00::/64"), 2)
	for _, p := range got {
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 32 {
			t.Errorf("limit made %s", p)
		}
	}
	if len(got) != 2 {
		t.Errorf("limit left %v", got)
	}
}

func TestPublishedRanges(t *testing.T) {
	addrs := func(s ...string) iter.Seq[netip.Addr] {
		var all []netip.Addr
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return slices.Values(all)
	}
	for what, c := range map[string]struct {
		said, declared []string
		pods           iter.Seq[netip.Addr]
		want           []string
	}{
		"what nodes declare":                   {nil, []string{"10.244.0.0/24", "10.244.1.0/24"}, addrs("10.244.1.9"), []string{"10.244.0.0/23"}},
		"an endpoint beside it, maybe made up": {nil, []string{"10.244.0.0/24"}, addrs("192.168.7.20"), []string{"10.244.0.0/24"}},
		"IPv6 that nodes do not declare":       {nil, []string{"10.244.0.0/24"}, addrs("192.168.7.20", "fd00::1:5"), []string{"10.244.0.0/24", "fd00::1:0/120"}},
		"nothing declared":                     {nil, nil, addrs("192.168.7.20", "100.64.3.4", "fd00::1:5"), []string{"100.64.3.0/24", "192.168.7.0/24", "fd00::1:0/120"}},
		"public endpoints, maybe made up":      {nil, nil, addrs("192.0.2.9", "2001:db8::1"), nil},
		"nothing at all":                       {nil, nil, addrs(), nil},
		"the administrator knows better":       {[]string{"10.0.0.0/8"}, []string{"10.244.0.0/24", "fd00:10:244::/64"}, addrs("10.3.0.1", "172.20.0.1"), []string{"10.0.0.0/8", "fd00:10:244::/64"}},
		"he knows public ones":                 {[]string{"2001:db8:5::/48"}, nil, addrs("2001:db8:5::7", "10.3.0.1"), []string{"10.3.0.0/24", "2001:db8:5::/48"}},
		"nonsense declared":                    {nil, []string{"0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "10.0.0.0/7", "fe80::/64", "::/0", "10.9.0.0/16"}, addrs(), []string{"10.9.0.0/16"}},
	} {
		got := Pods(prefixes(t, c.said...), prefixes(t, c.declared...), c.pods)
		if !slices.Equal(Texts(got), c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	for what, c := range map[string]struct {
		declared []string
		want     []string
	}{
		"before ServiceCIDRs": {nil, []string{"10.96.0.0/16"}},
		"with them":           {[]string{"10.96.0.0/12"}, []string{"10.96.0.0/12"}},
	} {
		if got := Services(prefixes(t, c.declared...), addrs("10.96.0.10", "10.96.200.1")); !slices.Equal(Texts(got), c.want) {
			t.Errorf("Services %s: %v, want %v", what, got, c.want)
		}
	}
}
