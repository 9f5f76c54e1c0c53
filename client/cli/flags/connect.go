package flags

import (
	"math"
	"time"

	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

// Connect are those that say what is asked for. In a pipeline, as environ tells, the lease
// is short unless they say otherwise.
func Connect(f *pflag.FlagSet, environ []string, req *localapi.ConnectRequest, lease *time.Duration) {
	f.StringSliceVarP(&req.Namespaces, "namespace", "n", nil, "namespace to open, repeatable; the first one's names need no suffix (default: the context's)")
	f.BoolVarP(&req.AllNamespaces, "all-namespaces", "A", false, "open every namespace")
	f.StringVar(&req.Path, "path", "auto", "how to reach the gateway: auto, udp or apiserver")
	f.StringVar(&req.Addresses, "addresses", "auto", "at which addresses to see the cluster: its own (direct), others (virtual), or others where something of this machine has its own (auto)")
	f.StringVar(&req.GatewayNamespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	f.StringSliceVar(&req.AlsoRoutes, "also-route", nil, "prefix beside the cluster to reach through it, repeatable")
	f.StringSliceVar(&req.AlsoDomains, "also-domain", nil, "domain whose names the cluster's DNS is asked for, repeatable")
	f.StringSliceVar(&req.NeverRoutes, "never-route", nil, "prefix to keep out of the tunnel, repeatable")
	leaseFlags(f, lease, defaultLease(environ))
}

// Device is for sessions that have an interface of the host's.
func Device(f *pflag.FlagSet, req *localapi.ConnectRequest) {
	f.StringVar(&req.Device, "device", "auto", "whose WireGuard to use: podnet's own (userspace), the Linux kernel's (kernel), or podnet's own (auto)")
}

// CheckConnect finds what can be known to be wrong without a cluster.
func CheckConnect(req *localapi.ConnectRequest, lease time.Duration) error {
	req.LeaseSeconds = int32(min(lease/time.Second, math.MaxInt32))
	return req.Check()
}
