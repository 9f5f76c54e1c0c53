package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"podnet.dev/client/addressing"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/client/words"
	"podnet.dev/internal/key"
)

// host looks at this machine.
func (e *examination) host(ctx context.Context) {
	_, err := os.Stat("/dev/net/tun")
	e.say(privilegeFinding(runtime.GOOS, os.Geteuid() == 0, err == nil, helperAnswers(ctx)))
	if runtime.GOOS != "linux" {
		return
	}
	have, err := router.Read()
	if err != nil {
		e.say(skipped("host/routes", "cannot read this machine's routes: %v", err))
	} else {
		if e.live != nil && e.live.Addresses.Mode == addressing.Virtual {
			e.say(virtualFinding(e.live.Addresses))
		} else {
			e.say(routeFinding(have, e.prefixes()))
		}
		e.say(otherSessionFinding(have, e.anySession()))
	}
	e.say(vpnFinding(e.egress()))
	busy := hasOwn(have)
	e.say(resolverFinding(osdns.Look(osdns.Options{}), e.anySession() || busy))
	taken, err := portTaken()
	e.say(portFinding(taken, err))
	if e.live != nil {
		e.say(namesFinding(*e.live, lookUp(ctx, e.live.DNS.Zone)))
	}
}

// answer is what podnet-helper says when asked who it is.
type answer struct {
	by  wire.Greeting
	err error
}

func helperAnswers(ctx context.Context) answer {
	by, _, err := remote.Look(ctx, wire.Socket())
	return answer{by, err}
}

func privilegeFinding(system string, root, tun bool, helper answer) localapi.Finding {
	const check = "host/privilege"
	var none *remote.NoHelperError
	switch {
	case system != "linux":
		return problem(check, "connect from Linux for now", "podnet cannot change the network of %s yet", system)
	case !tun:
		return problem(check, "modprobe tun; in a container pass --device /dev/net/tun", "the kernel has no TUN devices: /dev/net/tun is missing")
	case root:
		return ok(check, "root may change the machine's network")
	case errors.As(helper.err, &none):
		return warning(check, "sudo podnet setup, once; or sudo -E podnet connect; podnet exec and podnet proxy need no privilege", "this user may not change the machine's network, and %v", helper.err)
	case helper.err != nil:
		return failed(check, helper.err)
	case !helper.by.Operator:
		return warning(check, "sudo podnet setup --operator NAME lets a user connect", "podnet-helper %s is there, and this user is no operator of it", helper.by.Program)
	}
	return ok(check, "podnet-helper %s changes the machine's network for this user", helper.by.Program)
}

// prefixes are the cluster's networks, as far as known.
func (e *examination) prefixes() []netip.Prefix {
	var texts []string
	if e.live != nil {
		texts = e.live.Routes
	} else if e.admitted != nil && e.admitted.Status.Network != nil {
		texts = slices.Concat(e.admitted.Status.Network.PodCIDRs, e.admitted.Status.Network.ServiceCIDRs)
	}
	var all []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

func (e *examination) avoid() []netip.Addr {
	if e.cluster == nil {
		return nil
	}
	return e.cluster.Remotes()
}

// anySession says whether this daemon has one, to whichever cluster.
func (e *examination) anySession() bool { return len(e.Status().Connections) > 0 }

// virtualFinding tells of a session that has gone out of the way.
func virtualFinding(a localapi.Addresses) localapi.Finding {
	var all []string
	for _, p := range a.Map {
		all = append(all, p.Real+" at "+p.Virtual)
	}
	const check, text = "host/routes", "this machine sees the cluster at virtual addresses (%s): %s"
	if a.Refused > 0 {
		return warning(check, "podnet map "+a.LastRefused+" opens that address, should a program of yours need it; programs that go by names need nothing", text+"; %s", a.Why, strings.Join(all, ", "), words.Refused(a.Refused, a.LastRefused))
	}
	return ok(check, text, a.Why, strings.Join(all, ", "))
}

// routeFinding tells whether the cluster's networks are taken on this machine,
// and if so what connect makes of that. Interfaces of ours do not count: they are
// a session's.
func routeFinding(have router.Host, want []netip.Prefix) localapi.Finding {
	const check = "host/routes"
	if len(want) == 0 {
		return skipped(check, "the cluster's networks are not known: nothing to compare this machine's routes with")
	}
	have.Links = slices.DeleteFunc(slices.Clone(have.Links), func(l router.Link) bool { return router.Ours(l.Name) })
	have.Routes = slices.DeleteFunc(slices.Clone(have.Routes), func(r router.Route) bool { return router.Ours(r.Interface) })
	var conflict *router.ConflictError
	if _, err := router.Routes(have, router.Config{Routes: want}); errors.As(err, &conflict) {
		return warning(check, "nothing has to be done: podnet connect gives the cluster virtual addresses on this machine; ip route show dev "+conflict.Interface+" lists what is in the way", "%v", err)
	} else if err != nil {
		return failed(check, err)
	}
	if _, err := router.Routes(have, router.Config{Routes: []netip.Prefix{key.Prefix6}}); err != nil {
		return failed(check, err)
	}
	return ok(check, "no network of this machine collides with the cluster's %s", strings.Join(router.Strings(want), ", "))
}

func hasOwn(have router.Host) bool {
	return slices.ContainsFunc(have.Links, func(l router.Link) bool { return router.Ours(l.Name) })
}

// otherSessionFinding looks for a session that this daemon knows nothing of:
// there is one for a machine.
func otherSessionFinding(have router.Host, ours bool) localapi.Finding {
	const check = "host/session"
	switch {
	case ours:
		return ok(check, "the session on this machine is this user's")
	case hasOwn(have):
		return warning(check, "podnet status and podnet disconnect as the user who connected; after sudo podnet connect that is root", "another user's podnet session has this machine's network")
	}
	return ok(check, "no other podnet session is on this machine")
}

// egress is how packets leave this machine for one destination.
type egress struct {
	to        netip.Addr
	name      string // of the interface
	tunnel    bool   // point to point: a VPN's, or a modem's
	unknown   error
	mtu       int
	apiserver bool // to is the API server, or the proxy before it
}

// internet is an address that no network has (TEST-NET-2, RFC 5737): where a
// packet to it would leave, packets to the internet leave.
var internet = netip.MustParseAddr("198.51.100.1")

func (e *examination) egress() []egress {
	all := []egress{leave(internet)}
	for _, a := range e.avoid() {
		out := leave(a)
		out.apiserver = true
		all = append(all, out)
	}
	return all
}

// leave asks the kernel, without sending anything, which interface it would
// use. Rules and tables of somebody's making are followed.
func leave(to netip.Addr) egress {
	out := egress{to: to}
	c, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		out.unknown = err
		return out
	}
	defer c.Close()
	local, isUDP := c.LocalAddr().(*net.UDPAddr)
	interfaces, err := net.Interfaces()
	if err != nil || !isUDP {
		out.unknown = errors.Join(err, errors.New("no local address"))
		return out
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, isNet := a.(*net.IPNet); isNet && n.IP.Equal(local.IP) {
				out.name, out.mtu, out.tunnel = i.Name, i.MTU, i.Flags&net.FlagPointToPoint != 0
			}
		}
	}
	return out
}

