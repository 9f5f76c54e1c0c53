package osdns

import (
	"context"
	"net/netip"
	"strings"
)

// Way is one of the ways by which programs of a host get addresses for a name,
// and what it gave.
type Way struct {
	// Programs says whose way it is: "programs that use the C library".
	Programs string
	Addrs    []netip.Addr
	Err      error
}

// LookUp asks for the IPv4 addresses of a whole name by each way that programs
// of this host have. That the host's settings are ours does not say that anybody
// follows them: nsswitch.conf, a firewall or another VPN may have other plans.
func LookUp(ctx context.Context, opts Options, name string) []Way {
	return lookUp(ctx, opts.withDefaults(), strings.TrimSuffix(name, ".")+".")
}
