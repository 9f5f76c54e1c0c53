package gateway

import (
	"net/netip"
	"slices"

	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/virtual"
	"podnet.dev/internal/remap"
)

// mappings are what becomes of spec.virtual, by the Peers' UIDs: of those that have
// one.
func (s snapshot) mappings() map[string]virtual.Mapping {
	var all map[string]virtual.Mapping
	for _, p := range s.peers {
		if v := p.object.Spec.Virtual; len(v) > 0 {
			if all == nil {
				all = map[string]virtual.Mapping{}
			}
			all[p.peer.UID] = virtual.Of(v, slices.Concat(s.ranges, p.peer.Routes))
		}
	}
	return all
}

// mapsOf are the maps of the admitted, by their tunnel addresses.
func mapsOf(admitted []enrol.Admitted, all map[string]virtual.Mapping) map[netip.Addr]remap.Map {
	maps := map[netip.Addr]remap.Map{}
	for _, p := range admitted {
		if m, some := all[p.UID]; some && !m.IsZero() {
			for _, a := range addresses(p) {
				maps[a] = m.Map
			}
		}
	}
	return maps
}
