package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/internal/remap"
)

// mapping is what becomes of a Peer's spec.virtual.
type mapping struct {
	remap.Map
	// refused says why some of it is not mapped; "" when all is.
	refused string
}

// mappingOf is pure: the pairs and what is published decide, so all gateways map
// alike. Pairs that contradict each other are all refused. One that is about
// nothing of the cluster's is refused alone: what is published shrinks when a node
// goes, which is no reason to take the other addresses away. Nothing is granted
// here; policy is asked about real addresses.
func mappingOf(spec []podnet.VirtualPrefix, published []netip.Prefix) mapping {
	var pairs []remap.Pair
	var foreign []string
	for _, v := range spec {
		p, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			return mapping{refused: sentence(err)}
		}
		pairs = append(pairs, p)
	}
	if _, err := remap.Parse(pairs); err != nil {
		return mapping{refused: sentence(err)}
	}
	pairs = slices.DeleteFunc(pairs, func(p remap.Pair) bool {
		about := slices.ContainsFunc(published, p.Real.Overlaps)
		if !about {
			foreign = append(foreign, p.Real.String())
		}
		return !about
	})
	m, _ := remap.Parse(pairs) // fewer of what was fine
	if foreign == nil {
		return mapping{Map: m}
	}
	return mapping{m, fmt.Sprintf("Not mapped: %s: nothing of the cluster's pods and Services.", strings.Join(foreign, ", "))}
}

// MapVirtual is what becomes of a Peer's spec.virtual in a gateway that publishes these
// ranges: the map, as status tells it, and why some of it is not mapped.
func MapVirtual(spec []podnet.VirtualPrefix, published []netip.Prefix) (_ remap.Map, told []podnet.VirtualPrefix, refused string) {
	m := mappingOf(spec, published)
	return m.Map, m.virtual(), m.refused
}

func sentence(err error) string { return "Nothing is mapped: " + err.Error() + "." }

// mappings are what becomes of spec.virtual, by the Peers' UIDs: of those that have
// one.
func (s snapshot) mappings() map[string]mapping {
	var all map[string]mapping
	for _, p := range s.peers {
		if v := p.object.Spec.Virtual; len(v) > 0 {
			if all == nil {
				all = map[string]mapping{}
			}
			all[p.peer.UID] = mappingOf(v, slices.Concat(s.ranges, p.peer.Routes))
		}
	}
	return all
}

// mapsOf are the maps of the admitted, by their tunnel addresses.
func mapsOf(admitted []enrol.Admitted, all map[string]mapping) map[netip.Addr]remap.Map {
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

// virtual is the map as status tells it.
func (m mapping) virtual() []podnet.VirtualPrefix {
	var all []podnet.VirtualPrefix
	for _, p := range m.Pairs() {
		all = append(all, podnet.VirtualPrefix{Real: p.Real.String(), Virtual: p.Virtual.String()})
	}
	return all
}
