package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/overview"
)

// fakeAdmin is a cluster's gateways.
type fakeAdmin struct {
	looks     [][]overview.Gateway
	every     time.Duration
	namespace string
	who       string
	ended     []Revoked
	fail      error
}

func (f *fakeAdmin) Top(_ context.Context, _ localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error {
	f.namespace, f.every = namespace, every
	for _, l := range f.looks {
		if err := each(l); err != nil || every == 0 {
			return err
		}
	}
	return f.fail
}

func (f *fakeAdmin) Revoke(_ context.Context, _ localapi.Kube, namespace, who string) ([]Revoked, error) {
	f.namespace, f.who = namespace, who
	return f.ended, f.fail
}

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

func TestAdminTop(t *testing.T) {
	m := newMachine(t)
	m.admin.looks = [][]overview.Gateway{twoGateways(1024)}
	r := m.podnet("admin", "top", "--gateway-namespace", "net", "-o", "wide")
	if r.code != exit.OK || m.admin.namespace != "net" || m.admin.every != 0 {
		t.Fatalf("%+v of %q every %v", r, m.admin.namespace, m.admin.every)
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
	for line := range strings.SplitSeq(strings.TrimSuffix(r.out, "\n"), "\n") {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it prints\n%s", r.out)
	}
}

// With --watch whoever moves most comes first, and programs get a line for each look.
func TestAdminTopAgainAndAgain(t *testing.T) {
	m := newMachine(t)
	m.admin.looks = [][]overview.Gateway{twoGateways(1024), twoGateways(100 << 20)}
	r := m.podnet("admin", "top", "-w", "--every", "200ms")
	second := r.out[strings.LastIndex(r.out, "USER"):]
	if r.code != exit.OK || m.admin.every != 200*time.Millisecond || strings.Index(second, "ada") > strings.Index(second, "bob") {
		t.Errorf("%+v every %v", r, m.admin.every)
	}
	r = m.podnet("admin", "top", "-w", "-o", "json")
	if lines := strings.Split(strings.TrimSpace(r.out), "\n"); r.code != exit.OK || len(lines) != 2 || !strings.Contains(lines[1], `"kind":"Top"`) || !strings.Contains(lines[1], `"bytesUp":104857600`) {
		t.Errorf("%+v", r)
	}
	if r := m.podnet("admin", "top", "--every", "0s"); r.code != exit.Usage {
		t.Errorf("%+v", r)
	}
}

func TestAdminRevoke(t *testing.T) {
	m := newMachine(t)
	m.admin.ended = []Revoked{{"u1-ada", "ada", "adas-laptop"}, {"u2-ada", "ada", ""}}
	r := m.podnet("admin", "revoke", "ada")
	if r.code != exit.OK || m.admin.who != "ada" || m.admin.namespace != "podnet-system" || r.out != "revoked u1-ada of ada on adas-laptop\nrevoked u2-ada of ada on -\n" || !strings.Contains(r.stderr, "rolebindings") {
		t.Errorf("%+v of %q in %q", r, m.admin.who, m.admin.namespace)
	}
	if r := m.podnet("admin", "revoke", "ada", "-o", "name"); r.out != "u1-ada\nu2-ada\n" {
		t.Errorf("%+v", r)
	}
	m.admin.ended = nil
	if r := m.podnet("admin", "revoke", "eve"); r.code != exit.Generic || !strings.Contains(r.stderr, `nobody called "eve" is connected`) {
		t.Errorf("%+v", r)
	}
	m.admin.fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "bob may not list peers"}
	if r := m.podnet("admin", "revoke", "eve"); r.code != exit.Credentials {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"admin", "revoke"}, {"admin", "revoke", "a", "b"}, {"admin", "nonsense"}, {"admin", "top", "x"}} {
		if r := m.podnet(args...); r.code != exit.Usage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
