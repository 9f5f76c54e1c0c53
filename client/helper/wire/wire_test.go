package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"podnet.dev/internal/key"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// someKey is a private key of nobody's.
var someKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{8}, key.Size))

// usual are wishes that sessions have.
var usual = []Request{
	{Verb: Hello, Version: Version},
	{Verb: Status},
	{Verb: Open},
	{Verb: TUN, MTU: 1420},
	{Verb: SetNetwork, Network: &Network{Addresses: prefixes("198.18.0.5/32", "fd70:6f64:6e65:7400::5/128"), Routes: prefixes("10.96.0.0/12"), Shared: prefixes("198.18.0.1/32"), Avoid: addrs("192.0.2.1"), MTU: 1280}},
	{Verb: SetDNS, DNS: &DNS{Servers: addrs("198.18.0.5"), MatchDomains: []string{"cluster.local", "svc", "shop", "96.10.in-addr.arpa", "lab.podnet.internal"}, SearchDomains: []string{"shop.svc.cluster.local"}, Primary: true}},
	{Verb: SetDNS},
	{Verb: ListenDNS, Addresses: addrs("198.18.0.5")},
	{Verb: Resolvers},
	{Verb: ResetFlows, Addresses: addrs("198.18.0.5", "fd70::5")},
	{Verb: WireGuard, MTU: 1420},
	{Verb: SetWireGuard, Device: &Device{PrivateKey: someKey}},
	{Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, Peer: key.Public{7}, AllowedIPs: prefixes("10.96.0.0/12", "198.18.0.1/32", "fd70:6f64:6e65:7400::/64"), Keepalive: 25, Speak: true}},
	{Verb: WireGuardState},
	{Verb: Close},
}

func TestUsualWishesPass(t *testing.T) {
	for _, r := range usual {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRequest(b)
		if err == nil {
			err = got.Check()
		}
		if err != nil {
			t.Errorf("%s: %v", b, err)
		}
	}
}

