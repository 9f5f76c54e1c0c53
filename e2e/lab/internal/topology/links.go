package topology

import (
	"fmt"
	"net/netip"
)

// Batch is input for "ip -n NS -batch -".
type Batch struct {
	NS    string
	Lines []string
}

// Interfaces of an edge and of a machine. In the router every link is named
// after its machine.
const (
	edgeInside = "lan"
	EdgeUp     = "uplink" // towards the router
	EdgeWire   = "wire"   // towards the router, through the user-space wire
	machineIf  = "eth0"
)

// RouterLink is the router's interface towards a machine.
func RouterLink(machine string) string { return machine }

// RouterWire is the router's interface towards a machine while a user-space
// wire carries its packets.
func RouterWire(machine string) string { return "w-" + machine }

// Links are the commands that lay every link, address and route, for
// namespaces that exist and have nothing yet. nodad: the lab has no duplicate
// addresses, and waiting for their detection costs seconds.
func (l Lab) Links() []Batch {
	router := Batch{NS: RouterNS}
	if l.Options.Cluster == "" {
		router.Lines = internet()
	}
	var batches []Batch
	for _, m := range l.Machines {
		edge := Batch{NS: m.EdgeNS(), Lines: []string{
			"link set lo up",
			fmt.Sprintf("link add %s type veth peer name %s netns %s", edgeInside, machineIf, m.NS()),
			fmt.Sprintf("link add %s type veth peer name %s netns %s", EdgeUp, RouterLink(m.Name), RouterNS),
			addr(m.GW4, m.LAN4, edgeInside), addr(m.GW6, m.LAN6, edgeInside),
			addr(m.Public4, m.Link4, EdgeUp), addr(m.Public6, m.Link6, EdgeUp),
			"link set " + edgeInside + " up", "link set " + EdgeUp + " up",
			fmt.Sprintf("route add default via %s", m.Up4),
			fmt.Sprintf("route add ::/0 via %s", m.Up6),
		}}
		own := Batch{NS: m.NS(), Lines: []string{
			"link set lo up",
			addr(m.Addr4, m.LAN4, machineIf), addr(m.Addr6, m.LAN6, machineIf),
			"link set " + machineIf + " up",
			fmt.Sprintf("route add default via %s", m.GW4),
			fmt.Sprintf("route add ::/0 via %s", m.GW6),
		}}
		name := RouterLink(m.Name)
		router.Lines = append(router.Lines,
			addr(m.Up4, m.Link4, name), addr(m.Up6, m.Link6, name), "link set "+name+" up")
		for _, p := range m.behind() {
			router.Lines = append(router.Lines, fmt.Sprintf("route add %s via %s", p, m.public(p)))
		}
		for _, p := range m.pods() {
			edge.Lines = append(edge.Lines, fmt.Sprintf("route add %s via %s", p, m.own(p)))
		}
		batches = append(batches, edge, own)
	}
	return append(batches, router)
}

// internet are the router's own addresses.
func internet() []string {
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/32 dev lo", Internet4),
		fmt.Sprintf("addr add %s/128 dev lo nodad", Internet6),
	}
	for _, a := range STUN4 {
		lines = append(lines, fmt.Sprintf("addr add %s/32 dev lo", a))
	}
	for _, a := range STUN6 {
		lines = append(lines, fmt.Sprintf("addr add %s/128 dev lo nodad", a))
	}
	return lines
}

// Unplug are the commands that take a plan's links out of the router, whatever of
// them there is.
func (l Lab) Unplug() Batch {
	b := Batch{NS: RouterNS}
	for _, m := range l.Machines {
		b.Lines = append(b.Lines, "link del "+RouterLink(m.Name))
	}
	return b
}

