package boot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/kube"
	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/stun"
	"podnet.dev/e2e/lab/internal/topology"
)

// internet starts what the router's side of the world has to offer: a DNS
// server for the zone example.test, the web server www.example.test, and STUN
// servers.
func (l *Lab) internet(set assets.Set) error {
	etc := l.State.Path("etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	corefile, zone := l.State.Path("etc", "Corefile"), l.State.Path("etc", "example.test.zone")
	for file, content := range map[string]string{
		corefile: internetCorefile(zone),
		zone:     internetZone(l.Plan),
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	// Copies: the cache may be rebuilt while the lab is up.
	programs := map[string][]string{
		"internet-dns":  {set.CoreDNS, "-conf", corefile},
		"internet-web":  {set.Shop, "--name=www.example.test", "--http=:80"},
		"internet-stun": {l.self, VerbSTUN},
	}
	for name, argv := range programs {
		if _, err := l.start(name, string(topology.Router), nil, argv); err != nil {
			return err
		}
	}
	return nil
}

func internetCorefile(zone string) string {
	bind := fmt.Sprintf("bind %s %s", topology.Internet4, topology.Internet6)
	return fmt.Sprintf(`example.test {
    %[1]s
    errors
    log
    file %[2]s
}
. {
    %[1]s
    errors
    log
    template ANY ANY {
        rcode NXDOMAIN
        authority ". 60 IN SOA ns.example.test. nobody.example.test. 1 60 60 60 60"
    }
}
`, bind, zone)
}

// internetZone has names of every kind that a split resolver must hand out
// unchanged.
func internetZone(lab topology.Lab) string {
	cp := lab.ControlPlane()
	records := [][2]string{
		{"@", "SOA ns nobody 1 60 60 60 60"},
		{"@", "NS ns"},
		{"@", "MX 10 mail"},
		{"@", `TXT "the lab's internet"`},
		{"@", "A " + topology.Internet4.String()},
		{"ns", "A " + topology.Internet4.String()},
		{"mail", "A " + topology.Internet4.String()},
		{"www", "A " + topology.Internet4.String()},
		{"www", "AAAA " + topology.Internet6.String()},
		{"alias", "CNAME www"},
		{"stun", "A " + topology.STUN4[0].String()},
		{"stun2", "A " + topology.STUN4[1].String()},
		{"stun6", "AAAA " + topology.STUN6[0].String()},
		{"printer.home", "A 10.77.100.9"},
		{"nas.home", "A 10.244.0.3"}, // in a home that has the pods' network
		{"_sip._tcp", "SRV 0 0 5060 www"},
		{strings.TrimSuffix(kube.APIName, ".example.test"), "A " + cp.Addr4.String()},
	}
	b := "$ORIGIN example.test.\n$TTL 60\n"
	for _, r := range records {
		b += fmt.Sprintf("%s IN %s\n", r[0], r[1])
	}
	return b
}

// RunSTUN is what the process behind VerbSTUN does: the lab's STUN servers.
func RunSTUN(ctx context.Context) error {
	var sockets []*net.UDPConn
	for _, server := range STUNServers() {
		s, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(server))
		if err != nil {
			return err
		}
		sockets = append(sockets, s)
	}
	return stun.Serve(ctx, sockets...)
}

// STUNServers are the lab's STUN servers, those for IPv4 first.
func STUNServers() []netip.AddrPort {
	var servers []netip.AddrPort
	for _, a := range slices.Concat(topology.STUN4, topology.STUN6) {
		servers = append(servers, netip.AddrPortFrom(a, stun.Port))
	}
	return servers
}

// resolvers waits for the lab's DNS, and starts systemd-resolved on the laptops
// where it is wanted.
func (l *Lab) resolvers(ctx context.Context) error {
	err := eventually(ctx, 20*time.Second, func() error {
		out, err := netns.Run(ctx, topology.RouterNS, "", "dig", "+short", "+time=1", "+tries=1",
			"@"+topology.Internet4.String(), "www.example.test")
		if err == nil && !strings.Contains(out, topology.Internet4.String()) {
			err = fmt.Errorf("answered %q", out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the lab's DNS: %w", err)
	}
	if !l.Record.Options.Resolved {
		return nil
	}
	for _, m := range l.Plan.Of(topology.Laptop) {
		if err := l.startResolved(ctx, m); err != nil {
			return fmt.Errorf("systemd-resolved on %s: %w", m.Name, err)
		}
	}
	return nil
}

func (l *Lab) startResolved(ctx context.Context, m topology.Machine) error {
	for _, p := range []struct {
		name  string
		argv  []string
		ready string // file that says that it serves
	}{
		{"dbus-" + m.Name, machine.SystemBus, "/run/dbus/system_bus_socket"},
		{"resolved-" + m.Name, machine.ResolvedService, "/run/systemd/resolve/stub-resolv.conf"},
	} {
		if _, err := l.start(p.name, m.Name, nil, p.argv); err != nil {
			return err
		}
		if err := eventually(ctx, 15*time.Second, func() error {
			return l.onMachine(ctx, m.Name, "", "test", "-e", p.ready)
		}); err != nil {
			return fmt.Errorf("%w (see %s)", err, l.State.Log(p.name))
		}
	}
	// The link's own resolver, as DHCP would have set it.
	for _, argv := range machine.ResolvedLink(m) {
		if err := l.onMachine(ctx, m.Name, "", argv...); err != nil {
			return err
		}
	}
	return nil
}
