package remap

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func pairs(t testing.TB, texts ...string) []Pair {
	t.Helper()
	var all []Pair
	for _, s := range texts {
		real, virtual, _ := strings.Cut(s, " ")
		p, err := ParsePair(real, virtual)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func parse(t testing.TB, texts ...string) Map {
	t.Helper()
	m, err := Parse(pairs(t, texts...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMap(t *testing.T) {
	m := parse(t, "10.244.0.0/16 100.64.0.0/16", "10.96.0.0/12 172.16.0.0/12", "fd00:244::/56 fdaa:bb::/56", "192.0.2.7/32 100.127.0.1/32",
		"10.20.0.0/21 100.100.8.0/21")
	for _, c := range []struct{ real, virtual string }{
		{"10.244.0.0", "100.64.0.0"},
		{"10.244.1.17", "100.64.1.17"},
		{"10.244.255.255", "100.64.255.255"},
		{"10.96.0.1", "172.16.0.1"},
		{"10.111.255.254", "172.31.255.254"},
		{"fd00:244:0:3::17", "fdaa:bb:0:3::17"},
		{"192.0.2.7", "100.127.0.1"},
		{"10.20.7.9", "100.100.15.9"},
	} {
		real, virtual := netip.MustParseAddr(c.real), netip.MustParseAddr(c.virtual)
		if got, ok := m.Virtual(real); !ok || got != virtual {
			t.Errorf("Virtual(%s) = %s, %v, want %s", real, got, ok, virtual)
		}
		if got, ok := m.Real(virtual); !ok || got != real {
			t.Errorf("Real(%s) = %s, %v, want %s", virtual, got, ok, real)
		}
		if got, ok := m.Virtual(virtual); ok {
			t.Errorf("Virtual(%s) = %s: it is no real address", virtual, got)
		}
		if got, ok := m.Real(real); ok {
			t.Errorf("Real(%s) = %s: it is no virtual address", real, got)
		}
	}
	for _, s := range []string{"10.243.255.255", "10.245.0.0", "10.95.255.255", "fd00:244:0:100::", "192.0.2.8", "::ffff:10.244.0.1", "::"} {
		a := netip.MustParseAddr(s)
		if got, ok := m.Virtual(a); ok {
			t.Errorf("Virtual(%s) = %s", a, got)
		}
	}
	if got, ok := m.Real(netip.Addr{}); ok {
		t.Errorf("the invalid address is %s", got)
	}
	var zero Map
	if !zero.IsZero() || m.IsZero() || zero.Equal(m) || !m.Equal(parse(t, "10.244.0.0/16 100.64.0.0/16", "10.96.0.0/12 172.16.0.0/12", "fd00:244::/56 fdaa:bb::/56", "192.0.2.7/32 100.127.0.1/32", "10.20.0.0/21 100.100.8.0/21")) {
		t.Error("IsZero or Equal")
	}
	if got, ok := zero.Virtual(netip.MustParseAddr("10.244.0.1")); ok {
		t.Errorf("the zero Map maps to %s", got)
	}
}

func TestPrefixes(t *testing.T) {
	m := parse(t, "10.244.0.0/16 100.64.0.0/16", "fd00:244::/56 fdaa:bb::/56")
	for _, c := range []struct{ real, virtual string }{
		{"10.244.0.0/16", "100.64.0.0/16"},
		{"10.244.8.0/22", "100.64.8.0/22"},
		{"10.244.8.1/32", "100.64.8.1/32"},
		{"fd00:244:0:40::/58", "fdaa:bb:0:40::/58"},
	} {
		real, virtual := netip.MustParsePrefix(c.real), netip.MustParsePrefix(c.virtual)
		if got, ok := m.VirtualPrefix(real); !ok || got != virtual {
			t.Errorf("VirtualPrefix(%s) = %s, %v, want %s", real, got, ok, virtual)
		}
		if got, ok := m.RealPrefix(virtual); !ok || got != real {
			t.Errorf("RealPrefix(%s) = %s, %v, want %s", virtual, got, ok, real)
		}
	}
	if got, ok := m.VirtualPrefix(netip.MustParsePrefix("10.244.8.9/22")); !ok || got.String() != "100.64.8.0/22" {
		t.Errorf("of a prefix with host bits: %s, %v", got, ok)
	}
	for _, s := range []string{"10.244.0.0/15", "10.0.0.0/8", "10.245.0.0/24", "fd00:244::/48", "0.0.0.0/0", "::/0"} {
		if got, ok := m.VirtualPrefix(netip.MustParsePrefix(s)); ok {
			t.Errorf("VirtualPrefix(%s) = %s", s, got)
		}
	}
	if got, ok := m.VirtualPrefix(netip.Prefix{}); ok {
		t.Errorf("the invalid prefix is %s", got)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		pairs []string
		want  string
	}{
		{[]string{"10.244.0.0/16 100.64.0.0/17"}, "same length"},
		{[]string{"10.244.0.0/16 fd00::/16"}, "IPv4 does not stand for IPv6"},
		{[]string{"10.244.0.1/16 100.64.0.0/16"}, "10.244.0.1/16: did you mean 10.244.0.0/16?"},
		{[]string{"10.244.0.0/16 100.64.1.0/16"}, "did you mean 100.64.0.0/16?"},
		{[]string{"10.0.0.0/8 127.0.0.0/8"}, "loopback"},
		{[]string{"10.0.0.0/8 0.0.0.0/8"}, "unspecified"},
		{[]string{"0.0.0.0/0 0.0.0.0/0"}, "unspecified"},
		{[]string{"10.0.0.0/24 169.254.7.0/24"}, "link-local"},
		{[]string{"10.0.0.0/24 239.0.0.0/24"}, "multicast"},
		{[]string{"10.0.0.0/8 255.0.0.0/8"}, "broadcast"},
		{[]string{"10.0.0.0/16 198.18.0.0/16"}, "tunnel's own"},
		{[]string{"10.0.0.0/14 198.16.0.0/14"}, "tunnel's own"},
		{[]string{"fd00::/64 fd70:6f64:6e65:7402::/64"}, "tunnel's own"},
		{[]string{"fd00::/64 fe80::/64"}, "link-local"},
		{[]string{"fd00::/64 ff02::/64"}, "multicast"},
		{[]string{"fd00::/128 ::1/128"}, "loopback"},
		{[]string{"fd00::/64 64:ff9b::/64"}, "IPv4 in disguise"},
		{[]string{"::ffff:10.0.0.0/104 ::ffff:100.0.0.0/104"}, "not a prefix of IPv4 or IPv6"},
		{[]string{"10.244.0.0/16 100.64.0.0/16", "10.244.7.0/24 100.65.0.0/24"}, "only one that stands for it"},
		{[]string{"10.244.0.0/16 100.64.0.0/16", "10.245.0.0/24 100.64.9.0/24"}, "only one other"},
		{[]string{"10.244.0.0/16 10.96.0.0/16", "10.96.0.0/16 100.64.0.0/16"}, "cannot be virtual as well"},
		{[]string{"10.96.0.0/16 100.64.0.0/16", "10.244.0.0/16 10.96.0.0/16"}, "cannot be virtual as well"},
		{[]string{"10.244.0.0/16 10.244.0.0/16"}, "cannot be virtual as well"},
	} {
		m, err := Parse(pairs(t, c.pairs...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.pairs, err, c.want)
		}
		if !m.IsZero() {
			t.Errorf("%v: maps all the same", c.pairs)
		}
	}
	if _, err := Parse([]Pair{{}}); err == nil {
		t.Error("the zero Pair is taken")
	}
	for _, c := range [][2]string{{"10.244.0.0", "100.64.0.0/16"}, {"10.244.0.0/16", ""}, {"10.244.0.0/33", "100.64.0.0/16"}} {
		if p, err := ParsePair(c[0], c[1]); err == nil {
			t.Errorf("%q is %v", c, p)
		}
	}
}

// A Map owns its pairs: who made it may go on with the list.
func TestMapIsItsOwn(t *testing.T) {
	list := pairs(t, "10.244.0.0/16 100.64.0.0/16")
	m, err := Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	list[0].Virtual = netip.MustParsePrefix("100.65.0.0/16")
	m.Pairs()[0].Virtual = list[0].Virtual
	if got, _ := m.Virtual(netip.MustParseAddr("10.244.0.1")); got.String() != "100.64.0.1" {
		t.Errorf("10.244.0.1 is at %s now", got)
	}
}

// Whatever the pairs, there and back is where one was, nothing leaves its
// prefix, and neighbours stay neighbours.
func TestThereAndBack(t *testing.T) {
	const seed = 20261122
	rnd := rand.New(rand.NewPCG(seed, seed))
	taken := 0
	for range 20_000 {
		m, err := Parse(randomPairs(rnd))
		if err != nil {
			continue
		}
		taken++
		for _, p := range m.Pairs() {
			checkPair(t, m, p, randomIn(rnd, p.Real))
		}
	}
	if taken < 2000 {
		t.Errorf("only %d sets of pairs were any good: the test looks at too little", taken)
	}
}

func checkPair(t *testing.T, m Map, p Pair, real netip.Addr) {
	t.Helper()
	virtual, ok := m.Virtual(real)
	if !ok || !p.Virtual.Contains(virtual) {
		t.Fatalf("%v: Virtual(%s) = %s, %v", p, real, virtual, ok)
	}
	if back, ok := m.Real(virtual); !ok || back != real {
		t.Fatalf("%v: Real(%s) = %s, %v, want %s", p, virtual, back, ok, real)
	}
	if next := real.Next(); p.Real.Contains(next) {
		if got, _ := m.Virtual(next); got != virtual.Next() {
			t.Fatalf("%v: behind %s comes %s, not %s", p, real, got, virtual.Next())
		}
	}
	if _, ok := m.Real(real); ok {
		t.Fatalf("%v: %s is both real and virtual", p, real)
	}
	one := netip.PrefixFrom(real, real.BitLen())
	if got, ok := m.VirtualPrefix(one); !ok || got.Addr() != virtual {
		t.Fatalf("%v: VirtualPrefix(%s) = %s, %v", p, one, got, ok)
	}
}

func randomPairs(rnd *rand.Rand) []Pair {
	var all []Pair
	for range 1 + rnd.IntN(3) {
		p := Pair{randomPrefix(rnd), randomPrefix(rnd)}
		if rnd.IntN(8) > 0 { // mostly of one family and length
			for p.Virtual.Addr().BitLen() != p.Real.Addr().BitLen() {
				p.Virtual = randomPrefix(rnd)
			}
			p.Virtual = netip.PrefixFrom(p.Virtual.Addr(), p.Real.Bits()).Masked()
		}
		all = append(all, p)
	}
	return all
}

func randomPrefix(rnd *rand.Rand) netip.Prefix {
	var b [16]byte
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	if rnd.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), rnd.IntN(33)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), rnd.IntN(129)).Masked()
}

func randomIn(rnd *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= byte(rnd.IntN(2)) << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// FuzzParse: what comes from an API object is either refused or maps one to one.
func FuzzParse(f *testing.F) {
	f.Add("10.244.0.0/16", "100.64.0.0/16", "10.96.0.0/12", "172.16.0.0/12")
	f.Add("fd00::/56", "fdaa::/56", "10.96.0.0/12", "100.64.0.0/12")
	f.Add("0.0.0.0/0", "::/0", "::ffff:1.2.3.4/120", "fe80::%eth0/64")
	f.Add("10.244.0.0/16", "10.245.0.0/16", "10.245.0.0/16", "10.244.0.0/16")
	f.Fuzz(func(t *testing.T, real1, virtual1, real2, virtual2 string) {
		var list []Pair
		for _, s := range [][2]string{{real1, virtual1}, {real2, virtual2}} {
			p, err := ParsePair(s[0], s[1])
			if err != nil {
				continue
			}
			list = append(list, p)
		}
		m, err := Parse(list)
		if err != nil {
			return
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for _, p := range list {
			checkPair(t, m, p, p.Real.Addr())
			checkPair(t, m, p, randomIn(rnd, p.Real))
			if a, _ := m.Virtual(p.Real.Addr()); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
				t.Fatalf("%v: stands for %s", p, a)
			}
		}
	})
}

func BenchmarkReal(b *testing.B) {
	m := parse(b, "10.244.0.0/16 100.64.0.0/16", "10.96.0.0/12 172.16.0.0/12", "fd00:244::/56 fdaa:bb::/56")
	a := netip.MustParseAddr("172.16.0.10")
	b.ReportAllocs()
	for b.Loop() {
		m.Real(a)
	}
}
