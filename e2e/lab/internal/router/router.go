// Package router is what happens to packets between the machines: cut links,
// address translation, firewalls. The whole wish is rendered into nftables
// rule sets, which replace the ones before in one transaction.
package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/topology"
	"podnet.dev/internal/wire"
)

// NAT is how a machine's edge translates addresses.
type NAT string

// The kinds of NAT (RFC 4787's words in brackets).
const (
	// Plain keeps the port where it can, so that it is the same towards every
	// destination (endpoint-independent mapping, address and port-dependent
	// filtering): what most homes have.
	Plain NAT = "plain"
	// Symmetric takes a new random port for every destination (address and
	// port-dependent mapping).
	Symmetric NAT = "symmetric"
	// Sequential takes the next port for every destination, as many a company's
	// firewall does: dependent on the destination, and yet to be guessed.
	Sequential NAT = "sequential"
)

// State is the user's wish. The zero State lets everything pass.
type State struct {
	Cuts    [][2]string    `json:"cuts,omitempty"` // pairs of machines, or a machine and "router"
	NAT     map[string]NAT `json:"nat,omitempty"`
	DropUDP []string       `json:"dropUDP,omitempty"`

	// Rebinds is which ports a machine's NAT took in place of the ones before, and
	// Blocks how often NATs have done so since the lab is up. None is taken twice in
	// a while: who spoke with its last owner may still have that in mind, and gives
	// the next one ports that nobody expects.
	Rebinds map[string]int `json:"rebinds,omitempty"`
	Blocks  int            `json:"blocks,omitempty"`

	// Moved are laptops in other networks than their first, see topology.Lab.Moved.
	Moved map[string]string `json:"moved,omitempty"`

	// Wires are the user-space wires; the rules work with and without them.
	Wires map[string]wire.Config `json:"wires,omitempty"`
}

// Cut makes a and b unreachable for each other.
func (s *State) Cut(a, b string) {
	s.Heal(a, b)
	s.Cuts = append(s.Cuts, [2]string{min(a, b), max(a, b)})
	slices.SortFunc(s.Cuts, func(x, y [2]string) int { return slices.Compare(x[:], y[:]) })
}

// Heal undoes Cut.
func (s *State) Heal(a, b string) {
	cut := [2]string{min(a, b), max(a, b)}
	s.Cuts = slices.DeleteFunc(s.Cuts, func(c [2]string) bool { return c == cut })
}

// Calm takes away whatever is in the way. Machines stay where they moved.
func (s *State) Calm() { *s = State{Moved: s.Moved, Blocks: s.Blocks} }

// Move says where the machine is, see topology.Lab.Moved.
func (s *State) Move(machine, where string) {
	if where == topology.FirstNetwork {
		where = ""
	}
	s.Moved = with(s.Moved, machine, where)
}

// SetNAT puts the machine behind a NAT; empty takes the NAT away.
func (s *State) SetNAT(machine string, kind NAT) {
	s.NAT = with(s.NAT, machine, kind)
	s.Rebinds = with(s.Rebinds, machine, 0)
}

// Rebind makes the machine's NAT give other ports than before.
func (s *State) Rebind(machine string) {
	s.Blocks++
	s.Rebinds = with(s.Rebinds, machine, s.Blocks)
}

// with is m with another value for the key; a zero value is not kept.
func with[V comparable](m map[string]V, key string, value V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	maps.DeleteFunc(m, func(_ string, v V) bool { var zero V; return v == zero })
	return m
}

// SetDropUDP says whether the machine's edge drops UDP.
func (s *State) SetDropUDP(machine string, drop bool) {
	s.DropUDP = slices.DeleteFunc(slices.Clone(s.DropUDP), func(m string) bool { return m == machine })
	if drop {
		s.DropUDP = append(s.DropUDP, machine)
		slices.Sort(s.DropUDP)
	}
}

// SetWire puts a wire in the machine's way; nil takes it out.
func (s *State) SetWire(machine string, c *wire.Config) {
	wires := maps.Clone(s.Wires)
	if wires == nil {
		wires = map[string]wire.Config{}
	}
	delete(wires, machine)
	if c != nil {
		wires[machine] = *c
	}
	s.Wires = wires
}

