package router

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func prefixes(s string) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// home is a laptop in a home network, with a bridge of containers and a VPN
// that has taken the default route by halves.
func home() Host {
	return Host{
		Links: []Link{
			{Name: "lo", Loopback: true, Up: true, Addresses: prefixes("127.0.0.1/8 ::1/128 10.244.9.9/32")},
			{Name: "wlan0", Up: true, Addresses: prefixes("192.168.1.20/24 fe80::1/64 2001:db8:1::20/64")},
			{Name: "docker0", Up: true, Addresses: prefixes("172.17.0.1/16")},
			{Name: "podnet0", MTU: 1420},
		},
		Routes: []Route{
			{netip.MustParsePrefix("0.0.0.0/0"), "wlan0"},
			{netip.MustParsePrefix("0.0.0.0/1"), "vpn0"},
			{netip.MustParsePrefix("128.0.0.0/1"), "vpn0"},
			{netip.MustParsePrefix("10.200.0.0/16"), "vpn0"},
			{netip.MustParsePrefix("192.168.1.0/24"), "wlan0"},
			{netip.MustParsePrefix("fe80::/64"), "wlan0"},
		},
	}
}

func text(ops []Op) string {
	var out []string
	for _, o := range ops {
		out = append(out, o.String())
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	want := Config{Interface: "podnet0", Addresses: prefixes("198.18.0.5/32 fd70:6f64:6e65:7400::5/128"), Routes: prefixes("10.96.0.0/16 10.244.0.0/16 fd00:10:244::/48")}
	for name, c := range map[string]struct {
		have func() Host
		want func(Config) Config
		ops  string
	}{
		"a fresh interface": {home, func(c Config) Config { return c },
			"up; addr add 198.18.0.5/32; addr add fd70:6f64:6e65:7400::5/128; route add 10.96.0.0/16; route add 10.244.0.0/16; route add fd00:10:244::/48"},
		"the MTU of a stream": {home, func(Config) Config { return Config{Interface: "podnet0", MTU: 16384} }, "mtu 16384; up"},
		"IPv6 is off": {func() Host { h := home(); h.No6 = true; return h }, func(c Config) Config { return c },
			"up; addr add 198.18.0.5/32; route add 10.96.0.0/16; route add 10.244.0.0/16"},
		"the API server is inside": {home, func(c Config) Config {
			c.Addresses, c.Routes, c.Avoid = nil, prefixes("10.96.0.0/30"), addrs("10.96.0.1 203.0.113.1")
			return c
		}, "up; route add 10.96.0.0/32; route add 10.96.0.2/31"},
		"nothing to do": {func() Host {
			h := home()
			h.Links[3] = Link{Name: "podnet0", Up: true, MTU: 1420, Addresses: slices.Concat(want.Addresses, prefixes("fe80::9/64"))}
			for _, p := range slices.Concat(want.Routes, prefixes("fe80::/64 fd70:6f64:6e65:7400::5/128")) {
				h.Routes = append(h.Routes, Route{p, "podnet0"})
			}
			return h
		}, func(c Config) Config { return c }, ""},
		"another wish": {func() Host {
			h := home()
			h.Links[3] = Link{Name: "podnet0", Up: true, MTU: 1420, Addresses: prefixes("198.18.0.4/32")}
			h.Routes = append(h.Routes, Route{netip.MustParsePrefix("10.95.0.0/16"), "podnet0"}, Route{netip.MustParsePrefix("10.96.0.0/16"), "podnet0"})
			return h
		}, func(c Config) Config { c.Routes = prefixes("10.96.0.0/16"); c.Addresses = c.Addresses[:1]; return c },
			"addr add 198.18.0.5/32; route del 10.95.0.0/16; addr del 198.18.0.4/32"},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := Plan(c.have(), c.want(want))
			if err != nil {
				t.Fatal(err)
			}
			if got := text(ops); got != c.ops {
				t.Errorf("got  %s\nwant %s", got, c.ops)
			}
		})
	}
}

