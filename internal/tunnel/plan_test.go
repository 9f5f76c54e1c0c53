package tunnel

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/key"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func pub(b byte) key.Public {
	var k key.Public
	for i := range k {
		k[i] = b
	}
	return k
}

func psk(b byte) *[key.Size]byte { k := [key.Size]byte(pub(b)); return &k }

func ips(s ...string) (ps []netip.Prefix) {
	for _, s := range s {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestPlan(t *testing.T) {
	ada := Peer{PublicKey: pub(0xaa), AllowedIPs: ips("198.18.0.2/32", "fd70::a/128")}
	bob := Peer{PublicKey: pub(0xbb), AllowedIPs: ips("198.18.0.3/32"), Endpoint: "192.0.2.1:51820", Keepalive: 25 * time.Second, PresharedKey: psk(1)}
	with := func(p Peer, f func(*Peer)) Peer { f(&p); return p }
	for _, c := range []struct {
		name       string
		have, want []Peer
	}{
		{"nothing", nil, nil},
		{"add", nil, []Peer{bob, ada}},
		{"same", []Peer{ada, bob}, []Peer{bob, ada}},
		{"same-in-other-words", []Peer{ada}, []Peer{with(ada, func(p *Peer) { p.AllowedIPs = ips("fd70::a/128", "198.18.0.2/32", "198.18.0.2/32") })}},
		{"remove", []Peer{ada, bob}, []Peer{ada}},
		{"endpoint", []Peer{ada, bob}, []Peer{ada, with(bob, func(p *Peer) { p.Endpoint = "192.0.2.2:1" })}},
		{"no-endpoint-keeps-what-roaming-found", []Peer{bob}, []Peer{with(bob, func(p *Peer) { p.Endpoint = "" })}},
		{"keepalive-off", []Peer{bob}, []Peer{with(bob, func(p *Peer) { p.Keepalive = 0 })}},
		{"preshared-key-off", []Peer{bob}, []Peer{with(bob, func(p *Peer) { p.PresharedKey = nil })}},
		{"preshared-key-new", []Peer{bob}, []Peer{with(bob, func(p *Peer) { p.PresharedKey = psk(2) })}},
		{"allowed-ips", []Peer{ada}, []Peer{with(ada, func(p *Peer) { p.AllowedIPs = ips("198.18.0.9/32", "fd70::a/128") })}},
		{"address-moves", []Peer{ada, bob}, []Peer{
			with(ada, func(p *Peer) { p.AllowedIPs = ips("198.18.0.3/32") }),
			with(bob, func(p *Peer) { p.AllowedIPs = ips("198.18.0.2/32") }),
		}},
		{"address-of-one-who-leaves", []Peer{bob}, []Peer{with(ada, func(p *Peer) { p.AllowedIPs = bob.AllowedIPs })}},
	} {
		t.Run(c.name, func(t *testing.T) {
			have, err := newPeerSet(pub(1), c.have)
			if err != nil {
				t.Fatal(err)
			}
			want, err := newPeerSet(pub(1), c.want)
			if err != nil {
				t.Fatal(err)
			}
			got := plan(have, want)
			golden := filepath.Join("testdata", c.name+".uapi")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(b), got); d != "" {
				t.Errorf("plan differs (-want +got):\n%s", d)
			}
		})
	}
}

func TestPeerSetRefuses(t *testing.T) {
	ok := Peer{PublicKey: pub(2), AllowedIPs: ips("10.0.0.0/8")}
	for _, c := range []struct {
		name string
		want []Peer
		err  string
	}{
		{"no key", []Peer{{}}, "without a public key"},
		{"itself", []Peer{{PublicKey: pub(1)}}, "this tunnel itself"},
		{"twice", []Peer{ok, ok}, "appears twice"},
		{"same address", []Peer{ok, {PublicKey: pub(3), AllowedIPs: ips("10.1.2.3/8")}}, "10.0.0.0/8 is allowed to both"},
		{"no prefix", []Peer{{PublicKey: pub(2), AllowedIPs: []netip.Prefix{{}}}}, "is no prefix"},
		{"long keepalive", []Peer{{PublicKey: pub(2), Keepalive: 65536 * time.Second}}, "keepalive"},
		{"line break", []Peer{{PublicKey: pub(2), Endpoint: "1.2.3.4:5\nremove=true"}}, "line break"},
	} {
		if _, err := newPeerSet(pub(1), c.want); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.err)
		}
	}
}

func TestParseStats(t *testing.T) {
	text := fmt.Sprintf("private_key=%s\nlisten_port=51820\nfwmark=1\npublic_key=%s\npreshared_key=%s\nprotocol_version=1\n"+
		"endpoint=[fd00::1]:5\nlast_handshake_time_sec=100\nlast_handshake_time_nsec=7\ntx_bytes=12\nrx_bytes=34\n"+
		"persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\npublic_key=%s\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n",
		pub(9).Hex(), pub(2).Hex(), pub(8).Hex(), pub(3).Hex())
	port, got, err := parseStats(strings.NewReader(text))
	if err != nil || port != 51820 {
		t.Fatalf("port %d, error %v", port, err)
	}
	want := []PeerStats{
		{PublicKey: pub(2), Endpoint: "[fd00::1]:5", LastHandshake: time.Unix(100, 7), TxBytes: 12, RxBytes: 34},
		{PublicKey: pub(3)},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stats differ (-want +got):\n%s", d)
	}
	for _, bad := range []string{"public_key=zz\n", "public_key=aa\n", "listen_port=70000\n", "public_key=" + pub(2).Hex() + "\nrx_bytes=-1\n"} {
		if _, _, err := parseStats(strings.NewReader(bad)); err == nil {
			t.Errorf("parseStats(%q) accepted it", bad)
		}
	}
}

func TestLimiterCountsWhatItSwallows(t *testing.T) {
	now := time.Unix(1000, 0)
	l := limiter{now: func() time.Time { return now }}
	for range deviceLogsPerSecond {
		if _, ok := l.allow(); !ok {
			t.Fatal("a line below the limit was swallowed")
		}
	}
	for range 7 {
		if _, ok := l.allow(); ok {
			t.Fatal("a line above the limit was written")
		}
	}
	now = now.Add(time.Second)
	if missed, ok := l.allow(); !ok || missed != 7 {
		t.Errorf("allow() = %d, %v, want 7 missed and true", missed, ok)
	}
}

func TestSlowPeersAreAloneBesidePromptOnes(t *testing.T) {
	for want, peers := range map[bool][][]Peer{
		true:  {nil, {{}}, {{}, {Prompt: true}, {Prompt: true}}, {{Prompt: true}, {Prompt: true}}},
		false: {{{}, {}}, {{}, {Prompt: true}, {}}},
	} {
		for _, list := range peers {
			set := peerSet{}
			for i, p := range list {
				set[key.Public{byte(i + 1)}] = p
			}
			if set.alone() != want {
				t.Errorf("%+v: alone is %v", list, !want)
			}
		}
	}
}
