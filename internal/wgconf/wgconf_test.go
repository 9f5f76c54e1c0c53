package wgconf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/key"
)

// Keys of RFC 7748 section 6.1.
const (
	aliceKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	alicePub = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	bobPub   = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
)

const full = `# a gateway as wg-quick would have it
[Interface]
PrivateKey = ` + aliceKey + `  # do not share
Address = 10.9.0.1/24, fd00::1/64
Address = 10.10.0.1
listenport=51820
MTU = 1380
DNS = 9.9.9.9, example.org
PostUp = iptables -A FORWARD -i %i -j ACCEPT
FwMark = 0x1

[peer]
PublicKey = ` + bobPub + `
PresharedKey = ` + alicePub + `
AllowedIPs = 10.9.0.2/32, fd00::2
AllowedIPs = 192.168.7.9/24
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey=` + alicePub + `
Endpoint = vpn.example.org:1
PersistentKeepalive = off
AllowedIPs =
`

func mustPublic(t *testing.T, s string) key.Public {
	t.Helper()
	p, err := key.ParsePublic(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, s := range s {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestParse(t *testing.T) {
	got, err := Parse(strings.NewReader(full))
	if err != nil {
		t.Fatal(err)
	}
	if got.PrivateKey.Public() != mustPublic(t, alicePub) {
		t.Error("the private key is not the one in the file")
	}
	got.PrivateKey = key.Private{}
	psk := [key.Size]byte(mustPublic(t, alicePub))
	want := Config{
		ListenPort: 51820,
		MTU:        1380,
		DNS:        []string{"9.9.9.9", "example.org"},
		Addresses:  prefixes("10.9.0.1/24", "fd00::1/64", "10.10.0.1/32"),
		Peers: []Peer{{
			PublicKey:    mustPublic(t, bobPub),
			PresharedKey: &psk,
			Endpoint:     "[2001:db8::1]:51820",
			AllowedIPs:   prefixes("10.9.0.2/32", "fd00::2/128", "192.168.7.0/24"),
			Keepalive:    25 * time.Second,
		}, {
			PublicKey: mustPublic(t, alicePub),
			Endpoint:  "vpn.example.org:1",
		}},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b key.Private) bool { return a == b })); d != "" {
		t.Errorf("config differs (-want +got):\n%s", d)
	}
}

// TestTextIsRead writes what was read, and reads it again.
func TestTextIsRead(t *testing.T) {
	first, err := Parse(strings.NewReader(full))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(strings.NewReader(first.Text()))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, first.Text())
	}
	if d := cmp.Diff(first, again, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b key.Private) bool { return a == b })); d != "" {
		t.Errorf("config differs (-written +read):\n%s", d)
	}
}

func TestParseNamesTheLine(t *testing.T) {
	iface := "[Interface]\nPrivateKey = " + aliceKey + "\n"
	peer := iface + "[Peer]\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "no PrivateKey"},
		{"no private key", "[Interface]\nListenPort = 1\n", "no PrivateKey"},
		{"short key", "[Interface]\nPrivateKey = AAAA\n", "line 2: PrivateKey"},
		{"name outside", "ListenPort = 1\n", "line 1: ListenPort: before any section"},
		{"two interfaces", iface + "[Interface]\n", "line 3: a second"},
		{"unknown section", "[Wireguard]\n", "line 1: unknown section"},
		{"unknown name", iface + "Colour = red\n", "line 3: Colour: unknown name"},
		{"peer's name in interface", iface + "Endpoint = a:1\n", "line 3: Endpoint: unknown name"},
		{"big port", iface + "ListenPort = 65536\n", "line 3: ListenPort"},
		{"silly MTU", iface + "MTU = 10\n", "line 3: MTU"},
		{"no public key", peer + "AllowedIPs = ::/0\n", "[Peer] of line 3 has no PublicKey"},
		{"no public key, then another", peer + "\n" + "[Peer]\n", "line 5: the [Peer] of line 3"},
		{"twice", peer + "PublicKey = " + bobPub + "\n[Peer]\nPublicKey = " + bobPub + "\n", "line 5 has the PublicKey of the one of line 3"},
		{"bad prefix", peer + "AllowedIPs = 10.0.0.0/33\n", "line 4: AllowedIPs"},
		{"hole in list", peer + "AllowedIPs = 10.0.0.0/8,,::/0\n", "line 4: AllowedIPs: an empty"},
		{"bad endpoint", peer + "Endpoint = example.org\n", "line 4: Endpoint"},
		{"port zero", peer + "Endpoint = 1.2.3.4:0\n", "line 4: Endpoint"},
		{"bad keepalive", peer + "PersistentKeepalive = 70000\n", "line 4: PersistentKeepalive"},
		{"endless line", iface + strings.Repeat("x", maxLine+1), "line 3: longer"},
	} {
		_, err := Parse(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %q, want %q in it", c.name, err, c.want)
		}
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	for _, text := range []string{
		aliceKey,
		"[Interface]\n" + aliceKey + "\n",
		"[Interface]\nPrivateKey " + aliceKey + "\n",
		"[Interface]\nPrivateKey = " + aliceKey + "x\n",
		"[Interface]\nMTU = " + aliceKey + "\n",
		"[Interface]\nListenPort = " + aliceKey + "\n",
		"[Interface]\nPrivateKey = " + aliceKey + "\n[Peer]\nPresharedKey = x" + aliceKey + "\n",
	} {
		_, err := Parse(strings.NewReader(text))
		if err == nil || strings.Contains(err.Error(), aliceKey[:12]) {
			t.Errorf("error %q: want one, and without the key", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Add("[Interface]\nPrivateKey=" + aliceKey)
	f.Add("[Interface]\nPrivateKey=" + aliceKey + "\n[Peer]\nPublicKey=" + bobPub + "\nEndpoint=[::1%eth0]:5\nAllowedIPs=::ffff:1.2.3.4")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		seen := map[key.Public]bool{}
		for _, p := range c.Peers {
			if p.PublicKey.IsZero() || seen[p.PublicKey] {
				t.Errorf("accepted a peer without its own public key")
			}
			seen[p.PublicKey] = true
			for _, a := range p.AllowedIPs {
				if !a.IsValid() || a != a.Masked() {
					t.Errorf("accepted allowed IPs %v", a)
				}
			}
		}
	})
}
