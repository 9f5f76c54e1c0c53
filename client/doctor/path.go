package doctor

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"podnet.dev/client/localapi"
)

// gateway is one gateway pod and the ways to it.
type gateway struct {
	pod string
	// nat is how its own NAT maps ports; empty when it did not ask.
	nat   string
	paths []way
}

// way is one path that was tried.
type way struct {
	kind, remote string
	// candidate says that it leads through NATs, and may well be closed.
	candidate bool
	live      bool
	rtt       time.Duration
	// datagram is the largest in bytes that passed whole, both ways.
	datagram int
	why      string // it is not live
}

// mapping is what one STUN server answered.
type mapping struct {
	server, mapped string
	err            error
}

// ways is everything about how to get to the gateways.
type ways struct {
	gateways []gateway
	stun     []mapping
	// nat is what the answers say of the NAT in front of this machine.
	nat string
}

const (
	udp       = "udp"
	apiserver = "apiserver"
	dependent = "endpoint-dependent"

	// overhead is what WireGuard adds to a packet, in bytes.
	overhead = 32
	// roomy is the datagram in bytes below which a path is called narrow: what
	// the usual tunnels below ours, PPPoE or another WireGuard, still take.
	roomy = 1332
)

// paths tries every way to every gateway, or asks the session that is on.
func (e *examination) paths(ctx context.Context) {
	if e.live != nil {
		e.say(sessionFinding(*e.live))
		e.say(pathFindings(liveWays(*e.live))...)
		return
	}
	w, err := e.try(ctx)
	if err != nil {
		e.say(failed("path/enrol", err))
		return
	}
	e.say(ok("path/enrol", "%s admits us", counted(len(w.gateways), "gateway")))
	e.say(pathFindings(w)...)
}

func sessionFinding(c localapi.Connection) localapi.Finding {
	if c.Path.Kind == "" {
		return problem("path/session", "podnet status says what is tried", "connected to %s, and no path is live just now: %s", c.Name, c.Path.Reason)
	}
	return ok("path/session", "connected to %s by %s: what follows is what the session sees", c.Name, c.Path.Kind)
}

// liveWays is what a session sees.
func liveWays(c localapi.Connection) ways {
	g := gateway{pod: c.Gateway.Pod}
	if c.Path.Kind != "" {
		w := way{kind: c.Path.Kind, remote: c.Path.Remote, live: true, rtt: time.Duration(c.Path.RTTMs * float64(time.Millisecond))}
		if c.Path.MTU > 0 {
			w.datagram = c.Path.MTU + overhead
		}
		g.paths = append(g.paths, w)
	}
	for _, o := range c.Path.Others {
		g.paths = append(g.paths, way{kind: o.Kind, remote: o.Remote, live: o.Live, rtt: time.Duration(o.RTTMs * float64(time.Millisecond)), why: o.Error})
	}
	return ways{gateways: []gateway{g}, nat: c.NAT}
}

// pathFindings judges them all.
func pathFindings(w ways) []localapi.Finding {
	var all []localapi.Finding
	for _, g := range w.gateways {
		all = append(all, gatewayFindings(g)...)
	}
	all = append(all, stunFindings(w)...)
	if f, known := mtuFinding(w.gateways); known {
		all = append(all, f)
	}
	return all
}

func gatewayFindings(g gateway) []localapi.Finding {
	var all []localapi.Finding
	live, published, open := 0, 0, 0
	for _, p := range g.paths {
		if p.live {
			live++
		}
		if p.kind == udp {
			published++
			if p.live {
				open++
			}
		}
	}
	for _, p := range g.paths {
		all = append(all, wayFinding(g.pod, p, live > 0, open > 0))
	}
	if published == 0 {
		all = append(all, warning("path/udp", "podnet install --node-port PORT opens a port on every node; podnet install --stun HOST:PORT lets both ends find a way through their NATs",
			"%s publishes no UDP address: everything goes through the API server", g.pod))
	}
	return all
}