func TestCollision(t *testing.T) {
	for _, c := range []struct{ route, iface, network string }{
		{"192.168.1.0/24", "wlan0", "192.168.1.0/24"}, // the same
		{"192.168.0.0/16", "wlan0", "192.168.1.0/24"}, // around it
		{"172.17.3.0/24", "docker0", "172.17.0.0/16"}, // inside it
		{"10.200.7.0/24", "vpn0", "10.200.0.0/16"},    // a VPN's network
		{"2001:db8:1::/64", "wlan0", "2001:db8:1::/64"},
	} {
		ops, err := Plan(home(), Config{Interface: "podnet0", Addresses: prefixes("198.18.0.5/32"), Routes: append(prefixes("10.96.0.0/16"), netip.MustParsePrefix(c.route))})
		var conflict *ConflictError
		if !errors.As(err, &conflict) || ops != nil {
			t.Errorf("%s: got %v, %v, want a conflict and nothing to do", c.route, ops, err)
			continue
		}
		if conflict.Prefix.String() != c.route || conflict.Interface != c.iface || conflict.Network.String() != c.network {
			t.Errorf("%s: %v", c.route, conflict)
		}
	}
	// The default route, its halves, and addresses on loopback are nobody's network.
	if _, err := Plan(home(), Config{Interface: "podnet0", Routes: prefixes("10.244.0.0/16 11.0.0.0/8 240.0.0.0/8")}); err != nil {
		t.Error(err)
	}
}

func TestUnreasonableRoutes(t *testing.T) {
	for _, p := range []string{"0.0.0.0/0", "0.0.0.0/1", "8.0.0.0/7", "::/0", "2000::/3", "127.0.0.0/8", "127.1.0.0/16", "169.254.0.0/16", "169.0.0.0/8", "169.252.0.0/14", "224.0.0.0/8", "255.0.0.0/8", "0.1.0.0/16", "fe80::/64", "ff00::/32", "::1/128", "::ffff:10.0.0.0/112"} {
		var invalid *InvalidError
		if ops, err := Plan(home(), Config{Interface: "podnet0", Routes: prefixes(p)}); !errors.As(err, &invalid) || ops != nil {
			t.Errorf("%s: got %v, %v", p, ops, err)
		}
	}
	many := make([]netip.Prefix, MaxRoutes+1)
	for i := range many {
		many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
	}
	if _, err := Plan(home(), Config{Interface: "podnet0", Routes: many}); err == nil {
		t.Error("too many routes were accepted")
	}
	if _, err := Plan(home(), Config{Interface: "podnet7"}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("no interface: %v", err)
	}
}

// TestManyHoles: what a short wish can make many routes of is not all carried out.
func TestManyHoles(t *testing.T) {
	want := Config{Interface: "podnet0"}
	for i := range 256 {
		want.Avoid = append(want.Avoid, netip.AddrFrom16([16]byte{0xfd, 4: byte(i), 15: 1}))
	}
	for range MaxRoutes {
		want.Routes = append(want.Routes, netip.MustParsePrefix("fd00::/32"))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ops, err := Plan(home(), want)
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) >> 20; err == nil || n > 64 {
		t.Errorf("%d changes, %v, for which it took %d MiB", len(ops), err, n)
	}
	want.Routes, want.Avoid = want.Routes[:1], slices.Concat(want.Avoid, want.Avoid)
	if _, err := Plan(home(), want); err == nil {
		t.Error("any number of holes is taken")
	}
}

