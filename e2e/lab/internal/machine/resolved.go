package machine

import (
	"path/filepath"

	"podnet.dev/e2e/lab/internal/topology"
)

// resolvedFiles lays systemd-resolved's files, unpacked from its packages and
// not installed, over /usr, and leads /etc/resolv.conf to it. The host's own
// resolver is never touched.
func (c Computer) resolvedFiles() error {
	if c.Resolved == "" {
		return nil
	}
	return c.overlay("/usr", filepath.Join(c.Resolved, "usr")+":/usr")
}

// SystemBus and ResolvedService are the services of a laptop with
// systemd-resolved, without systemd itself.
var (
	SystemBus       = []string{"dbus-daemon", "--system", "--nofork", "--nopidfile"}
	ResolvedService = []string{"setpriv", "--reuid=systemd-resolve", "--regid=systemd-resolve", "--clear-groups",
		"--inh-caps=+net_raw,+net_bind_service,+setpcap", "--ambient-caps=+net_raw,+net_bind_service,+setpcap",
		"/lib/systemd/systemd-resolved"}
)

// ResolvedLink are the commands that give the laptop's link its resolver, as a
// DHCP client would.
func ResolvedLink(m topology.Machine) [][]string {
	return [][]string{
		{"resolvectl", "dns", "eth0", topology.Internet4.String()},
		{"resolvectl", "domain", "eth0", SearchDomain},
	}
}
