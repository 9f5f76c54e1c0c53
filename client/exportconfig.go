package client

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/wgconf"
)

const (
	// mtuExport is what every path carries that IPv6 may take. A client without
	// podnet cuts nothing that is too large for its path.
	mtuExport = mtuLeast
	// keepExport keeps the NAT in front of a device open for what the cluster says
	// first, as wg(8) advises.
	keepExport = 25 * time.Second
)

// exportConfig is what a device without podnet needs, and which gateway it is led
// to. It has that gateway only: WireGuard knows one way for an address.
func exportConfig(m *member, namespace string, resolvers []netip.Addr) (wgconf.Config, v1alpha1.Gateway, error) {
	n := m.network
	gw, at, err := exportEndpoint(m.Peer, m.granted.Status.Gateways, n.inside())
	if err != nil {
		return wgconf.Config{}, gw, err
	}
	peer := wgconf.Peer{Endpoint: at.String(), AllowedIPs: n.inside(), Keepalive: keepExport}
	if err := peer.PublicKey.UnmarshalText([]byte(gw.PublicKey)); err != nil {
		return wgconf.Config{}, gw, fmt.Errorf("the gateway %s published the key %q", gw.Pod, gw.PublicKey)
	}
	c := wgconf.Config{PrivateKey: m.private, MTU: mtuExport, Peers: []wgconf.Peer{peer}}
	for _, a := range n.own {
		c.Addresses = append(c.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	// One of the gateway's addresses: a resolv.conf counts three servers at most.
	for _, a := range slices.Concat([]netip.Addr{reachable(n.dns, n.own)}, resolvers) {
		c.DNS = append(c.DNS, a.String())
	}
	// What a pod has: wg-quick takes words that are no addresses for search domains.
	c.DNS = append(c.DNS, namespace+".svc."+n.domain, "svc."+n.domain, n.domain)
	return c, gw, nil
}

// reachable is the first of dns that is of a family which own has.
func reachable(dns, own []netip.Addr) netip.Addr {
	for _, a := range dns {
		if slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Is4() == a.Is4() }) {
			return a
		}
	}
	return dns[0]
}

// exportEndpoint chooses a gateway that can be reached by UDP and where: an IPv4
// address where there is one, since every network has that. One that lies in the
// tunnel itself is none.
func exportEndpoint(peer string, all []v1alpha1.Gateway, inside []netip.Prefix) (v1alpha1.Gateway, netip.AddrPort, error) {
	for _, gw := range rank(peer, all) {
		endpoints, _ := addresses(gw, nil)
		endpoints = slices.DeleteFunc(endpoints, func(a netip.AddrPort) bool {
			return slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(a.Addr()) })
		})
		if i := slices.IndexFunc(endpoints, func(a netip.AddrPort) bool { return a.Addr().Is4() }); i >= 0 {
			return gw, endpoints[i], nil
		}
		if len(endpoints) > 0 {
			return gw, endpoints[0], nil
		}
	}
	return v1alpha1.Gateway{}, netip.AddrPort{}, &localapi.Error{Code: localapi.CodeUnreachable, Status: http.StatusConflict,
		Message: "the gateway publishes no UDP endpoint, and a device without podnet has no other way to it",
		Hint:    "an administrator publishes one: podnet install --node-port 31820, --udp-service LoadBalancer or --advertise ADDRESS:PORT"}
}

// exportText is the file for the device, with a note of what it is.
func exportText(c wgconf.Config, e localapi.Export) string {
	open := "all namespaces"
	if !e.AllNamespaces {
		open = "namespace " + strings.Join(e.Namespaces, ", ")
	}
	return fmt.Sprintf("# podnet: %s, %s of %s, until %s unless it is renewed.\n# podnet export revoke %s ends it.\n%s",
		e.Device, open, e.Server, e.ExpiresAt.UTC().Format(time.RFC3339), e.Name, c.Text())
}

// exportRenewal is how often an export is renewed: so often that a laptop which is
// shut leaves the device nearly all of a long lease, and three times in a short one.
func exportRenewal(lease time.Duration) time.Duration {
	return min(lease/3, max(lease/24, time.Minute))
}

// exportTrouble says what keeps an export from working, as its Peer tells: "" when
// nothing does.
func exportTrouble(p *v1alpha1.Peer, name, pod, key string) (text, hint string) {
	if reason, message := cut(p); reason != "" {
		return "the gateway does not let it in: " + oneSentence(message), ""
	}
	i := slices.IndexFunc(p.Status.Gateways, func(g v1alpha1.Gateway) bool { return g.Pod == pod })
	switch {
	case i < 0:
		return "its gateway " + pod + " is not there", "kubectl -n " + p.Namespace + " get pods"
	case p.Status.Gateways[i].PublicKey != key:
		return "its gateway " + pod + " has started anew, and has another key than the configuration was made with",
			"on the device, put PublicKey = " + p.Status.Gateways[i].PublicKey + " in place of the one in [Peer]; or podnet export revoke " + name + ", and export it again"
	}
	return "", ""
}

func oneSentence(s string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
}
