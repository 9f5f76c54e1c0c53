package doctor

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cluster"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

// want compares findings with lines of "result check: words that must be said".
// Everything that is not well must say what to do.
func want(t *testing.T, name string, got []localapi.Finding, lines ...string) {
	t.Helper()
	if len(got) != len(lines) {
		t.Errorf("%s: %d findings, want %d: %+v", name, len(got), len(lines), got)
		return
	}
	for i, f := range got {
		head, words, _ := strings.Cut(lines[i], ": ")
		if string(f.Result)+" "+f.Check != head || !strings.Contains(f.Text, words) {
			t.Errorf("%s: %s %s: %s\nwant %s", name, f.Result, f.Check, f.Text, lines[i])
		}
		if bad := f.Result == localapi.ResultProblem || f.Result == localapi.ResultWarning; bad != (f.Fix != "") {
			t.Errorf("%s: %s has the fix %q", name, f.Result, f.Fix)
		}
		if strings.ContainsAny(f.Text+f.Fix, "\n") || strings.HasSuffix(f.Text, ".") {
			t.Errorf("%s: not one sentence: %q", name, f.Text)
		}
	}
}

func one(f localapi.Finding) []localapi.Finding { return []localapi.Finding{f} }

func TestReachFindings(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("203.0.113.5")}
	good := cluster.Reach{Host: "api.example", Addrs: addrs, Connect: 11 * time.Millisecond, Answer: 20 * time.Millisecond, Version: "v1.34.0"}
	edit := func(f func(*cluster.Reach)) cluster.Reach { r := good; f(&r); return r }
	for name, c := range map[string]struct {
		r     cluster.Reach
		lines []string
	}{
		"all well": {good, []string{"ok cluster/name: api.example, is 203.0.113.5", "ok cluster/connection: connects in 11 ms", "ok cluster/version: v1.34.0", "ok cluster/clock: within 1s"}},
		"address":  {edit(func(r *cluster.Reach) { r.Host = "203.0.113.5" }), []string{"ok cluster/name: named by its address", "ok cluster/connection", "ok cluster/version", "ok cluster/clock"}},
		"no name":  {edit(func(r *cluster.Reach) { r.ResolveErr = errors.New("no such host") }), []string{"problem cluster/name: does not resolve: no such host"}},
		"proxy":    {edit(func(r *cluster.Reach) { r.Proxy, r.ConnectErr = true, errors.New("refused") }), []string{"ok cluster/name: the proxy of", "problem cluster/connection: the proxy of the API server does not take connections: refused"}},
		"silent": {edit(func(r *cluster.Reach) {
			r.AnswerErr = &cluster.UnreachableError{Server: "https://api.example", Err: errors.New("no answer in time")}
		}), []string{"ok cluster/name", "problem cluster/connection: no answer in time"}},
		"old":    {edit(func(r *cluster.Reach) { r.Old, r.Version = true, "v1.29.1" }), []string{"ok cluster/name", "ok cluster/connection", "problem cluster/version: v1.29.1"}},
		"ahead":  {edit(func(r *cluster.Reach) { r.Skew = 31 * time.Second }), []string{"ok cluster/name", "ok cluster/connection", "ok cluster/version", "warning cluster/clock: 31s ahead"}},
		"behind": {edit(func(r *cluster.Reach) { r.Skew = -time.Hour }), []string{"ok cluster/name", "ok cluster/connection", "ok cluster/version", "warning cluster/clock: 1h0m0s behind"}},
	} {
		want(t, name, reachFindings("https://api.example", c.r), c.lines...)
	}
}

func TestInstallFindings(t *testing.T) {
	want(t, "ready", one(podFinding("ns", cluster.GatewayPod{Name: "gw-0", Image: "reg/gw:1", Ready: true}, nil)), "ok podnet/gateway: ns/gw-0 is ready, image reg/gw:1")
	want(t, "restarts", one(podFinding("ns", cluster.GatewayPod{Name: "gw-0", Ready: true, Restarts: 3}, nil)), "warning podnet/gateway: restarted 3 times")
	want(t, "trouble", one(podFinding("ns", cluster.GatewayPod{Name: "gw-0", Trouble: "it does not exist"}, nil)), "problem podnet/gateway: it does not exist")
	want(t, "not ready", one(podFinding("ns", cluster.GatewayPod{Name: "gw-0"}, nil)), "problem podnet/gateway: not ready")
	want(t, "forbidden", one(podFinding("ns", cluster.GatewayPod{Name: "gw-0"}, errors.New("no"))), "skipped podnet/gateway: no")
	want(t, "restricted gateway", one(gatewaySecurityFinding("ns", "restricted", nil)), "ok podnet/pod-security: restricted, which the gateway passes")
	want(t, "unlabelled gateway", one(gatewaySecurityFinding("ns", "", nil)), "ok podnet/pod-security: no Pod Security level")
	for level, words := range map[string]string{"": "may take", "privileged": "may take", "baseline": "take no", "restricted": "take no"} {
		want(t, level, one(namespaceSecurityFinding("shop", level, nil)), "ok podnet/pod-security: "+words)
	}
	want(t, "secret namespace", one(namespaceSecurityFinding("shop", "", errors.New("no"))), "skipped podnet/pod-security: cannot read")
}

