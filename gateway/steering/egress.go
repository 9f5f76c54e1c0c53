package steering

import (
	"cmp"
	"slices"

	"podnet.dev/internal/key"
)

// leave lists the peers whose users have rules of egress for them, and the agents
// through which their flows leave. Agents are there, and rules in the order of
// age.
func (p *Plan) leave(w World, order []int, laptops map[string]Laptop) {
	type rule struct{ namespace, name string }
	agents := map[rule]key.Public{} // only those of accepted rules
	for _, a := range p.Agents {
		for _, name := range a.Egress {
			agents[rule{a.Namespace, name}] = a.Key
		}
	}
	exits := map[string]Egress{} // by peer
	for _, i := range order {
		o := w.Rules[i]
		if l, ok := laptops[o.Peer]; !o.Egress || !ok || l.User != o.User {
			continue
		}
		exit := exits[o.Peer]
		exit.Peer = o.Peer
		k, named := agents[rule{o.Namespace, o.Name}]
		if !exit.Agent.IsValid() && named && w.Connects != nil && w.Connects(k, o.PodUID) {
			exit.Agent, exit.Rule = k.Address6(), o.Name
		}
		exits[o.Peer] = exit
	}
	for _, exit := range exits {
		p.Egress = append(p.Egress, exit)
	}
	slices.SortFunc(p.Egress, func(x, y Egress) int { return cmp.Compare(x.Peer, y.Peer) })
}