// Load makes the router and every edge do what s says.
func Load(ctx context.Context, lab topology.Lab, s State) error {
	sets := map[string]string{topology.RouterNS: routerRules(lab, s)}
	for _, m := range lab.Machines {
		sets[m.EdgeNS()] = edgeRules(lab, m, s)
	}
	for ns, rules := range sets {
		if _, err := netns.Run(ctx, ns, rules, "nft", "-f", "-"); err != nil {
			return fmt.Errorf("rules of %s: %w", ns, err)
		}
	}
	return nil
}

// replace begins a rule set that takes the old one's place at once.
const replace = "table inet lab\ndelete table inet lab\ntable inet lab {\n"

// routerRules are the rules of the internet: it carries what is not cut, and
// knows no way to anybody's pods except between the nodes.
func routerRules(lab topology.Lab, s State) string {
	var forward, local []string
	for _, cut := range s.Cuts {
		a, b := cut[0], cut[1]
		switch string(topology.Router) {
		case b:
			a, b = b, a
			fallthrough
		case a: // everything that the machine sends or gets
			local = append(local, "\t\tiifname "+links(b)+" drop")
			forward = append(forward, "\t\tiifname "+links(b)+" drop", "\t\toifname "+links(b)+" drop")
		default:
			forward = append(forward,
				"\t\tiifname "+links(a)+" oifname "+links(b)+" drop",
				"\t\tiifname "+links(b)+" oifname "+links(a)+" drop")
		}
	}
	var nodes []string
	for _, n := range lab.Of(topology.Node) {
		nodes = append(nodes, n.Name)
	}
	forward = append(forward, fmt.Sprintf("\t\tip daddr %s iifname != %s reject with icmp net-unreachable", lab.Pods4, links(nodes...)))
	if lab.Pods6.IsValid() {
		forward = append(forward, fmt.Sprintf("\t\tip6 daddr %s iifname != %s reject with icmpv6 no-route", lab.Pods6, links(nodes...)))
	}
	return replace + chain("forward", "filter hook forward priority filter", forward) +
		chain("input", "filter hook input priority filter", local) + "}\n"
}

// edgeRules are the rules of the box between a machine and the internet.
func edgeRules(lab topology.Lab, m topology.Machine, s State) string {
	outside := set(topology.EdgeUp, topology.EdgeWire)
	var forward, local, nat []string
	if slices.Contains(s.DropUDP, m.Name) {
		// As in offices: names resolve, all other UDP vanishes.
		forward = append(forward, fmt.Sprintf("\t\tmeta l4proto udp ip daddr %s accept", topology.Internet4),
			fmt.Sprintf("\t\tmeta l4proto udp ip saddr %s accept", topology.Internet4),
			fmt.Sprintf("\t\tmeta l4proto udp ip6 daddr %s accept", topology.Internet6),
			fmt.Sprintf("\t\tmeta l4proto udp ip6 saddr %s accept", topology.Internet6),
			"\t\tmeta l4proto udp drop")
	}
	if mtu := s.Wires[m.Name].MTU; mtu > 0 {
		// As a home router does whose own line is the small one: TCP works, and
		// everything else has to find out.
		for _, way := range []string{"iifname", "oifname"} {
			forward = append(forward,
				fmt.Sprintf("\t\t%s %s meta nfproto ipv4 tcp flags syn tcp option maxseg size set %d", way, outside, mtu-40),
				fmt.Sprintf("\t\t%s %s meta nfproto ipv6 tcp flags syn tcp option maxseg size set %d", way, outside, mtu-60))
		}
	}
	kind := s.NAT[m.Name]
	if kind == "" && m.HideLAN4 {
		kind = Plain // a home's network is nobody's but its own
	}
	if kind != "" {
		inside4, inside6 := site(lab, m)
		forward = append(forward, "\t\tct state established,related accept")
		if m.Kind == topology.Node {
			// The cluster's nodes see each other, and the world sees the API
			// server, as behind any company's firewall.
			forward = append(forward,
				fmt.Sprintf("\t\tiifname %s ip saddr %s accept", outside, inside4),
				fmt.Sprintf("\t\tiifname %s ip6 saddr %s accept", outside, inside6),
				fmt.Sprintf("\t\tiifname %s tcp dport 6443 accept", outside))
		}
		// A connection that the NAT forgot is dead, as at home: the kernel would
		// take it up again in the middle.
		const middle = "tcp flags & (fin | syn | rst | ack) != syn ct state new drop"
		forward = append(forward, "\t\tiifname "+outside+" drop",
			fmt.Sprintf("\t\tip daddr != %s %s", inside4, middle),
			fmt.Sprintf("\t\tip6 daddr != %s %s", inside6, middle))
		// What nobody asked for is dropped before connection tracking learns of
		// it: its entry would take the port that a hole is being punched for.
		local = append(local, "\t\tiifname "+outside+" ct state new drop")
		nat = translations(fmt.Sprintf("\t\toifname %s ip saddr %s ip daddr != %s", outside, inside4, inside4), m, kind, s.Rebinds[m.Name])
	}
	return replace + chain("forward", "filter hook forward priority filter", forward) +
		chain("input", "filter hook input priority filter", local) +
		chain("translate", "nat hook postrouting priority srcnat", nat) + "}\n"
}

