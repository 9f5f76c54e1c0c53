package addressing

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"podnet.dev/internal/remap"
)

func prefixes(s string) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

// has reads "eth0 10.244.1.128/25, session:blue 10.96.0.0/16".
func has(s string) []Network {
	var all []Network
	for _, one := range strings.Split(s, ", ") {
		owner, p, _ := strings.Cut(one, " ")
		n := Network{Prefix: netip.MustParsePrefix(p), Interface: owner}
		if name, ok := strings.CutPrefix(owner, "session:"); ok {
			n.Interface, n.Session = "", name
		}
		all = append(all, n)
	}
	return all
}

func text(pairs []remap.Pair) string {
	var out []string
	for _, p := range pairs {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

const (
	kubeadm = "10.244.0.0/24 10.244.1.0/24 10.96.0.0/16"
	dual    = kubeadm + " fd00:10:244::/64 fd00:10:96::/112"
)

func TestWhenAddressesAreVirtual(t *testing.T) {
	for name, c := range map[string]struct {
		mode, cluster, taken string
		reals, why           string
	}{
		"nothing collides":          {Auto, dual, "eth0 192.168.1.0/24, docker0 172.17.0.0/16", "", ""},
		"the same network":          {Auto, dual, "docker0 10.96.0.0/16", "10.96.0.0/16 10.244.0.0/16", "the cluster's 10.96.0.0/16 is also the network of docker0"},
		"a network inside":          {Auto, dual, "eth0 10.244.1.128/25", "10.96.0.0/16 10.244.0.0/16", "the cluster's 10.244.1.0/24 overlaps 10.244.1.128/25 on eth0"},
		"a network around":          {Auto, kubeadm, "tun0 10.0.0.0/8", "10.96.0.0/16 10.244.0.0/16", "the cluster's 10.244.0.0/24 overlaps 10.0.0.0/8 on tun0"},
		"beside a pod's network":    {Auto, kubeadm, "eth0 10.244.77.0/24", "", ""},
		"IPv6 only":                 {Auto, dual, "eth0 fd00:10:244::/64", "fd00:10:96::/56 fd00:10:244::/56", "the cluster's fd00:10:244::/64 is also the network of eth0"},
		"another session":           {Auto, kubeadm, "session:blue 10.244.0.0/24", "10.96.0.0/16 10.244.0.0/16", "the cluster's 10.244.0.0/24 is also routed to the session blue"},
		"a part of another session": {Auto, kubeadm, "session:blue 10.244.0.0/16", "10.96.0.0/16 10.244.0.0/16", "the cluster's 10.244.0.0/24 overlaps 10.244.0.0/16 of the session blue"},
		"direct, whatever is there": {Direct, dual, "docker0 10.96.0.0/16", "", ""},
		"virtual, whatever is not":  {Virtual, dual, "eth0 192.168.1.0/24", "10.96.0.0/16 10.244.0.0/16 fd00:10:96::/56 fd00:10:244::/56", "asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decide(Wish{Mode: c.mode, Cluster: "https://api", Prefixes: prefixes(c.cluster), Taken: has(c.taken)})
			if err != nil {
				t.Fatal(err)
			}
			var reals []string
			for _, p := range got.Pairs {
				reals = append(reals, p.Real.String())
			}
			if r := strings.Join(reals, " "); r != c.reals || got.Why != c.why {
				t.Errorf("%q because %q, want %q because %q", r, got.Why, c.reals, c.why)
			}
		})
	}
}

// TestVirtualPrefixes: where they are, and that it is not where something else is.
func TestVirtualPrefixes(t *testing.T) {
	for name, c := range map[string]struct{ cluster, taken, avoid, in string }{
		"the shared range first":     {kubeadm, "eth0 192.168.1.0/24", "", "100.64.0.0/10"},
		"kubeadm's Services":         {"10.244.0.0/16 10.96.0.0/12", "eth0 10.244.0.0/16", "", "100.64.0.0/10"},
		"a VPN in the shared range":  {kubeadm, "tailscale0 100.101.102.103/32", "", "172.16.0.0/12"},
		"another session in it":      {kubeadm, "session:blue 100.64.0.0/16", "", "100.64.0.0/10"},
		"a cluster in it":            {"100.64.0.0/10 10.96.0.0/16", "eth0 10.96.0.0/16", "", "10.0.0.0/8"},
		"a company that has it all":  {kubeadm, "a 10.0.0.0/8, b 172.16.0.0/12, c 100.64.0.0/10", "", "192.168.0.0/16"},
		"and one /16 is not enough":  {"10.244.0.0/15", "a 10.0.0.0/8, b 172.16.0.0/12, c 100.64.0.0/10", "", "240.0.0.0/4"},
		"the API server in the way":  {"10.244.0.0/11", "eth0 10.244.0.0/16", "100.64.0.1", "100.96.0.0/11"},
		"IPv6 has a place of itself": {"fd00:10:244::/56", "eth0 fd00:10:244::/64", "", "fd00::/8"},
		"as much IPv6 as can be":     {"2001:db8::/32", "eth0 2001:db8::/64", "", "fd00::/8"},
	} {
		t.Run(name, func(t *testing.T) {
			w := Wish{Mode: Virtual, Cluster: "https://api", Prefixes: prefixes(c.cluster), Taken: has(c.taken), Reserved: true}
			if c.avoid != "" {
				w.Avoid = []netip.Addr{netip.MustParseAddr(c.avoid)}
			}
			got, err := Decide(w)
			if err != nil {
				t.Fatal(err)
			}
			in := netip.MustParsePrefix(c.in)
			largest := slices.MinFunc(got.Pairs, func(a, b remap.Pair) int { return a.Virtual.Bits() - b.Virtual.Bits() }).Virtual
			if !contains(in, largest) {
				t.Errorf("%s, want it in %s", text(got.Pairs), in)
			}
			if again, err := Decide(w); err != nil || !again.Equal(got) {
				t.Errorf("the same wish again: %s, %v, want %s", text(again.Pairs), err, text(got.Pairs))
			}
		})
	}
}

func TestNoRoom(t *testing.T) {
	full := has("a 10.0.0.0/8, b 172.16.0.0/12, c 100.64.0.0/10, d 192.168.0.0/16")
	_, err := Decide(Wish{Mode: Auto, Cluster: "x", Prefixes: prefixes(kubeadm), Taken: full})
	var full4 *NoRoomError
	if !errors.As(err, &full4) || full4.Code() != "conflict" || full4.Hint() == "" {
		t.Errorf("got %v", err)
	}
	if c, err := Decide(Wish{Mode: Auto, Cluster: "x", Prefixes: prefixes(kubeadm), Taken: full, Reserved: true}); err != nil || !netip.MustParsePrefix("240.0.0.0/4").Contains(c.Pairs[0].Virtual.Addr()) {
		t.Errorf("with the reserved range: %s, %v", text(c.Pairs), err)
	}
}

// TestManyNetworks: there is room for 16 pairs in a Peer.
func TestManyNetworks(t *testing.T) {
	var many []netip.Prefix
	for i := range 40 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 1, 0}), 24))
	}
	many = append(many, prefixes("fd00:1::/112 fd00:1:0:8000::/112")...)
	c, err := Decide(Wish{Mode: Virtual, Cluster: "x", Prefixes: many})
	if err != nil || len(c.Pairs) > maxPairs {
		t.Fatalf("%d pairs, %v", len(c.Pairs), err)
	}
	m, err := remap.Parse(c.Pairs)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range many {
		if _, ok := m.VirtualPrefix(p); !ok {
			t.Errorf("%s is not mapped by %s", p, text(c.Pairs))
		}
	}
}

