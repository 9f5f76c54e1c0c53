package gateway

import (
	"net/netip"
	"slices"

	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/virtual"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/remap"
)

// mappings are what becomes of spec.virtual, by the Peers' UIDs: of those that have
// one.
func mappings(s world.Snapshot) map[string]virtual.Mapping {
	var all map[string]virtual.Mapping
	for _, p := range s.Peers {
		if v := p.Object.Spec.Virtual; len(v) > 0 {
			if all == nil {
				all = map[string]virtual.Mapping{}
			}
			all[p.Peer.UID] = virtual.Of(v, slices.Concat(s.Ranges, p.Peer.Routes))
		}
	}
	return all
}

// mapsOf are the maps of the admitted, by their tunnel addresses.
func mapsOf(admitted []enrol.Admitted, all map[string]virtual.Mapping) map[netip.Addr]remap.Map {
	maps := map[netip.Addr]remap.Map{}
	for _, p := range admitted {
		if m, some := all[p.UID]; some && !m.IsZero() {
			for _, a := range p.Addresses() {
				maps[a] = m.Map
			}
		}
	}
	return maps
}
