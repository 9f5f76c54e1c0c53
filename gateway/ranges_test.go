package gateway

import (
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
		if got := texts(collapse(prefixes(t, c.in...))); !slices.Equal(got, c.want) {
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
			if covers(out, a) != inside {
				t.Fatalf("seed %d: %v became %v, wrong about %s", seed, in, out, a)
			}
			if inside && !covers(small, a) {
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

func TestRangesFromDeclaredAndSeen(t *testing.T) {
	addrs := func(s ...string) []netip.Addr {
		var all []netip.Addr
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	var r ranges
	declared := prefixes(t, "10.244.0.0/24", "10.244.1.0/24")
	got := r.update(declared, slices.Values(addrs("10.244.1.9", "10.244.0.3")), podBlock4, podBlock6)
	if want := []string{"10.244.0.0/23"}; !slices.Equal(texts(got), want) {
		t.Errorf("declared: %v, want %v", got, want)
	}
	// A CNI with ranges of its own: its pods are outside of what nodes declare.
	got = r.update(declared, slices.Values(addrs("192.168.7.20", "fd00::1:5")), podBlock4, podBlock6)
	if want := []string{"10.244.0.0/23", "192.168.7.0/24", "fd00::1:0/120"}; !slices.Equal(texts(got), want) {
		t.Errorf("seen: %v, want %v", got, want)
	}
	// Routes stay when the last pod of a block is gone for a moment.
	got = r.update(declared, slices.Values(addrs()), podBlock4, podBlock6)
	if want := []string{"10.244.0.0/23", "192.168.7.0/24", "fd00::1:0/120"}; !slices.Equal(texts(got), want) {
		t.Errorf("gone: %v, want %v", got, want)
	}
	var services ranges
	got = services.update(nil, slices.Values(addrs("10.96.0.10", "10.96.200.1")), serviceBlock4, serviceBlock6)
	if want := []string{"10.96.0.0/16"}; !slices.Equal(texts(got), want) {
		t.Errorf("Services: %v, want %v", got, want)
	}
}
