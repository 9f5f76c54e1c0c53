package client

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/transport"
)

func gateways(pods ...string) []v1alpha1.Gateway {
	var all []v1alpha1.Gateway
	for _, p := range pods {
		all = append(all, v1alpha1.Gateway{Pod: p})
	}
	return all
}

// TestLaptopsSpreadOverReplicas: evenly, and when one goes only its own move.
func TestLaptopsSpreadOverReplicas(t *testing.T) {
	three := gateways("podnet-gateway-0", "podnet-gateway-1", "podnet-gateway-2")
	count, moved := map[string]int{}, 0
	const laptops = 3000
	for i := range laptops {
		peer := fmt.Sprintf("u12345678-laptop-%04x", i)
		first := rank(peer, three)[0].Pod
		count[first]++
		if again := rank(peer, three[:2])[0].Pod; first != "podnet-gateway-2" && again != first {
			moved++
		}
		if again := rank(peer, gateways("podnet-gateway-2", "podnet-gateway-0", "podnet-gateway-1"))[0].Pod; again != first {
			t.Fatalf("the order of the list decides: %s or %s", first, again)
		}
	}
	for pod, n := range count {
		if n < laptops/3*9/10 || n > laptops/3*11/10 {
			t.Errorf("%s has %d of %d laptops", pod, n, laptops)
		}
	}
	if moved > 0 {
		t.Errorf("%d laptops left a gateway that is still there", moved)
	}
	three[0].Draining = true
	if got := rank("u1", three); len(got) != 2 {
		t.Errorf("a gateway that drains is still there: %v", got)
	}
}

func TestAddresses(t *testing.T) {
	gw := v1alpha1.Gateway{Endpoints: []string{"203.0.113.7:31820", "10.244.0.9:31820", "garbage"},
		Candidates: []string{"203.0.113.7:31820", "10.244.0.9:51820", "[::ffff:198.51.100.1]:4500"}}
	got := fmt.Sprintln(addresses(gw, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}))
	if want := "[203.0.113.7:31820 10.244.0.9:31820] [198.51.100.1:4500]\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for i := range 100 {
		gw.Candidates = append(gw.Candidates, fmt.Sprintf("203.0.113.8:%d", 1000+i))
	}
	if endpoints, candidates := addresses(gw, nil); len(endpoints)+len(candidates) != maxAddresses {
		t.Errorf("%d and %d addresses", len(endpoints), len(candidates))
	}
}

func udp(live bool, datagram int) transport.PathStatus {
	return transport.PathStatus{Kind: transport.UDP, Remote: "203.0.113.7:31820", Live: live, Datagram: datagram, RTT: 11 * time.Millisecond}
}

func stream(live bool) transport.PathStatus {
	return transport.PathStatus{Kind: transport.APIServer, Remote: "podnet-gateway-0", Live: live, RTT: 23 * time.Millisecond, Redials: 2}
}

func TestMTU(t *testing.T) {
	for _, c := range []struct {
		hope   bool
		active transport.PathStatus
		was    int
		want   int
	}{
		{true, udp(true, 1452), 1420, 1420},
		{true, udp(true, 1392), 1420, 1360},
		{true, udp(true, 1232), 1420, 1280}, // transport cuts what is larger
		{true, udp(true, 9000), 1420, 1420},
		{true, udp(true, 0), 1360, 1360},     // not measured yet
		{true, stream(true), 1360, 1360},     // flows have settled on it
		{true, stream(true), 16384, 1420},    // UDP has become possible
		{false, stream(true), 1420, 16384},   // and can never be
		{true, transport.PathStatus{}, 1, 1}, // no path: nothing changes
	} {
		if got := mtu(c.hope, c.active, c.was); got != c.want {
			t.Errorf("%v %+v was %d: %d, want %d", c.hope, c.active, c.was, got, c.want)
		}
	}
}

// status of a Gateway whose first path is active, if it is live.
func paths(all ...transport.PathStatus) transport.GatewayStatus {
	st := transport.GatewayStatus{Paths: all}
	if len(all) > 0 && all[0].Live {
		st.Active = all[0]
	}
	return st
}