func TestBadWishesAreRefused(t *testing.T) {
	nine := make([]netip.Addr, 9)
	for i := range nine {
		nine[i] = netip.AddrFrom4([4]byte{198, 18, 0, byte(i)})
	}
	own := prefixes("198.18.0.5/32")
	dns := func(domains ...string) Request {
		return Request{Verb: SetDNS, DNS: &DNS{Servers: addrs("198.18.0.5"), MatchDomains: domains}}
	}
	for name, r := range map[string]Request{
		"a verb that is none":      {Verb: "exec"},
		"no MTU":                   {Verb: TUN},
		"a huge MTU":               {Verb: TUN, MTU: 1 << 20},
		"no network":               {Verb: SetNetwork},
		"no address":               {Verb: SetNetwork, Network: &Network{}},
		"an address with a net":    {Verb: SetNetwork, Network: &Network{Addresses: prefixes("198.18.0.5/16")}},
		"loopback":                 {Verb: SetNetwork, Network: &Network{Addresses: prefixes("127.0.0.2/32")}},
		"loopback, IPv6":           {Verb: SetNetwork, Network: &Network{Addresses: prefixes("::1/128")}},
		"link-local":               {Verb: SetNetwork, Network: &Network{Addresses: prefixes("169.254.169.254/32")}},
		"link-local, IPv6":         {Verb: SetNetwork, Network: &Network{Addresses: prefixes("fe80::1/128")}},
		"multicast":                {Verb: SetNetwork, Network: &Network{Addresses: prefixes("224.0.0.251/32")}},
		"everybody":                {Verb: SetNetwork, Network: &Network{Addresses: prefixes("255.255.255.255/32")}},
		"nobody":                   {Verb: SetNetwork, Network: &Network{Addresses: prefixes("0.0.0.0/32")}},
		"IPv4 in IPv6":             {Verb: SetNetwork, Network: &Network{Addresses: prefixes("::ffff:198.18.0.5/128")}},
		"no prefix":                {Verb: SetNetwork, Network: &Network{Addresses: []netip.Prefix{{}}}},
		"an MTU of 1":              {Verb: SetNetwork, Network: &Network{Addresses: own, MTU: 1}},
		"too much to avoid":        {Verb: SetNetwork, Network: &Network{Addresses: own, Avoid: make([]netip.Addr, 257)}},
		"nothing to avoid":         {Verb: SetNetwork, Network: &Network{Addresses: own, Avoid: make([]netip.Addr, 1)}},
		"many sockets":             {Verb: ListenDNS, Addresses: nine},
		"a socket on loopback":     {Verb: ListenDNS, Addresses: addrs("127.0.0.53")},
		"names without a server":   {Verb: SetDNS, DNS: &DNS{MatchDomains: []string{"svc"}}},
		"com":                      dns("com"),
		"a country":                dns("de"),
		"local":                    dns("local"),
		"wpad":                     dns("wpad"),
		"all reverse names":        dns("in-addr.arpa"),
		"the root":                 dns("."),
		"nothing":                  dns(""),
		"an empty label":           dns("a..b"),
		"another line":             dns("shop\nnameserver 203.0.113.1"),
		"capitals":                 dns("COM"),
		"a long label":             dns(strings.Repeat("a", 64)),
		"a long name":              dns(strings.Repeat("a.", 130) + "a"),
		"a device of MTU 0":        {Verb: WireGuard},
		"no device":                {Verb: SetWireGuard},
		"a device without a key":   {Verb: SetWireGuard, Device: &Device{}},
		"a key that is too short":  {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey[:8]}},
		"the whole internet":       {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, AllowedIPs: prefixes("0.0.0.0/0")}},
		"allowed IPs of a host":    {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, AllowedIPs: prefixes("10.96.0.1/12")}},
		"no allowed IP":            {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, AllowedIPs: make([]netip.Prefix, 1)}},
		"many allowed IPs":         {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, AllowedIPs: make([]netip.Prefix, MaxAllowedIPs+1)}},
		"a keepalive of a day":     {Verb: SetWireGuard, Device: &Device{PrivateKey: someKey, Keepalive: 86400}},
		"too many domains":         dns(slices.Repeat([]string{"shop"}, MaxDomains+1)...),
		"a search domain with tab": {Verb: SetDNS, DNS: &DNS{Servers: addrs("198.18.0.5"), SearchDomains: []string{"a\tb"}}},
	} {
		var refused *RefusedError
		if err := r.Check(); !errors.As(err, &refused) || refused.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "{}{}", `{"verb":"status","path":"/etc/shadow"}`, `{"verb":"tun","mtu":"1420"}`, `{"verb":"set-network","network":{"addresses":["10.0.0.0/8/8"]}}`} {
		if _, err := ParseRequest([]byte(text)); err == nil {
			t.Errorf("%s is a request", text)
		}
	}
}

// FuzzRequest: whatever is sent, what passes is bounded, and is the same once more.
func FuzzRequest(f *testing.F) {
	for _, r := range usual {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil || r.Check() != nil {
			return
		}
		if n := r.Network; r.Verb == SetNetwork {
			for _, p := range n.Addresses {
				if !p.IsSingleIP() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() || p.Addr().IsUnspecified() {
					t.Errorf("the address %s passes", p)
				}
			}
		}
		if d := r.DNS; r.Verb == SetDNS && d != nil {
			for _, name := range slices.Concat(d.MatchDomains, d.SearchDomains) {
				if strings.ContainsAny(name, " \t\r\n#;/\x00") || strings.Trim(name, ".") != name || slices.Contains(kept, name) {
					t.Errorf("the domain %q passes", name)
				}
			}
		}
		if d := r.Device; r.Verb == SetWireGuard {
			if len(d.AllowedIPs) > MaxAllowedIPs || slices.ContainsFunc(d.AllowedIPs, func(p netip.Prefix) bool { return p.Bits() < 1 }) || len(d.PrivateKey) != len(someKey) {
				t.Errorf("the device %+v passes", d)
			}
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRequest(text)
		if err != nil || again.Check() != nil {
			t.Errorf("%s passes, and %s does not: %v", b, text, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"interface":"podnet0","files":1}`))
	f.Add([]byte(`{"packets":1,"streams":1,"files":2}`))
	f.Add([]byte(`{"error":{"code":"conflict","message":"no","conflict":{"prefix":"10.0.0.0/8","interface":"eth0","network":"10.1.0.0/16"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err == nil && (a.Files < 0 || a.Files > MaxFiles || a.Packets+a.Streams > a.Files) {
			t.Errorf("%+v passes", a)
		}
	})
}
