package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"podnet.dev/internal/key"
)

// The bounds of a session's wishes. Those of routes are in package router,
// which everybody's wishes pass.
const (
	MaxAddresses = 8 // of the interface: two families, and those of before a change
	MaxAvoid     = 256
	MaxDomains   = 4096 // one for each namespace of the cluster, and reverse zones
	MaxSearch    = 32
	// MaxAllowedIPs are the routes that package router allows, and the gateway's own.
	MaxAllowedIPs = 1024 + 64
	MaxKeepalive  = 65535 // s; WireGuard's
	// MinMTU is what every IPv4 host takes (RFC 791), MaxMTU what a packet can be.
	MinMTU, MaxMTU = 576, 65535
)

// RefusedError says that a wish is out of all reason, whoever has it.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "podnet-helper refuses: " + e.Why }
func (e *RefusedError) Code() string  { return "conflict" }
func (e *RefusedError) Hint() string {
	return "it takes what a session needs and nothing that would take the machine's own network or names away; docs/programs.md, podnet-helper, has the limits"
}

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// Check looks at what can be told without looking at the host.
func (r Request) Check() error {
	switch r.Verb {
	case Hello, Status, Open, Resolvers, WireGuardState, Close:
		return nil
	case SetWireGuard:
		return r.Device.check()
	case TUN, WireGuard:
		return checkMTU(r.MTU)
	case SetNetwork:
		return r.Network.check()
	case SetDNS:
		return r.DNS.check()
	case ListenDNS, ResetFlows:
		return checkAddresses(r.Addresses)
	}
	return refuse("it knows no %q", r.Verb)
}

func checkMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxMTU {
		return refuse("an MTU of %d, want %d to %d", mtu, MinMTU, MaxMTU)
	}
	return nil
}

func checkAddresses(all []netip.Addr) error {
	if len(all) > MaxAddresses {
		return refuse("%d addresses, at most %d", len(all), MaxAddresses)
	}
	for _, a := range all {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// checkAddress is about an address that would become this machine's.
func checkAddress(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() || a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) {
		return refuse("the address %s", a)
	}
	return nil
}

func (n *Network) check() error {
	switch {
	case n == nil:
		return refuse("a network that is none")
	case len(n.Addresses) == 0:
		return refuse("an interface without an address")
	case len(n.Addresses) > MaxAddresses:
		return refuse("%d addresses, at most %d", len(n.Addresses), MaxAddresses)
	case len(n.Avoid) > MaxAvoid:
		return refuse("%d addresses to avoid, at most %d", len(n.Avoid), MaxAvoid)
	case slices.Contains(n.Avoid, netip.Addr{}):
		return refuse("an address to avoid that is none")
	}
	for _, p := range n.Addresses {
		if !p.IsSingleIP() {
			return refuse("the address %s with a network around it", p)
		}
		if err := checkAddress(p.Addr()); err != nil {
			return err
		}
	}
	if n.MTU == 0 {
		return nil
	}
	return checkMTU(n.MTU)
}

func (d *Device) check() error {
	switch {
	case d == nil:
		return refuse("a device that is none")
	case len(d.AllowedIPs) > MaxAllowedIPs:
		return refuse("%d allowed IPs, at most %d", len(d.AllowedIPs), MaxAllowedIPs)
	case d.Keepalive < 0 || d.Keepalive > MaxKeepalive:
		return refuse("a keepalive of %d s, want 0 to %d", d.Keepalive, MaxKeepalive)
	}
	if _, err := key.ParsePrivate(d.PrivateKey); err != nil {
		return refuse("a device without a key")
	}
	for _, p := range d.AllowedIPs {
		if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() || p.Bits() == 0 {
			return refuse("the allowed IPs %s", p)
		}
	}
	return nil
}

func (d *DNS) check() error {
	switch {
	case d == nil:
		return nil
	case len(d.Servers) == 0:
		return refuse("names without a server")
	case len(d.MatchDomains) > MaxDomains:
		return refuse("%d domains, at most %d", len(d.MatchDomains), MaxDomains)
	case len(d.SearchDomains) > MaxSearch:
		return refuse("%d search domains, at most %d", len(d.SearchDomains), MaxSearch)
	}
	if err := checkAddresses(d.Servers); err != nil {
		return err
	}
	for _, name := range slices.Concat(d.MatchDomains, d.SearchDomains) {
		if err := Domain(name); err != nil {
			return err
		}
	}
	return nil
}

// kept are names that nobody's cluster gets: domains of the world's names that
// everybody relies on, of this machine and its network, and those by which
// programs look for proxies and tunnels (RFC 6761, RFC 6762, RFC 7686; wpad,
// isatap). Country codes are two letters, see Domain.
var kept = []string{
	"com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "arpa", "in-addr.arpa", "ip6.arpa",
	"local", "localhost", "localdomain", "internal", "home.arpa", "lan", "onion", "invalid", "example", "wpad", "isatap",
}

// Domain says what is wrong with a domain that a session wants asked. Names of
// one label are namespaces, and the zone "svc"; so they may be what the internet
// has as a top-level domain, too ("shop"), but none of those above, nor a
// country's. docs/adr/0013 has the reasons.
func Domain(name string) error {
	if len(name) > 253 { // RFC 1035
		return refuse("a domain of %d bytes", len(name))
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if err := checkLabel(l); err != nil {
			return refuse("the domain %q: %v", name, err)
		}
	}
	if slices.Contains(kept, name) || len(labels) == 1 && len(name) == 2 {
		return refuse("the domain %q, which is not a cluster's", name)
	}
	return nil
}

func checkLabel(l string) error {
	if l == "" || len(l) > 63 {
		return errors.New("a label has 1 to 63 bytes")
	}
	if strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return errors.New("a label has small letters, digits and dashes")
	}
	return nil
}
