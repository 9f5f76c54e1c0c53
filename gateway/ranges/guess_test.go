package ranges

import (
	"net/netip"
	"strings"
	"testing"
)

func TestGuesses(t *testing.T) {
	addrs := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	join := func(p []netip.Prefix) string { return strings.Join(Texts(p), " ") }
	for _, c := range []struct{ name, got, want string }{
		{"pods", join(GuessPods(nil, addrs("10.244.3.17", "fd00:10:244:3::11"))), "10.244.0.0/16 fd00:10:244::/56"},
		{"pods, as said for one family", join(GuessPods(Parse([]string{"10.128.0.0/14"}), addrs("10.130.3.17", "fd00:10:244:3::11"))), "10.128.0.0/14 fd00:10:244::/56"},
		{"kubeadm's Services", join(GuessServices(nil, netip.MustParseAddr("10.96.0.1"))), "10.96.0.0/12"},
		{"k3s' Services", join(GuessServices(nil, netip.MustParseAddr("10.43.0.1"))), "10.43.0.0/16"},
		{"Services of a /20", join(GuessServices(nil, netip.MustParseAddr("10.52.16.1"))), "10.52.16.0/20"},
		{"IPv6 Services", join(GuessServices(nil, netip.MustParseAddr("fd00:10:96::1"))), "fd00:10:96::/108"},
		{"Services, as said", join(GuessServices(Parse([]string{"10.96.0.0/16"}), netip.MustParseAddr("10.96.0.1"))), "10.96.0.0/16"},
		{"nothing known", join(GuessServices(nil, netip.Addr{})), ""},
		{"strays", join(Strays(Parse([]string{"10.244.0.0/16"}), addrs("10.244.1.1", "10.245.1.1", "203.0.113.7", "100.64.3.3"))), "10.245.1.0/24 100.64.3.0/24"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
}