// translations are the rules for what matches.
func translations(match string, m topology.Machine, kind NAT, rebinds int) []string {
	snat := "snat ip to " + m.Public4.String()
	all := match + " " + snat
	// A name server may be asked from many ports at once: it sees them as they are.
	udp := match + " udp dport != 53 " + snat + " : "
	switch {
	case kind == Symmetric:
		return []string{all + " fully-random"}
	case kind == Sequential:
		return []string{udp + fmt.Sprintf("numgen inc mod %d map %s", ports, portMap(rebinds)), all}
	case rebinds > 0: // the same towards every destination, and another than it was
		return []string{udp + fmt.Sprintf("udp sport ^ %#x", rebound+rebinds%rebounds), all}
	}
	return []string{all}
}

// Ports that NATs take which do not keep them; a program is given none of them by
// the kernel. One that counts takes a block of them at a time. One that was rebound
// gives every port one of its own: two that shared one would be a NAT that drops what
// the second says to whom the first has spoken with. The kernel gives 0x8000 to 0xee47,
// which become 0x1000 to 0x7fff.
const (
	ports           = 64
	blocks          = 100
	firstSequential = 12000

	rebound  = 0xf000
	rebounds = 0x1000
)

// portMap is the nft map from 0 to ports-1 to the block of that number.
func portMap(block int) string {
	var elements []string
	for i := range ports {
		elements = append(elements, fmt.Sprintf("%d : %d", i, firstSequential+block%blocks*ports+i))
	}
	return "{ " + strings.Join(elements, ", ") + " }"
}

// site are the networks on the inner side of a machine's edge, and those that
// it reaches without translation: for a node, the other nodes' as well.
func site(lab topology.Lab, m topology.Machine) (four, six string) {
	fours, sixes := []string{m.LAN4.String()}, []string{m.LAN6.String()}
	if m.Kind == topology.Node {
		fours, sixes = []string{lab.Pods4.String()}, nil
		if lab.Pods6.IsValid() {
			sixes = append(sixes, lab.Pods6.String())
		}
		for _, n := range lab.Of(topology.Node) {
			fours, sixes = append(fours, n.LAN4.String()), append(sixes, n.LAN6.String())
		}
	}
	return "{ " + strings.Join(fours, ", ") + " }", "{ " + strings.Join(sixes, ", ") + " }"
}

// links are the router's interfaces towards machines.
func links(machines ...string) string {
	var names []string
	for _, m := range machines {
		names = append(names, topology.RouterLink(m), topology.RouterWire(m))
	}
	return set(names...)
}

func set(names ...string) string {
	for i := range names {
		names[i] = fmt.Sprintf("%q", names[i])
	}
	return "{ " + strings.Join(names, ", ") + " }"
}

func chain(name, hook string, rules []string) string {
	s := "\tchain " + name + " {\n\t\ttype " + hook + "; policy accept;\n"
	for _, r := range rules {
		s += r + "\n"
	}
	return s + "\t}\n"
}
