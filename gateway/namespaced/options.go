// Package namespaced is the gateway of one namespace, for those who may install
// nothing in the cluster but what the role edit allows in that namespace. It has no
// credentials and asks the Kubernetes API nothing. Its peers enrol over a port-forward
// to the loopback of its pod (internal/desk); where they may go, and by which names,
// it learns from the cluster's own DNS server (dnsproxy/claims).
//
// Who is admitted, and for how long, gateway/enrol decides, as it does for the whole
// cluster's gateway.
package namespaced

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"podnet.dev/deploy"
	"podnet.dev/gateway"
	"podnet.dev/gateway/enrol"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/limits"
)

// maxPeers bounds the live peers. Nobody vouches for the names of users here, so
// there is no limit for each.
const maxPeers = 250

// Options are what the gateway must be told. Environment fills most of them.
type Options struct {
	// Options say who the gateway is, in which zone, and how it is reached; REST and
	// STUN count for nothing here. What Limits say of a user is each peer's: nobody
	// vouches for users.
	gateway.Options
	// HostIPs are the addresses of the node, which no peer reaches.
	HostIPs []netip.Addr
	// APIServer is the API server's Service, as every pod is told it. Its address is
	// the first of the Services' range.
	APIServer netip.Addr
	// ServiceCIDRs are the ranges of Services for laptops to route, in place of what
	// APIServer tells, for the families they are of.
	ServiceCIDRs []string
	// NodePort leads to the WireGuard port at the node's addresses; 0: none does.
	NodePort int
	// DeskPort is internal/desk's, on loopback. As with the other ports 0 means the
	// usual one, negative any free one.
	DeskPort int
}

// Environment fills Options from what the manifests put into the pod.
func Environment() (o Options, err error) {
	if o.Options, err = gateway.Pod(); err != nil {
		return o, err
	}
	if o.HostIPs, err = gateway.Addresses("HOST_IPS"); err != nil {
		return o, err
	}
	if s := os.Getenv("KUBERNETES_SERVICE_HOST"); s != "" {
		if o.APIServer, err = netip.ParseAddr(s); err != nil {
			return o, fmt.Errorf("KUBERNETES_SERVICE_HOST: %w", err)
		}
	}
	return o, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Namespace == "" {
		return o, errors.New("it is not said of which namespace this is the gateway")
	}
	for _, e := range o.Advertise {
		if _, err := netip.ParseAddrPort(e); err != nil {
			return o, fmt.Errorf("advertise %q: want ip:port: %w", e, err)
		}
	}
	for kind, texts := range map[string][]string{"pod": o.PodCIDRs, "service": o.ServiceCIDRs} {
		for _, text := range texts {
			if _, err := deploy.ParseRange(text); err != nil {
				return o, fmt.Errorf("%s CIDR %w", kind, err)
			}
		}
	}
	if o.Limits == (limits.Limits{}) {
		o.Limits = limits.Default()
	}
	if !o.Enrol.Pool.IsValid() {
		o.Enrol = enrol.DefaultConfig()
		o.Enrol.MaxPeers = min(maxPeers, o.Limits.Peers)
		o.Enrol.MaxPerUser, o.Enrol.Keep = o.Enrol.MaxPeers, keep
	}
	o.FindDNS()
	if len(o.ClusterDNS) == 0 {
		return o, errors.New("resolv.conf names no DNS server of the cluster's, which is what tells whose an address is")
	}
	for p, d := range map[*int]int{&o.WireGuardPort: gateway.WireGuardPort, &o.StreamPort: gateway.StreamPort, &o.HTTPPort: gateway.HTTPPort, &o.DeskPort: desk.Port} {
		switch {
		case *p == 0:
			*p = d
		case *p < 0:
			*p = 0
		}
	}
	return o, nil
}
