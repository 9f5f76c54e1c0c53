package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// What lies beside the cluster: networks that it reaches and a laptop does not, and
// domains that its DNS server knows. An administrator has allowed each to whom it
// is granted; the cluster's own addresses are no part of it, however wide it is.

// SetRanges says which networks are the cluster's own, beside what single objects
// tell. Until it was called nothing lies beside the cluster.
func (e *Engine) SetRanges(own []netip.Prefix) {
	own = slices.Clone(own)
	e.ranges.Store(&own)
}

// beside reports whether an address of which the table knows nothing is one that
// was granted.
func (e *Engine) beside(t *table, r *rights, a netip.Addr) bool {
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	own := e.ranges.Load()
	return slices.ContainsFunc(r.routes, has) && own != nil && !slices.ContainsFunc(*own, has) && !t.isPodAddress(a)
}

// Beside reports whether the peer at a tunnel address may reach an address beside
// the cluster.
func (e *Engine) Beside(peer, a netip.Addr) bool {
	r := (*e.grants.Load())[peer.Unmap()]
	if a = a.Unmap(); r == nil || e.never(a) {
		return false
	}
	t := e.table.Load()
	_, known := t.at(a)
	return !known && e.beside(t, r, a)
}

// MayAsk reports whether the peer at a tunnel address may ask the cluster's DNS
// server for a name, in lower case and with its final dot.
func (e *Engine) MayAsk(peer netip.Addr, name string) bool {
	r := (*e.grants.Load())[peer.Unmap()]
	return r != nil && slices.ContainsFunc(r.domains, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}