// wayFinding judges one path; alive and open say whether the gateway answers by
// any path, and by any of UDP.
func wayFinding(pod string, p way, alive, open bool) localapi.Finding {
	check := "path/" + p.kind
	to := pod
	if p.kind == udp {
		to = p.remote + " of " + pod
	}
	switch {
	case p.live && p.rtt > 0:
		return ok(check, "%s answers in %s", to, rounded(p.rtt))
	case p.live:
		return ok(check, "%s answers", to)
	case p.kind == apiserver:
		text := fmt.Sprintf("%s does not answer through the API server%s", to, because(p.why))
		const fix = "kubectl port-forward must work for the gateway's pod: see its state and the permissions above; a proxy before the API server must let WebSocket or SPDY through"
		if alive {
			return warning(check, fix, "%s", text)
		}
		return problem(check, fix, "%s", text)
	case p.candidate:
		return skipped(check, "%s does not answer%s: a way through NATs that is not open", to, because(p.why))
	case open:
		return warning(check, "nothing to do while another address answers", "%s does not answer%s", to, because(p.why))
	}
	fix := "a firewall between here and there may drop UDP port " + portOf(p.remote) + "; the cloud's own firewall often does"
	if !alive {
		return problem(check, fix, "%s does not answer%s", to, because(p.why))
	}
	return warning(check, fix, "%s does not answer%s", to, because(p.why))
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func portOf(remote string) string {
	_, port, err := net.SplitHostPort(remote)
	if err != nil {
		return "of " + remote
	}
	return port
}

// stunFindings judges what the servers answered, and what the NATs at both ends
// make possible.
func stunFindings(w ways) []localapi.Finding {
	var all []localapi.Finding
	for _, m := range w.stun {
		if m.err != nil {
			all = append(all, warning("path/stun", "is it up, and does a firewall let UDP to it through? podnet install --stun names the servers", "STUN server %s does not answer: %v", m.server, m.err))
		} else {
			all = append(all, ok("path/stun", "STUN server %s sees us as %s", m.server, m.mapped))
		}
	}
	const check = "path/nat"
	const fix = "a UDP port on the nodes (podnet install --node-port) needs no such luck"
	switch w.nat {
	case "":
		if len(w.stun) > 0 {
			all = append(all, skipped(check, "too few STUN servers answered to tell which kind of NAT is in front of this machine; two are needed"))
		} else {
			all = append(all, skipped(check, "no STUN server was asked: what NAT is in front of this machine is not known, and not needed where a UDP address answers"))
		}
	case dependent:
		all = append(all, warning(check, fix, "the NAT in front of this machine gives every destination another port (symmetric): a way through it can only be guessed"))
	default:
		all = append(all, ok(check, "the NAT in front of this machine, if any, keeps one port for all destinations: a way through it can be found"))
	}
	for _, g := range w.gateways {
		switch g.nat {
		case "":
		case dependent:
			all = append(all, warning(check, fix, "the NAT in front of %s gives every destination another port (symmetric): a way through it can only be guessed", g.pod))
		default:
			all = append(all, ok(check, "the NAT in front of %s keeps one port for all destinations", g.pod))
		}
	}
	return all
}

// mtuFinding judges the roomiest UDP path; false when there is none.
func mtuFinding(all []gateway) (localapi.Finding, bool) {
	best := 0
	for _, g := range all {
		for _, p := range g.paths {
			if p.kind == udp && p.live {
				best = max(best, p.datagram)
			}
		}
	}
	const check = "path/mtu"
	switch {
	case best == 0:
		return localapi.Finding{}, false
	case best < roomy:
		return warning(check, "nothing has to be done: podnet sends smaller packets; a VPN below podnet's may be the cause, see vpn below",
			"UDP datagrams of at most %d bytes pass: a link on the way is narrow", best), true
	}
	return ok(check, "UDP datagrams of %d bytes pass whole, packets of %d in the tunnel", best, best-overhead), true
}

func counted(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return strings.TrimSpace(fmt.Sprintf("%d %ss", n, what))
}