// vpnFinding tells of other tunnels that podnet's packets would go through.
func vpnFinding(all []egress) localapi.Finding {
	const check = "host/vpn"
	for _, e := range all {
		if !e.tunnel || router.Ours(e.name) {
			continue
		}
		what := "all traffic of this machine goes"
		if e.apiserver {
			what = "packets to the API server go"
		}
		return warning(check, "nothing has to be done while the paths above work; leave that VPN where they do not, or let it exclude the gateway's addresses",
			"%s through %s (MTU %d), another tunnel", what, e.name, e.mtu)
	}
	for _, e := range all {
		if e.apiserver && e.unknown == nil {
			return ok(check, "packets to the API server leave by %s, which is no tunnel", e.name)
		}
	}
	if all[0].unknown == nil {
		return ok(check, "packets to the internet leave by %s, which is no tunnel", all[0].name)
	}
	return skipped(check, "cannot tell by which interface packets leave: %v", all[0].unknown)
}

func resolverFinding(l osdns.Looks, session bool) localapi.Finding {
	const check = "host/dns"
	switch {
	case l.Ours && !session:
		return problem(check, "sudo podnet disconnect takes it back", "/etc/resolv.conf points at a podnet that is not there: it was killed, and nobody cleaned up")
	case l.Mode == osdns.ModeResolved:
		return ok(check, "names are resolved by systemd-resolved: podnet sets the cluster's domains for its interface only")
	}
	if l.Mode == osdns.ModeOpenresolv {
		return ok(check, "openresolv writes /etc/resolv.conf: podnet has it name its own proxy there while connected, and hands on what is not the cluster's")
	}
	return ok(check, "programs read /etc/resolv.conf: podnet puts its own proxy there while connected, and hands on what is not the cluster's")
}

func portFinding(taken bool, err error) localapi.Finding {
	const check = "host/port53"
	switch {
	case err != nil:
		return skipped(check, "cannot tell who listens on port 53: %v", err)
	case taken:
		return problem(check, "let it listen on its own addresses only (ss -lntup sport = 53 names it)", "a name server on this machine takes port 53 of every address, so that podnet's proxy cannot answer on its own")
	}
	return ok(check, "nobody takes port 53 of every address")
}

// namesFinding judges what became of a question that every cluster answers.
func namesFinding(c localapi.Connection, err error) localapi.Finding {
	const check = "host/names"
	if err == nil && c.DNS.Problem != "" { // Go asks by one of the ways only
		err = errors.New(c.DNS.Problem)
	}
	if err != nil {
		return problem(check, "podnet disconnect, podnet connect; if that does not help, something else answers for this machine: resolvectl status, cat /etc/resolv.conf",
			"programs of this machine do not get the cluster's names (%s) by %s: %v", c.DNS.Zone, c.DNS.Mode, err)
	}
	return ok(check, "programs of this machine get the cluster's names (%s) by %s", c.DNS.Zone, c.DNS.Mode)
}

// lookUp asks as programs do for a name that the cluster's DNS always has
// (Kubernetes DNS specification, 2.2).
func lookUp(ctx context.Context, zone string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := net.DefaultResolver.LookupTXT(ctx, "dns-version."+zone+".")
	return err
}