func TestPermissionFindings(t *testing.T) {
	p := cluster.Permission{Verb: "create", Group: "podnet.dev", Resource: "peers", Namespace: "ns"}
	want(t, "yes", one(permissionFinding("alice", cluster.Need{Permission: p, Allowed: true})), "ok permission/create: alice may create peers in namespace ns")
	no := permissionFinding("alice", cluster.Need{Permission: p, Ask: "kubectl x"})
	want(t, "no", one(no), "problem permission/create: alice may not create peers in namespace ns")
	if no.Fix != "ask an administrator for: kubectl x" {
		t.Errorf("fix %q", no.Fix)
	}
	want(t, "optional", one(permissionFinding("alice", cluster.Need{Permission: p, Optional: "slower"})), "warning permission/create: slower")
	want(t, "silence", one(permissionFinding("alice", cluster.Need{Permission: p, Err: errors.New("timeout")})), "skipped permission/create: timeout")
}

func TestPathFindings(t *testing.T) {
	stream := way{kind: apiserver, live: true, rtt: 23 * time.Millisecond}
	open := way{kind: udp, remote: "203.0.113.7:31820", live: true, rtt: 11 * time.Millisecond, datagram: 1452}
	shut := way{kind: udp, remote: "203.0.113.8:31820"}
	broken := way{kind: apiserver, why: "upgrade refused"}
	narrow := open
	narrow.datagram = 1232
	guess := way{kind: udp, remote: "192.0.2.9:40000", candidate: true}
	for name, c := range map[string]struct {
		paths []way
		lines []string
	}{
		"all well":      {[]way{stream, open}, []string{"ok path/apiserver: gw-0 answers in 23 ms", "ok path/udp: 203.0.113.7:31820 of gw-0 answers in 11 ms", "skipped path/nat", "ok path/mtu: 1452 bytes pass whole, packets of 1420"}},
		"one node shut": {[]way{stream, open, shut}, []string{"ok path/apiserver", "ok path/udp", "warning path/udp: 203.0.113.8:31820 of gw-0 does not answer", "skipped path/nat", "ok path/mtu"}},
		"UDP shut":      {[]way{stream, shut}, []string{"ok path/apiserver", "warning path/udp: does not answer", "skipped path/nat"}},
		"no UDP":        {[]way{stream}, []string{"ok path/apiserver", "warning path/udp: publishes no UDP address", "skipped path/nat"}},
		"no stream":     {[]way{broken, open}, []string{"warning path/apiserver: upgrade refused", "ok path/udp", "skipped path/nat", "ok path/mtu"}},
		"nothing":       {[]way{broken, shut}, []string{"problem path/apiserver: upgrade refused", "problem path/udp", "skipped path/nat"}},
		"narrow":        {[]way{stream, narrow}, []string{"ok path/apiserver", "ok path/udp", "skipped path/nat", "warning path/mtu: at most 1232 bytes"}},
		"candidate":     {[]way{stream, guess}, []string{"ok path/apiserver", "skipped path/udp: not open", "skipped path/nat"}},
	} {
		want(t, name, pathFindings(ways{gateways: []gateway{{pod: "gw-0", paths: c.paths}}}), c.lines...)
	}
}

func TestNATFindings(t *testing.T) {
	answers := []mapping{{server: "stun:3478", mapped: "203.0.113.1:4000"}, {server: "other:3478", err: errors.New("no answer in time")}}
	want(t, "half", stunFindings(ways{stun: answers}), "ok path/stun: sees us as 203.0.113.1:4000", "warning path/stun: other:3478 does not answer", "skipped path/nat: too few")
	want(t, "open", stunFindings(ways{nat: "endpoint-independent", gateways: []gateway{{pod: "gw-0", nat: dependent}}}),
		"ok path/nat: this machine, if any, keeps one port", "warning path/nat: in front of gw-0 gives every destination another port")
	want(t, "symmetric", stunFindings(ways{nat: dependent, gateways: []gateway{{nat: "endpoint-independent"}}}), "warning path/nat: this machine gives every", "ok path/nat: keeps one port")
	want(t, "nobody asked", stunFindings(ways{}), "skipped path/nat: no STUN server")
}

