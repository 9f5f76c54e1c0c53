package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"k8s.io/client-go/rest"

	"podnet.dev/deploy"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/ground"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/limits"
)

// The gateway's ports, which laptops and manifests rely on.
const (
	// WireGuardPort is UDP, on all addresses.
	WireGuardPort = 51820
	// StreamPort is TCP, on loopback: only a port-forward gets there.
	StreamPort = 51821
	// HTTPPort serves probes and metrics.
	HTTPPort = 8081
)

// Options are what a gateway must be told. Environment fills most of them.
type Options struct {
	// REST is how to reach the API server.
	REST *rest.Config
	// Namespace, Pod and PodUID say who this gateway is, Node where it runs,
	// PodIPs at which addresses.
	Namespace, Pod, PodUID, Node string
	PodIPs                       []netip.Addr
	// DNSDomain is the cluster's zone; "" reads it from /etc/resolv.conf.
	DNSDomain string
	// ClusterDNS are the cluster's own DNS servers; nil reads them from
	// /etc/resolv.conf.
	ClusterDNS []netip.AddrPort
	// Advertise lists UDP endpoints (ip:port) that lead here, beside those of
	// Services.
	Advertise []string
	// PodCIDRs are the ranges of pods that laptops are told to route, in place
	// of what nodes declare, for the families they are of. They open nothing.
	PodCIDRs []string
	// STUN lists servers (host:port) that tell how the cluster's NAT shows the
	// WireGuard port to the world. Laptops are told of them, too.
	STUN []string
	// Limits bound what users and the gateway have; the zero value is the default.
	Limits limits.Limits
	// UserMetrics puts users' names into the metrics, which every pod may read.
	UserMetrics bool
	// Enrol shapes enrolment; the zero value is the default, within Limits.
	Enrol enrol.Config
	Log   *slog.Logger

	// The ports, for tests that run several gateways on one machine. Zero
	// means the constants above, negative means any free one.
	WireGuardPort, StreamPort, HTTPPort int
}

// Environment fills Options from what the manifests put into the pod.
func Environment() (Options, error) {
	o, err := Pod()
	if err != nil {
		return o, err
	}
	if o.REST, err = rest.InClusterConfig(); err != nil {
		return o, fmt.Errorf("read the pod's API credentials: %w", err)
	}
	return o, nil
}

// Pod fills of Options who the pod is.
func Pod() (Options, error) {
	o := Options{
		Namespace: os.Getenv("POD_NAMESPACE"), Pod: os.Getenv("POD_NAME"), PodUID: os.Getenv("POD_UID"), Node: os.Getenv("NODE_NAME"),
	}
	var missing []string
	for _, name := range []string{"POD_NAMESPACE", "POD_NAME", "POD_UID"} {
		if os.Getenv(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return o, fmt.Errorf("the environment lacks %s\nhint: in a cluster the manifests of podnet install set these; elsewhere use --wireguard-config FILE", strings.Join(missing, ", "))
	}
	var err error
	o.PodIPs, err = Addresses("POD_IPS")
	return o, err
}

// Addresses reads those in a variable of the environment, with commas between them.
func Addresses(variable string) (all []netip.Addr, err error) {
	for s := range strings.SplitSeq(os.Getenv(variable), ",") {
		if s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.REST == nil {
		return o, errors.New("no API server is configured")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Namespace == "" {
		o.Namespace = deploy.DefaultNamespace
	}
	for _, e := range o.Advertise {
		if _, err := netip.ParseAddrPort(e); err != nil {
			return o, fmt.Errorf("advertise %q: want ip:port: %w", e, err)
		}
	}
	for _, text := range o.PodCIDRs {
		if _, err := deploy.ParseRange(text); err != nil {
			return o, fmt.Errorf("pod CIDR %w", err)
		}
	}
	for _, s := range o.STUN {
		if err := deploy.CheckSTUN(s); err != nil {
			return o, err
		}
	}
	if o.Limits == (limits.Limits{}) {
		o.Limits = limits.Default()
	}
	if !o.Enrol.Pool.IsValid() {
		o.Enrol = enrol.DefaultConfig()
		o.Enrol.MaxPeers, o.Enrol.MaxPerUser = o.Limits.Peers, o.Limits.UserPeers
	}
	for p, d := range map[*int]int{&o.WireGuardPort: WireGuardPort, &o.StreamPort: StreamPort, &o.HTTPPort: HTTPPort} {
		switch {
		case *p == 0:
			*p = d
		case *p < 0:
			*p = 0
		}
	}
	return o, nil
}

// tunnelRanges are the addresses of peers.
func (o Options) tunnelRanges() []netip.Prefix {
	return []netip.Prefix{o.Enrol.Pool, key.Prefix6, key.RelayPrefix6}
}

// world is what package world must be told.
func (o Options) world() world.Config {
	return world.Config{
		Namespace: o.Namespace, Pod: o.Pod, PodUID: o.PodUID, Node: o.Node, PodIPs: o.PodIPs, DNSDomain: o.DNSDomain,
		DNS: []netip.Addr{ground.Service4, ground.Service6}, Tunnel: o.tunnelRanges(), WireGuardPort: WireGuardPort,
		Advertise: o.Advertise, PodCIDRs: o.PodCIDRs, STUN: o.STUN, Log: o.Log,
	}
}
