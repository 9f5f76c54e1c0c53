package machine

import (
	"os"
	"path/filepath"
	"regexp"

	"podnet.dev/e2e/lab/internal/topology"
)

// resolvedFiles lays systemd-resolved's files, unpacked from its packages and
// not installed, over the laptop's own /usr and /etc, and leads names to it.
// The host's resolver is never touched.
func (c Computer) resolvedFiles() error {
	if c.Resolved == "" {
		return nil
	}
	if err := c.overlay("/usr", filepath.Join(c.Resolved, "usr")+":/usr"); err != nil {
		return err
	}
	for _, dir := range []string{"/run/dbus", "/run/systemd", "/etc/systemd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	config, err := os.ReadFile(filepath.Join(c.Resolved, "etc/systemd/resolved.conf"))
	if err != nil {
		return err
	}
	// No server of last resort: the defaults are on the real internet.
	config = append(config, "FallbackDNS=\n"...)
	if err := os.WriteFile("/etc/systemd/resolved.conf", config, 0o644); err != nil {
		return err
	}
	names, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/etc/nsswitch.conf", []byte(useResolved(string(names))), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll("/etc/resolv.conf"); err != nil {
		return err
	}
	return os.Symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
}

var hostsLine = regexp.MustCompile(`(?m)^hosts:.*$`)

// useResolved makes nsswitch.conf ask systemd-resolved for hosts, as its
// package does.
func useResolved(nsswitch string) string {
	return hostsLine.ReplaceAllLiteralString(nsswitch, "hosts:          files resolve [!UNAVAIL=return] dns")
}

// SystemBus and ResolvedService are the services of a laptop with
// systemd-resolved, without systemd itself. The latter gives up being root
// when it has its folder.
var (
	SystemBus       = []string{"dbus-daemon", "--system", "--nofork", "--nopidfile"}
	ResolvedService = []string{"/usr/lib/systemd/systemd-resolved"}
)

// ResolvedLink are the commands that give the laptop's link its resolver, as a
// DHCP client would.
func ResolvedLink(m topology.Machine) [][]string {
	return [][]string{
		{"resolvectl", "dns", "eth0", topology.Internet4.String()},
		{"resolvectl", "domain", "eth0", SearchDomain},
	}
}