func TestFindingsOfASession(t *testing.T) {
	c := localapi.Connection{Name: "dev", NAT: "endpoint-independent", Gateway: localapi.Gateway{Pod: "gw-1"},
		Path: localapi.Path{Kind: udp, Remote: "203.0.113.7:31820", RTTMs: 11, MTU: 1420, Others: []localapi.OtherPath{
			{Kind: apiserver, Live: true, RTTMs: 23}, {Kind: udp, Remote: "203.0.113.8:31820", Error: "not answered"}}}}
	want(t, "live", append(one(sessionFinding(c)), pathFindings(liveWays(c))...),
		"ok path/session: connected to dev by udp", "ok path/udp: 203.0.113.7:31820 of gw-1 answers in 11 ms", "ok path/apiserver: gw-1 answers in 23 ms",
		"warning path/udp: not answered", "ok path/nat", "ok path/mtu: 1452")
	c.Path = localapi.Path{Reason: "no answer for 3 s", Others: []localapi.OtherPath{{Kind: apiserver, Error: "EOF"}}}
	want(t, "dead", append(one(sessionFinding(c)), pathFindings(liveWays(c))...),
		"problem path/session: no answer for 3 s", "problem path/apiserver: EOF", "warning path/udp: publishes no UDP", "ok path/nat")
}

func TestConnection(t *testing.T) {
	now := time.Now()
	s := localapi.Status{Connections: []localapi.Connection{{Server: "https://a", Gateway: localapi.Gateway{Namespace: "ns"}, Since: &now}}}
	for _, c := range []struct {
		server, ns string
		found      bool
	}{{"https://a", "ns", true}, {"https://b", "ns", false}, {"https://a", "other", false}} {
		if got := connection(s, c.server, c.ns); (got != nil) != c.found {
			t.Errorf("%s %s: %v", c.server, c.ns, got)
		}
	}
	s.Connections[0].Since = nil
	if connection(s, "https://a", "ns") != nil {
		t.Error("a session that is being connected was taken for one")
	}
}

