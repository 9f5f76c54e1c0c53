package gateway

import (
	"bufio"
	"io"
	"net/netip"
	"strings"
)

// resolver is what a pod's resolv.conf tells of the cluster.
type resolver struct {
	domain  string           // the cluster's zone, "" when the search list does not tell
	servers []netip.AddrPort // the cluster's own DNS
}

// readResolvConf reads a pod's resolv.conf. kubelet writes its search list as
// NAMESPACE.svc.ZONE, svc.ZONE, ZONE, and then the node's own.
func readResolvConf(r io.Reader) resolver {
	var c resolver
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				c.servers = append(c.servers, netip.AddrPortFrom(a, 53))
			}
		case "search": // the last one counts
			c.domain = zoneOf(words[1:])
		}
	}
	return c
}

func zoneOf(search []string) string {
	for _, s := range search {
		if zone, ok := strings.CutPrefix(strings.TrimSuffix(s, "."), "svc."); ok && zone != "" {
			return strings.ToLower(zone)
		}
	}
	return ""
}
