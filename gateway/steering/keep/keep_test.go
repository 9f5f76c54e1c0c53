package keep

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
)

func TestElsewhere(t *testing.T) {
	pod := []netip.Addr{netip.MustParseAddr("10.244.0.7"), netip.MustParseAddr("fd00:10::7")}
	for _, c := range []struct {
		endpoint string
		addrs    []netip.Addr
		want     bool
	}{
		{"10.244.0.7:4500", pod, false},
		{"[::ffff:10.244.0.7]:4500", pod, false},
		{"[fd00:10::7]:4500", pod, false},
		{"10.244.0.8:4500", pod, true},
		{"[fd00:10::7]:4500", pod[:1], false}, // a Service of IPv4 alone
		{"10.244.0.8:4500", pod[:1], true},
		{"stream:12", pod, true},
		{"10.244.0.8:4500", nil, false},
		{"stream:12", nil, false},
	} {
		if got := elsewhere(c.endpoint, c.addrs); got != c.want {
			t.Errorf("%s of %v: %v", c.endpoint, c.addrs, got)
		}
	}
}

func TestGatewaysThatAgentsAreTold(t *testing.T) {
	own := control.Gateway{PublicKey: key.Public{9}, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.5:51820")}}
	entry := func(n byte, pod, uid string, draining bool, at ...string) podnet.Gateway {
		return podnet.Gateway{Pod: pod, PodUID: uid, PublicKey: key.Public{n}.String(), Draining: draining, ClusterEndpoints: at}
	}
	p := &podnet.Peer{}
	p.Status.Gateways = []podnet.Gateway{
		entry(9, "podnet-gateway-0", "a", false, "10.244.0.1:1"), // ours, from before
		entry(4, "podnet-gateway-1", "b", false, "10.244.0.6:51820", "[fd00::6]:51820"),
		entry(5, "podnet-gateway-2", "c", true, "10.244.0.7:51820"),
		entry(6, "podnet-gateway-3", "dead", false, "10.244.0.8:51820"),
		entry(7, "podnet-gateway-4", "e", false),
		{Pod: "podnet-gateway-5", PodUID: "f", PublicKey: "nonsense", ClusterEndpoints: []string{"10.244.0.9:51820"}},
	}
	w := world.Snapshot{Peers: []world.Peer{{Object: p}}, Gateways: map[string]string{
		"podnet-gateway-0": "a", "podnet-gateway-1": "b", "podnet-gateway-2": "c", "podnet-gateway-3": "d", "podnet-gateway-4": "e", "podnet-gateway-5": "f"}}
	keys := func(all []control.Gateway) (first []byte) {
		for _, g := range all {
			first = append(first, g.PublicKey[0])
		}
		return first
	}
	all := gatewaysFor(w, own)
	if !slices.Equal(keys(all), []byte{4, 9}) || len(all[0].Endpoints) != 2 || !slices.Equal(all[1].Endpoints, own.Endpoints) {
		t.Errorf("%v", all)
	}
	w.Gateways = nil // it cannot be told who runs
	if all := gatewaysFor(w, own); !slices.Equal(keys(all), []byte{4, 6, 9}) {
		t.Errorf("%v", all)
	}
	if all := gatewaysFor(world.Snapshot{}, own); !slices.Equal(keys(all), []byte{9}) {
		t.Errorf("%v", all)
	}
}

// TestSettling follows an agent and a laptop through what the tunnel knows.
func TestSettling(t *testing.T) {
	self, agent, laptop := key.Public{1}, key.Public{2}, key.Public{3}
	var peers []tunnel.PeerStats
	var claims func(*packet.Packet) bool
	looks := 0
	s := New(Config{
		Self: self, Keep: time.Hour, Log: slog.New(slog.DiscardHandler),
		Stats:   func() ([]tunnel.PeerStats, error) { return peers, nil },
		Relay:   func(f func(*packet.Packet) bool) { claims = f },
		Changed: func() { looks++ },
	})
	rule := steering.Object{UID: "r", Namespace: "shop", Name: "r", User: "alice", Peer: "laptop", Pod: "web-0", PodUID: "u", Renew: 1, RelayPort: 20000, Agent: agent,
		Steer: steer.Rule{Name: "r", Owner: "alice", Protocol: steer.TCP, Port: 80, Mode: steer.Steal}}
	w := world.Snapshot{
		Peers: []world.Peer{{Object: &podnet.Peer{}, Peer: enrol.Peer{Name: "laptop", Lease: 300 * time.Second}}},
		Rules: []world.Rule{{Rule: rule}}, Pods: map[string][]netip.Addr{"u": {netip.MustParseAddr("10.244.0.7")}},
	}
	admitted := []enrol.Admitted{{Name: "laptop", User: "alice", Key: laptop, Address6: laptop.Address6()}}
	look := func() Steered {
		p := s.Look(time.Now(), w, enrol.World{PolicyHolds: true, Connected: true}, admitted)
		s.Act(p, w, admitted)
		return p
	}
	segment, _ := packet.Parse(segment(netip.AddrPortFrom(agent.Address6(), 40000), netip.AddrPortFrom(laptop.RelayAddress6(), 20000), 2))

	p := look()
	if len(p.Agents) != 1 || p.Agents[0].Key != agent || claims == nil || !claims(&segment) || s.here(laptop.RelayAddress6()) {
		t.Fatalf("agents %+v, tied %v", p.Agents, claims != nil)
	}
	peers = []tunnel.PeerStats{{PublicKey: laptop, LastHandshake: time.Now().Add(-time.Minute)}, {PublicKey: agent, Endpoint: "10.244.0.7:4500"}}
	if s.poll(); !s.here(laptop.RelayAddress6()) || claims == nil {
		t.Error("the laptop is not here")
	}
	looks = 0
	peers[1].Endpoint, peers[0].LastHandshake = "10.244.0.66:4500", time.Now().Add(-3*time.Minute)
	if s.poll(); s.here(laptop.RelayAddress6()) || claims != nil || looks != 1 {
		t.Errorf("a stale handshake counts, or a stranger is tied; %d looks", looks)
	}
	peers[1].Endpoint = "10.244.0.7:4501"
	if s.poll(); claims == nil {
		t.Error("an agent that is back is not tied again")
	}

	for what, k := range map[string]key.Public{"the gateway's": self, "the laptop's": laptop} {
		w.Rules[0].Rule.Agent = k
		if p := look(); slices.ContainsFunc(p.Agents, func(a steering.Agent) bool { return a.Key == k }) {
			t.Errorf("%s key is an agent's", what)
		}
	}
	w.Rules = nil
	if look(); claims != nil {
		t.Error("a tie outlives its rule")
	}
}
