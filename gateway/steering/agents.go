package steering

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// agentID is an agent in a pod.
type agentID struct {
	key key.Public
	pod podID
}

const (
	// farewell is how long an agent is told that it has no rules any more. By
	// then it has ended, as it has heard of no gateway for that long otherwise.
	farewell = 60 * time.Second
	// maxEnding bounds the agents that are there only to be told that they are
	// to end. The others notice by themselves.
	maxEnding = 256
)

// appoint names the agents: in each pod the one, of those that are connected,
// whose key the oldest rule has. The other keys belong to agents that are to end,
// and so do those that a rule has named until a moment ago. While none is
// connected, whichever comes is welcome: the key of an agent that has died stays
// in the rule of a laptop that sleeps. A rule of egress has no say in this: it has
// the agent that it names, whether that is the pod's or not.
func (b *Book) appoint(now time.Time, w World, pods []*pod, laptops map[string]Laptop, p *Plan) {
	taken := map[netip.Addr]bool{}
	for _, l := range laptops {
		taken[l.Key.Address6()] = true
	}
	named := map[agentID]bool{}
	var ending []agentID // the more important first
	for _, at := range pods {
		var ids []agentID // by the age of the rules that name them
		leaving := map[agentID][]string{}
		for _, i := range at.rules {
			id := agentID{w.Rules[i].Agent, at.id}
			switch {
			case id.key.IsZero() || taken[id.key.Address6()]:
			case w.Rules[i].Egress:
				leaving[id] = append(leaving[id], w.Rules[i].Name)
			case !named[id]:
				named[id], ids = true, append(ids, id)
			}
		}
		connected := slices.IndexFunc(ids, func(id agentID) bool { return w.Connects != nil && w.Connects(id.key, id.pod.uid) })
		for i, id := range ids {
			if connected >= 0 && i != connected {
				if leaving[id] == nil {
					ending = append(ending, id)
				}
				continue
			}
			a := id.agent(w)
			a.Chosen, a.Rules, a.Egress = true, rulesOf(w, at, laptops), leaving[id]
			delete(leaving, id)
			p.Agents = append(p.Agents, a)
		}
		for id, rules := range leaving {
			named[id] = true
			a := id.agent(w)
			a.Egress = rules
			p.Agents = append(p.Agents, a)
		}
	}
	ending = append(ending, b.remember(now, named, taken, p)...)
	for i, id := range ending {
		if i < maxEnding {
			p.Agents = append(p.Agents, id.agent(w))
		} else {
			delete(b.told, id)
		}
	}
	slices.SortFunc(p.Agents, func(x, y Agent) int {
		return cmp.Or(bytes.Compare(x.Key[:], y.Key[:]), cmp.Compare(x.PodUID, y.PodUID), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod))
	})
}

// remember notes who is named, and returns who was and is not any more, the last
// first.
func (b *Book) remember(now time.Time, named map[agentID]bool, taken map[netip.Addr]bool, p *Plan) []agentID {
	for id := range named {
		b.told[id] = time.Time{}
	}
	var gone []agentID
	for id, until := range b.told {
		if named[id] {
			continue
		}
		if until.IsZero() {
			until = now.Add(farewell)
			b.told[id] = until
		}
		if !now.Before(until) || taken[id.key.Address6()] {
			delete(b.told, id)
			continue
		}
		p.wake(until)
		gone = append(gone, id)
	}
	slices.SortFunc(gone, func(x, y agentID) int {
		return cmp.Or(b.told[y].Compare(b.told[x]), bytes.Compare(x.key[:], y.key[:]), cmp.Compare(x.pod.uid, y.pod.uid),
			cmp.Compare(x.pod.namespace, y.pod.namespace), cmp.Compare(x.pod.name, y.pod.name))
	})
	return gone
}

func (id agentID) agent(w World) Agent {
	a := Agent{Key: id.key, PodUID: id.pod.uid, Namespace: id.pod.namespace, Pod: id.pod.name}
	if w.PodAddrs != nil {
		a.Addrs = slices.SortedFunc(slices.Values(w.PodAddrs(id.pod.uid)), netip.Addr.Compare)
	}
	return a
}

// rulesOf are a pod's rules as its agent is told them.
func rulesOf(w World, at *pod, laptops map[string]Laptop) []control.Rule {
	rules := make([]control.Rule, 0, len(at.rules))
	for _, i := range at.rules {
		o := w.Rules[i]
		if o.Egress {
			continue
		}
		rules = append(rules, control.Rule{Rule: o.Steer, Laptop: laptops[o.Peer].Key.RelayAddress6(), RelayPort: o.RelayPort})
	}
	return rules
}

// tie lists the ways that the agents' rules need.
func (p *Plan) tie() {
	for _, a := range p.Agents {
		at := a.Key.Address6()
		for _, r := range a.Rules {
			p.Ties = append(p.Ties, Tie{at, r.Laptop, r.RelayPort, r.Protocol}, Tie{at, r.Laptop, control.LivePort, steer.TCP})
		}
	}
	slices.SortFunc(p.Ties, func(x, y Tie) int {
		return cmp.Or(x.Agent.Compare(y.Agent), x.Laptop.Compare(y.Laptop), cmp.Compare(x.Proto, y.Proto), cmp.Compare(x.Port, y.Port))
	})
	p.Ties = slices.Compact(p.Ties)
}