// TestChoiceStays: a session keeps its addresses as long as it can.
func TestChoiceStays(t *testing.T) {
	w := Wish{Mode: Auto, Cluster: "https://api", Prefixes: prefixes("10.244.0.0/24 10.96.0.0/16"), Taken: has("eth0 10.244.0.0/24")}
	first, err := Decide(w)
	if err != nil {
		t.Fatal(err)
	}
	w.Before = first
	for name, c := range map[string]struct {
		cluster, taken string
		same           bool
	}{
		"the laptop goes elsewhere":             {"10.244.0.0/24 10.96.0.0/16", "eth0 192.168.1.0/24", true},
		"a node joins":                          {"10.244.0.0/23 10.244.7.0/24 10.96.0.0/16", "eth0 192.168.1.0/24", true},
		"a VPN comes that may be anywhere near": {"10.244.0.0/24 10.96.0.0/16", "tailscale0 100.127.255.254/32", true},
		"a VPN comes that has it":               {"10.244.0.0/24 10.96.0.0/16", "vpn0 100.64.0.0/10", false},
		"the pods get a wider network":          {"10.244.0.0/14 10.96.0.0/16", "eth0 192.168.1.0/24", false},
	} {
		w.Prefixes, w.Taken = prefixes(c.cluster), has(c.taken)
		got, err := Decide(w)
		if err != nil {
			t.Fatal(err)
		}
		if got.Equal(first) != c.same {
			t.Errorf("%s: %s, before %s", name, text(got.Pairs), text(first.Pairs))
		}
		if got.Why == "" {
			t.Errorf("%s: no reason", name)
		}
	}
	// What can stay does, beside what cannot.
	w.Prefixes, w.Taken = prefixes("10.244.0.0/14 10.96.0.0/16"), has("eth0 192.168.1.0/24")
	got, _ := Decide(w)
	if !slices.Contains(got.Pairs, first.Pairs[0]) || first.Pairs[0].Real != netip.MustParsePrefix("10.96.0.0/16") {
		t.Errorf("%s, before %s: the Services have moved", text(got.Pairs), text(first.Pairs))
	}
	w.Mode = Direct
	if got, err := Decide(w); err != nil || len(got.Pairs) > 0 {
		t.Errorf("direct: %s, %v", text(got.Pairs), err)
	}
}

