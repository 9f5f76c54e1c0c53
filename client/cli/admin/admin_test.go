package admin_test

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/overview"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// twoGateways have ada on udp, who moves, bob through the API server, and carol who
// is away.
func twoGateways(up uint64) []overview.Gateway {
	now := time.Now()
	fresh, stale := now.Add(-5*time.Second), now.Add(-time.Hour)
	peer := func(user string, handshake *time.Time) overview.Peer {
		return overview.Peer{Name: "u1-" + user, User: user, Device: user + "s-laptop", Addresses: []string{"fd70::1", "198.18.0.7"}, Namespaces: []string{"shop"}, LastHandshake: handshake}
	}
	ada, bob, carol := peer("ada", &fresh), peer("bob", &fresh), peer("carol", &stale)
	ada.Path, ada.From, ada.BytesUp, ada.BytesDown, ada.Connections, ada.Datagrams = "udp", "192.0.2.7:4500", up, 2048, 3, 1
	ada.Rules, ada.Limits = []string{"shop/web"}, []string{"user-rate"}
	bob.Path, bob.BytesUp, bob.Cluster = "apiserver", 50<<20, true
	elsewhere := []overview.Peer{peer("ada", nil), peer("bob", nil), peer("carol", nil)}
	return []overview.Gateway{
		{Pod: "podnet-gateway-0", Version: "1.2.3", Time: now, Leader: true, PoliciesHold: true, MemoryUsed: 40 << 20, MemoryBudget: 460 << 20, Agents: 2, Peers: []overview.Peer{ada, bob, carol}},
		{Pod: "podnet-gateway-1", Version: "1.2.3", Time: now, PoliciesHold: true, Peers: elsewhere},
	}
}

// TestDevicesSteerNoTerminal: whoever may connect calls his machine what he likes.
func TestDevicesSteerNoTerminal(t *testing.T) {
	m := fakemachine.New(t)
	looks := twoGateways(1024)
	looks[0].Peers[0].Device, looks[0].Peers[1].User = "pc\x1b]0;root\x07", "bob\x1b[2J"
	m.Admin.Looks = [][]overview.Gateway{looks}
	if r := m.Podnet("admin", "top"); r.Code != exit.OK || strings.ContainsAny(r.Out, "\x1b\x07") || !strings.Contains(r.Out, `pc\x1b]0;root\x07`) {
		t.Errorf("%d: %q", r.Code, r.Out)
	}
}

func TestAdminTop(t *testing.T) {
	m := fakemachine.New(t)
	m.Admin.Looks = [][]overview.Gateway{twoGateways(1024)}
	r := m.Podnet("admin", "top", "--gateway-namespace", "net", "-o", "wide")
	if r.Code != exit.OK || m.Admin.Namespace != "net" || m.Admin.Every != 0 {
		t.Fatalf("%+v of %q every %v", r, m.Admin.Namespace, m.Admin.Every)
	}
	want := []string{
		"GATEWAY VERSION DEVICES AGENTS MEMORY NOTES",
		"podnet-gateway-0 1.2.3 2 2 40.0 MiB of 460.0 MiB leads",
		"podnet-gateway-1 1.2.3 0 0 0 B -",
		"",
		"USER DEVICE FROM PATH UP DOWN UP/S DOWN/S FLOWS RULES NAMESPACES PEER ADDRESS GATEWAY HANDSHAKE LIMITS",
		"bob bobs-laptop - apiserver 50.0 MiB 0 B - - 0 - all u1-bob 198.18.0.7 podnet-gateway-0 5s -",
		"ada adas-laptop 192.0.2.7 udp 1.0 KiB 2.0 KiB - - 4 shop/web shop u1-ada 198.18.0.7 podnet-gateway-0 5s user-rate",
		"carol carols-laptop - away 0 B 0 B - - 0 - shop u1-carol 198.18.0.7 podnet-gateway-0 1h0m0s -",
	}
	var got []string
	for line := range strings.SplitSeq(strings.TrimSuffix(r.Out, "\n"), "\n") {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it prints\n%s", r.Out)
	}
}

// With --watch whoever moves most comes first, and programs get a line for each look.
func TestAdminTopAgainAndAgain(t *testing.T) {
	m := fakemachine.New(t)
	m.Admin.Looks = [][]overview.Gateway{twoGateways(1024), twoGateways(100 << 20)}
	r := m.Podnet("admin", "top", "-w", "--every", "200ms")
	second := r.Out[strings.LastIndex(r.Out, "USER"):]
	if r.Code != exit.OK || m.Admin.Every != 200*time.Millisecond || strings.Index(second, "ada") > strings.Index(second, "bob") {
		t.Errorf("%+v every %v", r, m.Admin.Every)
	}
	r = m.Podnet("admin", "top", "-w", "-o", "json")
	if lines := strings.Split(strings.TrimSpace(r.Out), "\n"); r.Code != exit.OK || len(lines) != 2 || !strings.Contains(lines[1], `"kind":"Top"`) || !strings.Contains(lines[1], `"bytesUp":104857600`) {
		t.Errorf("%+v", r)
	}
	if r := m.Podnet("admin", "top", "--every", "0s"); r.Code != exit.Usage {
		t.Errorf("%+v", r)
	}
}

func TestAdminRevoke(t *testing.T) {
	m := fakemachine.New(t)
	m.Admin.Ended = []admin.Revoked{{"u1-ada", "ada", "adas-laptop"}, {"u2-ada", "ada", ""}}
	r := m.Podnet("admin", "revoke", "ada")
	if r.Code != exit.OK || m.Admin.Who != "ada" || m.Admin.Namespace != "podnet-system" || r.Out != "revoked u1-ada of ada on adas-laptop\nrevoked u2-ada of ada on -\n" || !strings.Contains(r.Stderr, "rolebindings") {
		t.Errorf("%+v of %q in %q", r, m.Admin.Who, m.Admin.Namespace)
	}
	if r := m.Podnet("admin", "revoke", "ada", "-o", "name"); r.Out != "u1-ada\nu2-ada\n" {
		t.Errorf("%+v", r)
	}
	m.Admin.Ended = nil
	if r := m.Podnet("admin", "revoke", "eve"); r.Code != exit.Generic || !strings.Contains(r.Stderr, `nobody called "eve" is connected`) {
		t.Errorf("%+v", r)
	}
	m.Admin.Fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "bob may not list peers"}
	if r := m.Podnet("admin", "revoke", "eve"); r.Code != exit.Credentials {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"admin", "revoke"}, {"admin", "revoke", "a", "b"}, {"admin", "nonsense"}, {"admin", "top", "x"}} {
		if r := m.Podnet(args...); r.Code != exit.Usage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
