// Package virtual says at which virtual addresses a laptop has the cluster: what becomes
// of a Peer's spec.virtual. It is pure: the pairs and what is published decide, so all
// gateways map alike. Nothing is granted here; policy is asked about real addresses.
package virtual

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/remap"
)

// Mapping is what becomes of a Peer's spec.virtual.
type Mapping struct {
	remap.Map
	// Refused says why some of it is not mapped; "" when all is.
	Refused string
}

// Of is what becomes of a spec.virtual in a gateway that publishes these ranges. Pairs
// that contradict each other are all refused. One that is about nothing of the
// cluster's is refused alone: what is published shrinks when a node goes, which is no
// reason to take the other addresses away.
func Of(spec []podnet.VirtualPrefix, published []netip.Prefix) Mapping {
	var pairs []remap.Pair
	var foreign []string
	for _, v := range spec {
		p, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			return Mapping{Refused: sentence(err)}
		}
		pairs = append(pairs, p)
	}
	if _, err := remap.Parse(pairs); err != nil {
		return Mapping{Refused: sentence(err)}
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
		return Mapping{Map: m}
	}
	return Mapping{m, fmt.Sprintf("Not mapped: %s: nothing of the cluster's pods and Services.", strings.Join(foreign, ", "))}
}

// Told is the map as status tells it.
func (m Mapping) Told() []podnet.VirtualPrefix {
	var all []podnet.VirtualPrefix
	for _, p := range m.Pairs() {
		all = append(all, podnet.VirtualPrefix{Real: p.Real.String(), Virtual: p.Virtual.String()})
	}
	return all
}

func sentence(err error) string { return "Nothing is mapped: " + err.Error() + "." }