// FuzzCarve: what is carved covers all but the avoided addresses, once.
func FuzzCarve(f *testing.F) {
	f.Add(uint32(0x0a600000), uint8(24), uint32(0x0a600001), uint32(0x0a6000ff))
	f.Add(uint32(0x0a600000), uint8(32), uint32(0x0a600000), uint32(0))
	f.Fuzz(func(t *testing.T, base uint32, bits uint8, a, b uint32) {
		v4 := func(n uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		p := netip.PrefixFrom(v4(base), int(16+bits%17)).Masked()
		avoid := []netip.Addr{v4(a), v4(b)}
		got := carve(p, avoid)
		size := uint64(0)
		for i, g := range got {
			size += 1 << (32 - g.Bits())
			if !p.Overlaps(g) || g.Bits() < p.Bits() {
				t.Errorf("%s is not in %s", g, p)
			}
			for _, x := range avoid {
				if g.Contains(x) {
					t.Errorf("%s has %s", g, x)
				}
			}
			for _, o := range got[:i] {
				if o.Overlaps(g) {
					t.Errorf("%s and %s overlap", o, g)
				}
			}
		}
		lost := map[netip.Addr]bool{}
		for _, x := range avoid {
			if p.Contains(x) {
				lost[x] = true
			}
		}
		if want := uint64(1)<<(32-p.Bits()) - uint64(len(lost)); size != want {
			t.Errorf("%s without %v has %d addresses, want %d", p, avoid, size, want)
		}
	})
}

// TestApplyTakesBack: whatever step fails, the steps before it are undone.
func TestApplyTakesBack(t *testing.T) {
	ops, err := Plan(home(), Config{Interface: "podnet0", MTU: 9000, Addresses: prefixes("198.18.0.5/32"), Routes: prefixes("10.96.0.0/16 10.244.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no memory")
	for at := range ops {
		state := map[string]bool{}
		mtu, n := 1420, 0
		err := apply(ops, 1420, func(o Op) error {
			if n++; n == at+1 {
				return broken
			}
			switch o.Kind {
			case OpMTU:
				mtu = o.MTU
			case OpAddAddr, OpAddRoute:
				state[fmt.Sprint(strings.Fields(string(o.Kind))[0], o.Prefix)] = true
			case OpDelAddr, OpDelRoute:
				delete(state, fmt.Sprint(strings.Fields(string(o.Kind))[0], o.Prefix))
			}
			return nil
		})
		if !errors.Is(err, broken) || len(state) != 0 || mtu != 1420 {
			t.Errorf("failing at %s: %v left %v, MTU %d", ops[at], err, state, mtu)
		}
	}
}

// TestSharedPrefixes: what every tunnel of ours has collides with strangers only.
func TestSharedPrefixes(t *testing.T) {
	have := home()
	have.Links = append(have.Links, Link{Name: "podnet1", Up: true, Addresses: prefixes("198.18.0.9/32 fd70:6f64:6e65:7400::9/128")})
	for _, p := range prefixes("198.18.0.1/32 fd70:6f64:6e65:7400::/64 fd70:6f64:6e65:7400::9/128 10.96.0.0/16") {
		have.Routes = append(have.Routes, Route{p, "podnet1"})
	}
	want := Config{Interface: "podnet0", Routes: prefixes("10.97.0.0/16"), Shared: prefixes("198.18.0.1/32 fd70:6f64:6e65:7400::/64")}
	ops, err := Plan(have, want)
	if got := text(ops); err != nil || got != "up; route add 10.97.0.0/16; route add 198.18.0.1/32; route add fd70:6f64:6e65:7400::/64" || !ops[2].Shared || ops[1].Shared {
		t.Errorf("%s, %v", got, err)
	}
	for _, op := range ops[1:] {
		if back, ok := op.undo(0); !ok || back.Shared != op.Shared {
			t.Errorf("%v is undone by %+v", op, back)
		}
	}
	var conflict *ConflictError
	want.Routes = prefixes("10.96.0.0/12")
	if _, err := Plan(have, want); !errors.As(err, &conflict) || conflict.Interface != "podnet1" {
		t.Errorf("got %v, want a conflict with the other session's cluster", err)
	}
	want.Routes = nil
	have.Routes = append(have.Routes, Route{netip.MustParsePrefix("198.18.0.0/15"), "lab0"})
	if _, err := Plan(have, want); !errors.As(err, &conflict) || conflict.Interface != "lab0" {
		t.Errorf("got %v, want a conflict with lab0", err)
	}
}

func TestOurs(t *testing.T) {
	for name, want := range map[string]bool{"podnet0": true, "podnet31": true, "podnet": false, "podnet0a": false, "eth0": false, "podnet-x": false} {
		if got := Ours(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