func TestReason(t *testing.T) {
	failed := func(p transport.PathStatus, why string) transport.PathStatus {
		if p.LastError = errors.New(why); why == "" {
			p.LastError = transport.ErrNotAnswered
		}
		return p
	}
	suspect := udp(true, 1452)
	suspect.Suspect = true
	mapped := nat.Finding{Kind: nat.Independent, Mapped: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.9:4500")}}
	symmetric := mapped
	symmetric.Kind = nat.Dependent
	for name, c := range map[string]struct {
		st   transport.GatewayStatus
		o    outlook
		want string
	}{
		"by UDP":               {paths(udp(true, 1452), stream(true)), outlook{published: 1}, ""},
		"as asked":             {paths(stream(true)), outlook{only: transport.APIServer, published: 1}, ""},
		"a closed port":        {paths(stream(true), udp(false, 0)), outlook{published: 1}, "apiserver: UDP to 203.0.113.7:31820 not answered"},
		"a closed port, asked": {paths(stream(true), failed(udp(false, 0), "")), outlook{published: 1}, "apiserver: UDP to 203.0.113.7:31820 not answered"},
		"no route":             {paths(stream(true), failed(udp(false, 0), "network is unreachable")), outlook{published: 1}, "apiserver: UDP to 203.0.113.7:31820: network is unreachable"},
		"slow UDP":             {paths(stream(true), udp(true, 1452)), outlook{published: 1}, "apiserver: faster than UDP to 203.0.113.7:31820"},
		"UDP was just cut":     {paths(stream(true), suspect), outlook{published: 1}, "apiserver: UDP to 203.0.113.7:31820 not answered"},
		"nothing to try":       {paths(stream(true)), outlook{}, "apiserver: no UDP endpoint is published and no STUN server is configured"},
		"STUN is silent":       {paths(stream(true)), outlook{stun: true, asked: true}, "apiserver: no STUN server answers"},
		"we are symmetric":     {paths(stream(true), udp(false, 0)), outlook{stun: true, asked: true, ours: symmetric}, "apiserver: the NAT in front of this machine gives every destination another port (symmetric); UDP to 203.0.113.7:31820 not answered"},
		"they are symmetric":   {paths(stream(true)), outlook{stun: true, asked: true, ours: mapped, theirs: nat.Dependent}, "apiserver: the NAT in front of the gateway gives every destination another port (symmetric)"},
		"not written":          {paths(stream(true)), outlook{stun: true, asked: true, ours: mapped, refused: errors.New("no")}, "apiserver: our addresses could not be written for the gateway: no"},
		"too early":            {paths(stream(true)), outlook{stun: true}, "apiserver: the gateway has no UDP address yet"},
		"no path at all":       {paths(failed(stream(false), "connection refused"), udp(false, 0)), outlook{published: 1}, "no path answers: apiserver: connection refused; udp 203.0.113.7:31820 does not answer"},
		"not even a wish":      {paths(), outlook{}, "no path answers: the gateway has no address"},
	} {
		if got := reason(c.st, c.o); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

// TestStatusOfPaths: what is live comes first, and nothing is there twice.
func TestStatusOfPaths(t *testing.T) {
	dead := transport.PathStatus{Kind: transport.UDP, Remote: "192.0.2.1:1"}
	p := describe(paths(udp(true, 1392), dead, stream(true)), outlook{published: 2})
	if p.Kind != "udp" || p.RTTMs != 11 || p.MTU != 1360 || p.Redials != 2 || p.Reason != "" {
		t.Errorf("%+v", p)
	}
	if len(p.Others) != 2 || p.Others[0].Kind != "apiserver" || !p.Others[0].Live || p.Others[1].Error != "not answered" {
		t.Errorf("others %+v", p.Others)
	}
}

// TestHopeless: only an answer that will not change is a reason not to wait.
func TestHopeless(t *testing.T) {
	refused := stream(false)
	refused.LastError = fmt.Errorf("dial stream: %w", &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Resource: "pods", Subresource: "portforward"}})
	old := stream(false)
	old.LastError = fmt.Errorf("open stream: %w", transport.VersionError{Theirs: 2, Ours: 1})
	away := stream(false)
	away.LastError = errors.New("connection refused")
	for name, c := range map[string]struct {
		st   transport.GatewayStatus
		code string
	}{
		"refused": {paths(refused), localapi.CodeForbidden}, "too old": {paths(old), localapi.CodeTooOld},
		"refused, but UDP may answer": {paths(refused, udp(false, 0)), ""}, "away": {paths(away), ""}, "nothing": {paths(), ""},
	} {
		err := hopeless(c.st)
		if err == nil && c.code == "" {
			continue
		}
		if e := httpjson.FromError(err); err == nil || e.Code != c.code || e.Hint == "" || strings.Contains(e.Message, "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
