package relay

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// table is who may send what where. It is never changed, only replaced.
type table struct {
	addr  netip.Addr // ours; the zero Addr: none yet
	rules []Rule     // by name
	ports map[portKey]int
	// agents are those of all rules, in order.
	agents []netip.Addr
}

type portKey struct {
	proto uint8
	port  uint16
}

func newTable(addr netip.Addr, rules []Rule) *table {
	t := &table{addr: addr, rules: slices.Clone(rules), ports: map[portKey]int{}}
	slices.SortFunc(t.rules, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	for i, r := range t.rules {
		k := portKey{packet.TCP, r.Port}
		if r.Protocol == steer.UDP {
			k.proto = packet.UDP
		}
		t.ports[k] = i
		t.rules[i].Agents = maps.Clone(r.Agents)
		for a := range r.Agents {
			t.agents = append(t.agents, a)
		}
	}
	slices.SortFunc(t.agents, netip.Addr.Compare)
	t.agents = slices.Compact(t.agents)
	return t
}

// rule returns the rule whose traffic a packet is; nil: none, or src is no agent
// or gateway of it.
func (t *table) rule(proto uint8, src netip.Addr, dst netip.AddrPort) *Rule {
	i, ok := t.ports[portKey{proto, dst.Port()}]
	if !ok || dst.Addr() != t.addr {
		return nil
	}
	if _, ok := t.rules[i].Agents[src]; !ok && !slices.Contains(t.rules[i].gateways, src) {
		return nil
	}
	return &t.rules[i]
}

// live says that a packet is of an agent's live connection.
func (t *table) live(src netip.Addr, dst netip.AddrPort) bool {
	return dst.Port() == control.LivePort && dst.Addr() == t.addr && t.known(src)
}

func (t *table) known(agent netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(t.agents, agent, netip.Addr.Compare)
	return ok
}

// has says that there is a rule of a name.
func (t *table) has(name string) bool {
	return slices.ContainsFunc(t.rules, func(r Rule) bool { return r.Name == name })
}

// podUID is where an agent has to be.
func (t *table) podUID(agent netip.Addr) string {
	for i := range t.rules {
		if p, ok := t.rules[i].Agents[agent]; ok {
			return p.UID
		}
	}
	return ""
}

// byObject finds the rule that has the name object in an agent's pod.
func (t *table) byObject(agent netip.Addr, object string) (*Rule, Pod) {
	for i := range t.rules {
		if p, ok := t.rules[i].Agents[agent]; ok && p.Object == object {
			return &t.rules[i], p
		}
	}
	return nil, Pod{}
}
