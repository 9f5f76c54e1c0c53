package osdns

import (
	"net/netip"
	"slices"
	"strings"
)

// The addresses at which systemd-resolved serves programs that read
// resolv.conf.
var stubs = []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("127.0.0.54")}

// wiredToResolved says whether programs on this host really ask
// systemd-resolved. That it runs is not enough: many hosts run it and resolve
// without it.
func wiredToResolved(resolvConf, nsswitch []byte) bool {
	if isOurs(resolvConf) {
		return false
	}
	servers := parseResolvConf(resolvConf).servers
	if len(servers) > 0 && !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !slices.Contains(stubs, a) }) {
		return true
	}
	return resolveBeforeDNS(nsswitch)
}

// resolveBeforeDNS says whether the C library asks resolved before it reads
// resolv.conf.
func resolveBeforeDNS(nsswitch []byte) bool {
	for line := range strings.Lines(string(nsswitch)) {
		line, _, _ = strings.Cut(line, "#")
		database, services, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(database) != "hosts" {
			continue
		}
		for _, s := range strings.Fields(services) {
			switch s {
			case "resolve":
				return true
			case "dns":
				return false
			}
		}
	}
	return false
}
