package helper

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"podnet.dev/internal/key"
)

// told is a plan in words.
func told(plan []wgtypes.Config) (text []string) {
	for _, c := range plan {
		line := ""
		if c.PrivateKey != nil {
			line += "key "
		}
		if c.ReplacePeers {
			line += "instead "
		}
		for _, p := range c.Peers {
			line += "peer "
			if p.UpdateOnly {
				line += "as it is "
			}
			if p.Endpoint != nil {
				line += fmt.Sprint("at ", p.Endpoint, " ")
			}
			if p.ReplaceAllowedIPs {
				line += "only "
			}
			line += fmt.Sprint(p.AllowedIPs, " every ", *p.PersistentKeepaliveInterval)
		}
		text = append(text, line)
	}
	return text
}

// TestTheKernelIsToldWhatIsNew: a peer that stays keeps its session, and its list of
// addresses is never empty while it grows.
func TestTheKernelIsToldWhatIsNew(t *testing.T) {
	newKey := func() key.Private {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	own, other := newKey(), newKey()
	peer, another := key.Public{1}, key.Public{2}
	ips := func(texts ...string) (all []netip.Prefix) {
		for _, t := range texts {
			all = append(all, netip.MustParsePrefix(t))
		}
		return all
	}
	every := 25 * time.Second
	with := func(k key.Private, p key.Public, speak bool, all ...string) WireGuard {
		return WireGuard{PrivateKey: k, Peer: p, AllowedIPs: ips(all...), Keepalive: every, Speak: speak}
	}
	relay := netip.MustParseAddrPort("127.0.0.1:4711")
	none := WireGuard{PrivateKey: own}
	one := with(own, peer, false, "10.96.0.0/12")
	const at = "at 127.0.0.1:4711 "
	for name, c := range map[string]struct {
		have, want WireGuard
		told       []string
	}{
		"its key":                    {WireGuard{}, none, []string{"key instead "}},
		"a peer":                     {none, one, []string{"instead peer " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"all at once":                {WireGuard{}, one, []string{"key instead peer " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"the same once more":         {one, one, []string{"peer as it is " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"one address more":           {one, with(own, peer, false, "10.96.0.0/12", "fd00::/64"), []string{"peer as it is " + at + "[{10.96.0.0 fff00000} {fd00:: ffffffffffffffff0000000000000000}] every 25s"}},
		"another address":            {one, with(own, peer, false, "10.112.0.0/12"), []string{"peer as it is " + at + "only [{10.112.0.0 fff00000}] every 25s"}},
		"to speak":                   {one, with(own, peer, true, "10.96.0.0/12"), []string{"peer as it is [] every 0s", "peer as it is " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"to speak, with a new peer":  {none, with(own, peer, true, "10.96.0.0/12"), []string{"instead peer " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"another peer":               {one, with(own, another, false, "10.96.0.0/12"), []string{"instead peer " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"another key":                {one, with(other, peer, false, "10.96.0.0/12"), []string{"key instead peer " + at + "[{10.96.0.0 fff00000}] every 25s"}},
		"no peer any more":           {one, none, []string{"instead "}},
		"nothing, of nothing at all": {none, none, []string{"instead "}},
	} {
		plan, err := planWireGuard(c.have, c.want, relay)
		if err != nil {
			t.Fatal(err)
		}
		if got := told(plan); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.told) {
			t.Errorf("%s: told %q, want %q", name, got, c.told)
		}
		for _, tell := range plan {
			if k := tell.PrivateKey; k != nil && key.Public(k.PublicKey()) != c.want.PrivateKey.Public() {
				t.Errorf("%s: the key is another one", name)
			}
		}
	}
}
