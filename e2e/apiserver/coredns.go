package apiserver

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// CoreDNS runs the lab's CoreDNS for s on loopback until the test ends, and
// gives the address where it answers by UDP and TCP. The plugin kubernetes
// serves zone and the reverse zones with the given options; plugins are lines
// of other plugins of the same server.
func (s *Server) CoreDNS(t testing.TB, zone string, options, plugins []string) netip.AddrPort {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, s.config.Host, s.config.BearerToken))
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(freePorts(t, 1)[0]))
	write(t, dir, "Corefile", fmt.Sprintf(`.:%d {
    bind %s
    kubernetes %s in-addr.arpa ip6.arpa {
        kubeconfig %s
        %s
    }
    %s
}
`, addr.Port(), addr.Addr(), zone, filepath.Join(dir, "kubeconfig"), strings.Join(options, "\n        "), strings.Join(plugins, "\n    ")))
	Run(t, program(t, "coredns"), "-conf", filepath.Join(dir, "Corefile"))
	Eventually(t, 30*time.Second, "CoreDNS listens", func() error {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return addr
}