func TestHostFindings(t *testing.T) {
	nobody := answer{err: &remote.NoHelperError{Err: os.ErrNotExist}}
	want(t, "root", one(privilegeFinding("linux", true, true, nobody)), "ok host/privilege")
	want(t, "user", one(privilegeFinding("linux", false, true, nobody)), "warning host/privilege: no podnet-helper answers")
	want(t, "operator", one(privilegeFinding("linux", false, true, answer{by: wire.Greeting{Operator: true}})), "ok host/privilege: podnet-helper")
	want(t, "stranger", one(privilegeFinding("linux", false, true, answer{})), "warning host/privilege: no operator")
	want(t, "other version", one(privilegeFinding("linux", false, true, answer{err: &remote.Error{Trouble: wire.Trouble{Message: "another version", Hint: "sudo podnet setup"}}})), "problem host/privilege: another version")
	want(t, "no tun", one(privilegeFinding("linux", true, false, nobody)), "problem host/privilege: /dev/net/tun")
	want(t, "darwin", one(privilegeFinding("darwin", true, false, nobody)), "problem host/privilege: darwin")

	prefix := netip.MustParsePrefix
	have := router.Host{
		Links:  []router.Link{{Name: "eth0", Addresses: []netip.Prefix{prefix("192.0.2.10/24")}}, {Name: "podnet0", Addresses: []netip.Prefix{prefix("10.96.0.1/32")}}},
		Routes: []router.Route{{Dst: prefix("0.0.0.0/0"), Interface: "eth0"}, {Dst: prefix("10.96.0.0/16"), Interface: "podnet0"}},
	}
	cidrs := []netip.Prefix{prefix("10.244.0.0/16"), prefix("10.96.0.0/16")}
	want(t, "no collision", one(routeFinding(have, cidrs)), "ok host/routes: 10.244.0.0/16, 10.96.0.0/16")
	want(t, "not known", one(routeFinding(have, nil)), "skipped host/routes")
	want(t, "their session", one(otherSessionFinding(have, false)), "warning host/session: another user's")
	want(t, "our session", one(otherSessionFinding(have, true)), "ok host/session: this user's")
	have.Links = have.Links[:1]
	want(t, "no session", one(otherSessionFinding(have, false)), "ok host/session: no other")
	have.Routes = append(have.Routes, router.Route{Dst: prefix("10.0.0.0/8"), Interface: "wg0"})
	want(t, "vpn has it", one(routeFinding(have, cidrs)), "warning host/routes: collides with 10.0.0.0/8 on interface wg0")
	have.Routes = []router.Route{{Dst: prefix("fd70:6f64:6e65::/48"), Interface: "wg0"}}
	want(t, "the tunnel's own range", one(routeFinding(have, cidrs)), "problem host/routes: collides with fd70:6f64:6e65::/48 on interface wg0")
	want(t, "virtual", one(virtualFinding(localapi.Addresses{Why: "asked for", Map: []localapi.VirtualPrefix{{Real: "10.96.0.0/16", Virtual: "100.64.0.0/16"}}})),
		"ok host/routes: (asked for): 10.96.0.0/16 at 100.64.0.0/16")
	want(t, "guessed", one(virtualFinding(localapi.Addresses{Why: "asked for", Map: []localapi.VirtualPrefix{{Real: "10.96.0.0/16", Virtual: "100.64.0.0/16"}}, Refused: 2, LastRefused: "100.64.1.2"})),
		"warning host/routes: 10.96.0.0/16 at 100.64.0.0/16; refused 2 packets to addresses that no name has led to, the last to 100.64.1.2")

	eth, wg := egress{name: "eth0"}, egress{name: "wg0", tunnel: true, mtu: 1420}
	api := egress{name: "eth0", apiserver: true}
	want(t, "no vpn", one(vpnFinding([]egress{eth, api})), "ok host/vpn: API server leave by eth0")
	want(t, "no cluster", one(vpnFinding([]egress{eth})), "ok host/vpn: internet leave by eth0")
	want(t, "full vpn", one(vpnFinding([]egress{wg, api})), "warning host/vpn: all traffic of this machine goes through wg0 (MTU 1420)")
	wg.apiserver = true
	want(t, "split vpn", one(vpnFinding([]egress{eth, wg})), "warning host/vpn: packets to the API server go through wg0")
	want(t, "offline", one(vpnFinding([]egress{{unknown: errors.New("network is unreachable")}})), "skipped host/vpn: unreachable")

	want(t, "resolved", one(resolverFinding(osdns.Looks{Mode: osdns.ModeResolved}, false)), "ok host/dns: systemd-resolved")
	want(t, "direct", one(resolverFinding(osdns.Looks{Mode: osdns.ModeDirect}, false)), "ok host/dns: /etc/resolv.conf")
	want(t, "connected", one(resolverFinding(osdns.Looks{Mode: osdns.ModeDirect, Ours: true}, true)), "ok host/dns")
	want(t, "killed", one(resolverFinding(osdns.Looks{Mode: osdns.ModeDirect, Ours: true}, false)), "problem host/dns: killed")
	want(t, "port free", one(portFinding(false, nil)), "ok host/port53")
	want(t, "port taken", one(portFinding(true, nil)), "problem host/port53")
	want(t, "port secret", one(portFinding(false, errors.New("no"))), "skipped host/port53: no")
	c := localapi.Connection{DNS: localapi.DNS{Zone: "cluster.local", Mode: "direct"}}
	want(t, "names", one(namesFinding(c, nil)), "ok host/names: cluster.local")
	want(t, "no names", one(namesFinding(c, errors.New("no such host"))), "problem host/names: no such host")
	c.DNS.Problem = "programs that use the C library ask somebody else for the cluster's names"
	want(t, "names by one way only", one(namesFinding(c, nil)), "problem host/names: C library")
}

const procUDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  467: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 18425 2 0000000000000000 0
`

func TestPort53(t *testing.T) {
	for table, want := range map[string]bool{
		"":      false,
		procUDP: false, // systemd-resolved on 127.0.0.53
		procUDP + "  468: 00000000:0035 00000000:0000 07 0 0\n":                                     true,
		procUDP + "  468: 00000000:0036 00000000:0000 07 0 0\n":                                     false,
		"  1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 0 0\n": true,
		"  1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 0 0\n": false,
	} {
		if got := wildcard53([]byte(table)); got != want {
			t.Errorf("%v for\n%s", got, table)
		}
	}
}

func FuzzPort53(f *testing.F) {
	f.Add([]byte(procUDP))
	f.Fuzz(func(_ *testing.T, table []byte) { wildcard53(table) })
}
