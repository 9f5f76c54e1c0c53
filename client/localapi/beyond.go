package localapi

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Beyond is what a session has beside the cluster, and what of the cluster it leaves
// alone.
type Beyond struct {
	// AlsoRoutes are prefixes that the cluster reaches and this machine does not,
	// AlsoDomains domains whose names the cluster's DNS server knows. An administrator
	// allows each of them.
	AlsoRoutes  []string `json:"alsoRoutes,omitempty"`
	AlsoDomains []string `json:"alsoDomains,omitempty"`
	// NeverRoutes are prefixes that stay out of the tunnel, whatever the cluster has
	// there.
	NeverRoutes []string `json:"neverRoutes,omitempty"`
}

// maxBeyond is how many of each kind a cluster takes.
const maxBeyond = 8

var domainName = regexp.MustCompile(`^([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Tidy spells everything as a cluster's administrator does, and finds what can be
// known to be wrong without a cluster.
func (b *Beyond) Tidy() error {
	b.AlsoRoutes, b.AlsoDomains, b.NeverRoutes = slices.Clone(b.AlsoRoutes), slices.Clone(b.AlsoDomains), slices.Clone(b.NeverRoutes)
	if len(b.AlsoRoutes) > maxBeyond || len(b.AlsoDomains) > maxBeyond {
		return usage(fmt.Sprintf("%d prefixes and %d domains beside the cluster: %d of each at most", len(b.AlsoRoutes), len(b.AlsoDomains), maxBeyond), "a wider prefix may have several of them in it")
	}
	for i, text := range b.AlsoRoutes {
		p, err := prefix("--also-route", text)
		if err != nil {
			return err
		}
		if p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 32 {
			return usage(fmt.Sprintf("--also-route %s: wider than /8, or /32 of IPv6", text), "podnet connect --also-route 10.20.0.0/16")
		}
		b.AlsoRoutes[i] = p.String()
	}
	for i, text := range b.AlsoDomains {
		d := strings.ToLower(strings.TrimSuffix(text, "."))
		if len(d) > 253 || !domainName.MatchString(d) || strings.HasSuffix(d, ".arpa") {
			return usage(fmt.Sprintf("--also-domain %q: want a domain of two labels or more", text), "podnet connect --also-domain corp.internal")
		}
		b.AlsoDomains[i] = d
	}
	for i, text := range b.NeverRoutes {
		p, err := prefix("--never-route", text)
		if err != nil {
			return err
		}
		b.NeverRoutes[i] = p.String()
	}
	return nil
}

func prefix(flag, text string) (netip.Prefix, error) {
	hint := "podnet connect " + flag + " 10.20.0.0/16"
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, usage(fmt.Sprintf("%s %q: want a prefix", flag, text), hint)
	}
	if p != p.Masked() {
		return p, usage(fmt.Sprintf("%s %s has bits behind its length", flag, text), "did you mean "+p.Masked().String()+"?")
	}
	return p, nil
}

// Never are the prefixes that stay out of the tunnel, after Tidy.
func (b Beyond) Never() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range b.NeverRoutes {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

func (b Beyond) same(o Beyond) bool {
	equal := func(a, b []string) bool {
		return slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b))))
	}
	return equal(b.AlsoRoutes, o.AlsoRoutes) && equal(b.AlsoDomains, o.AlsoDomains) && equal(b.NeverRoutes, o.NeverRoutes)
}