// TestClustersApart: the same networks at two API servers are virtual at different
// places, so that two sessions that begin at once do not both have to move.
func TestClustersApart(t *testing.T) {
	a, _ := Decide(Wish{Mode: Virtual, Cluster: "https://one", Prefixes: prefixes(dual)})
	b, _ := Decide(Wish{Mode: Virtual, Cluster: "https://two", Prefixes: prefixes(dual)})
	for _, p := range a.Pairs {
		for _, q := range b.Pairs {
			if p.Virtual.Overlaps(q.Virtual) {
				t.Errorf("%s and %s", p, q)
			}
		}
	}
}

// FuzzDecide: whatever there is, a choice is one that remap takes, has all of the
// cluster's prefixes, and nothing that the laptop has.
func FuzzDecide(f *testing.F) {
	f.Add("x", uint32(0x0af40000), uint8(16), uint32(0x0a600000), uint8(12), uint32(0x0af40180), uint8(25), false)
	f.Add("y", uint32(0x64400000), uint8(10), uint32(0x0a000000), uint8(9), uint32(0xac100000), uint8(12), true)
	f.Fuzz(func(t *testing.T, cluster string, a uint32, abits uint8, b uint32, bbits uint8, n uint32, nbits uint8, reserved bool) {
		prefix := func(v uint32, bits uint8) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), int(8+bits%25)).Masked()
		}
		pods, services, taken := prefix(a, abits), prefix(b, bbits), prefix(n, nbits)
		if pods.Overlaps(services) || pods.Addr().As4()[0]%127 == 0 || services.Addr().As4()[0]%127 == 0 {
			return
		}
		w := Wish{Mode: Virtual, Cluster: cluster, Prefixes: []netip.Prefix{pods, services}, Taken: []Network{{Prefix: taken, Interface: "eth0"}}, Reserved: reserved}
		c, err := Decide(w)
		var full *NoRoomError
		if errors.As(err, &full) {
			return
		}
		m, perr := remap.Parse(c.Pairs)
		if err != nil || perr != nil {
			t.Fatalf("%s: %v, %v", text(c.Pairs), err, perr)
		}
		for _, p := range w.Prefixes {
			if v, ok := m.VirtualPrefix(p); !ok || v.Overlaps(taken) || v.Overlaps(pods) || v.Overlaps(services) {
				t.Errorf("%s at %s, %v, with %s taken", p, v, ok, taken)
			}
		}
		w.Before = c
		if again, err := Decide(w); err != nil || !again.Equal(c) {
			t.Errorf("it moves without need: %s to %s, %v", text(c.Pairs), text(again.Pairs), err)
		}
	})
}