// WireOn are the commands that lead a machine's packets through the two ends
// of a user-space wire, which exist and are up.
func (m Machine) WireOn() []Batch {
	edge := Batch{NS: m.EdgeNS(), Lines: []string{
		"route replace default dev " + EdgeWire + " src " + m.Public4.String(),
		"route replace ::/0 dev " + EdgeWire + " src " + m.Public6.String(),
	}}
	router := Batch{NS: RouterNS}
	for _, p := range m.behindAndPublic() {
		router.Lines = append(router.Lines, fmt.Sprintf("route replace %s dev %s", p, RouterWire(m.Name)))
	}
	return []Batch{edge, router}
}

// WireOff leads a machine's packets over its ordinary link again.
func (m Machine) WireOff() []Batch {
	edge := Batch{NS: m.EdgeNS(), Lines: []string{
		"route replace default via " + m.Up4.String(),
		"route replace ::/0 via " + m.Up6.String(),
	}}
	router := Batch{NS: RouterNS, Lines: []string{
		fmt.Sprintf("route replace %s/32 dev %s", m.Public4, RouterLink(m.Name)),
		fmt.Sprintf("route replace %s/128 dev %s", m.Public6, RouterLink(m.Name)),
	}}
	for _, p := range m.behind() {
		router.Lines = append(router.Lines, fmt.Sprintf("route replace %s via %s", p, m.public(p)))
	}
	return []Batch{edge, router}
}

// Move are the commands that take a machine from one network to another behind
// the same edge, as when a laptop joins another Wi-Fi. No wire is in the way.
func Move(from, to Machine) []Batch {
	router := Batch{NS: RouterNS}
	for _, p := range from.behind() {
		router.Lines = append(router.Lines, fmt.Sprintf("route del %s", p))
	}
	for _, p := range to.behind() {
		router.Lines = append(router.Lines, fmt.Sprintf("route add %s via %s", p, to.public(p)))
	}
	return []Batch{{NS: from.EdgeNS(), Lines: []string{
		delAddr(from.GW4, from.LAN4, edgeInside), delAddr(from.GW6, from.LAN6, edgeInside),
		addr(to.GW4, to.LAN4, edgeInside), addr(to.GW6, to.LAN6, edgeInside),
	}}, {NS: from.NS(), Lines: []string{
		delAddr(from.Addr4, from.LAN4, machineIf), delAddr(from.Addr6, from.LAN6, machineIf),
		addr(to.Addr4, to.LAN4, machineIf), addr(to.Addr6, to.LAN6, machineIf),
		fmt.Sprintf("route replace default via %s", to.GW4),
		fmt.Sprintf("route replace ::/0 via %s", to.GW6),
	}}, router}
}

func delAddr(a netip.Addr, in netip.Prefix, dev string) string {
	return fmt.Sprintf("addr del %s/%d dev %s", a, in.Bits(), dev)
}

func addr(a netip.Addr, in netip.Prefix, dev string) string {
	s := fmt.Sprintf("addr add %s/%d dev %s", a, in.Bits(), dev)
	if a.Is6() {
		s += " nodad"
	}
	return s
}

// pods are a node's pod networks.
func (m Machine) pods() []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range []netip.Prefix{m.Pods4, m.Pods6} {
		if p.IsValid() {
			ps = append(ps, p)
		}
	}
	return ps
}

// behind are the networks behind the machine's edge to which the router has a way.
func (m Machine) behind() []netip.Prefix {
	ps := []netip.Prefix{m.LAN4, m.LAN6}
	if m.HideLAN4 {
		ps = ps[1:]
	}
	if !m.HidePods {
		ps = append(ps, m.pods()...)
	}
	return ps
}

func (m Machine) behindAndPublic() []netip.Prefix {
	return append([]netip.Prefix{
		netip.PrefixFrom(m.Public4, 32), netip.PrefixFrom(m.Public6, 128),
	}, m.behind()...)
}

// own and public are the addresses of p's family of the machine and its edge.
func (m Machine) own(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return m.Addr4
	}
	return m.Addr6
}

func (m Machine) public(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return m.Public4
	}
	return m.Public6
}
