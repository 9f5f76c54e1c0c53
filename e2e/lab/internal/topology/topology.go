// Package topology is the plan of the lab's network: machines, addresses and
// the commands that lay the links. It is pure: it knows neither the kernel nor
// Kubernetes.
//
//	laptop  --- edge ---.            .--- edge --- node1
//	                     }- router -{
//	laptop2 --- edge ---'            '--- edge --- node2
//
// A further cluster is a plan of its own, of a node that hangs on the same router.
//
// Every machine has a network of its own behind an edge, the box that a home
// or a data centre has: it routes plainly until it is told to be a NAT. The
// router in the middle is the internet; it has no way out of this computer.
package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Prefix begins the name of every network namespace of the lab.
const Prefix = "podnet-lab-"

// Limits of Options.
const (
	MaxNodes = 4
	Laptops  = 2
)

// Options are the user's wishes.
type Options struct {
	Nodes       int  `json:"nodes"`
	DualStack   bool `json:"dualStack"`   // pods and Services; the links always are
	Resolved    bool `json:"resolved"`    // laptops run systemd-resolved
	GatewayPort int  `json:"gatewayPort"` // NodePort for the gateway's WireGuard; 0: none

	// Cluster makes this the plan of a further cluster: one node, and nobody else.
	// It is one of Clusters.
	Cluster string `json:"cluster,omitempty"`
}

// Clusters are the names of the clusters that the lab can have beside its own. Their
// pods and Services have the same addresses as its own cluster's.
var Clusters = []string{"blue"}

// Kind says what a machine is for.
type Kind string

const (
	Node   Kind = "node"
	Laptop Kind = "laptop"
	Router Kind = "router"
)

// Machine is a network namespace with its address and its edge.
type Machine struct {
	Name string
	Kind Kind

	LAN4, LAN6   netip.Prefix // its own network
	Addr4, Addr6 netip.Addr   // its address there
	GW4, GW6     netip.Addr   // its edge, seen from inside

	Link4, Link6     netip.Prefix // between edge and router
	Public4, Public6 netip.Addr   // its edge, seen from outside
	Up4, Up6         netip.Addr   // the router, seen from its edge

	Pods4, Pods6 netip.Prefix // a node's pods; Pods6 is invalid in a single-stack lab

	// The router has no way to networks that are elsewhere as well.
	HidePods bool
	HideLAN4 bool // the edge has to translate
}

// Lab is the whole plan.
type Lab struct {
	Options  Options
	Machines []Machine // nodes, then laptops

	Pods4, Pods6         netip.Prefix // of the cluster; the IPv6 ones are invalid in a single-stack lab
	Services4, Services6 netip.Prefix
	DNS4                 netip.Addr // kube-dns
	API4, API6           netip.Addr // the Service "kubernetes"
}

// Addresses of the router's own services: the lab's internet.
var (
	Internet4 = netip.MustParseAddr("198.51.100.53") // DNS, and www.example.test
	Internet6 = netip.MustParseAddr("fd77:6c61:6200:53::53")

	// The STUN servers. Two of each family: one alone cannot tell the kinds of
	// NAT apart.
	STUN4 = []netip.Addr{netip.MustParseAddr("198.51.100.78"), netip.MustParseAddr("198.51.100.79")}
	STUN6 = []netip.Addr{netip.MustParseAddr("fd77:6c61:6200:53::78"), netip.MustParseAddr("fd77:6c61:6200:53::79")}

	siteNets6    = netip.MustParsePrefix("fd77:6c61:6200::/48") // "lab"
	links4       = netip.MustParsePrefix("203.0.113.0/24")
	sites4       = netip.MustParsePrefix("10.77.0.0/16") // the machines' own networks
	internet4    = netip.MustParsePrefix("198.51.100.0/24")
	firstLaptop  = 100 // third byte of the first laptop's network
	firstFurther = 50  // and of the first further cluster's node
	clusterPods4 = netip.MustParsePrefix("10.244.0.0/16")
	clusterPods6 = netip.MustParsePrefix("fd00:10:244::/48")
	services4    = netip.MustParsePrefix("10.96.0.0/16")
	services6    = netip.MustParsePrefix("fd00:10:96::/112") // the API server takes /108 and smaller
)

// New makes the plan, or says what of the options cannot be.
func New(o Options) (Lab, error) {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return Lab{}, fmt.Errorf("%d nodes: the lab has 1 to %d", o.Nodes, MaxNodes)
	}
	if p := o.GatewayPort; p != 0 && (p < 30000 || p > 32767) {
		return Lab{}, fmt.Errorf("port %d: a NodePort is 30000 to 32767", p)
	}
	further := slices.Index(Clusters, o.Cluster)
	if o.Cluster != "" && (further < 0 || o.Nodes != 1) {
		return Lab{}, fmt.Errorf("cluster %q of %d nodes: a further cluster is one of %v, of one node", o.Cluster, o.Nodes, Clusters)
	}
	l := Lab{Options: o, Pods4: clusterPods4, Services4: services4,
		DNS4: nth(services4, 10), API4: nth(services4, 1)}
	if o.DualStack {
		l.Pods6, l.Services6, l.API6 = clusterPods6, services6, nth(services6, 1)
	}
	for i := 1; i <= o.Nodes; i++ {
		name, site, link := fmt.Sprintf("node%d", i), i, i
		if further >= 0 {
			name, site, link = fmt.Sprintf("%s%d", o.Cluster, i), firstFurther+further, MaxNodes+Laptops+i+further
		}
		m := newMachine(name, Node, site, link)
		m.HidePods = further >= 0
		m.Pods4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)
		if o.DualStack {
			a := clusterPods6.Addr().As16()
			a[7] = byte(i)
			m.Pods6 = netip.PrefixFrom(netip.AddrFrom16(a), 64)
		}
		l.Machines = append(l.Machines, m)
	}
	if further >= 0 {
		return l, nil
	}
	for i := range Laptops {
		name := "laptop"
		if i > 0 {
			name = fmt.Sprintf("laptop%d", i+1)
		}
		l.Machines = append(l.Machines, newMachine(name, Laptop, firstLaptop+i, MaxNodes+1+i))
	}
	return l, nil
}

// newMachine gives machine its own network, number site, and its link to the
// router, number link.
func newMachine(name string, kind Kind, site, link int) Machine {
	m := Machine{Name: name, Kind: kind}
	m.site(site)
	base := links4.Addr().As4()
	base[3] = byte(4 * link)
	m.Link4 = netip.PrefixFrom(netip.AddrFrom4(base), 30)
	m.Link6 = subnet6(0xff00 + link)
	m.Up4, m.Up6 = nth(m.Link4, 1), nth(m.Link6, 1)
	m.Public4, m.Public6 = nth(m.Link4, 2), nth(m.Link6, 2)
	return m
}

// site gives the machine the network of that number behind its edge.
func (m *Machine) site(n int) {
	m.LAN4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(n), 0}), 24)
	m.LAN6 = subnet6(n)
	m.GW4, m.GW6 = nth(m.LAN4, 1), nth(m.LAN6, 1)
	m.Addr4, m.Addr6 = nth(m.LAN4, 2), nth(m.LAN6, 2)
	m.HideLAN4 = false
}

// home gives the machine a home's IPv4 network, which is nobody's but its own: many a
// home has the same. For IPv6 it stays where it is.
func (m *Machine) home(lan netip.Prefix) {
	m.LAN4, m.GW4, m.Addr4, m.HideLAN4 = lan, nth(lan, 1), nth(lan, 2), true
}

// Networks is how many networks a laptop can move between.
const Networks = 10

// FirstNetwork is where a laptop is unless it moves.
const FirstNetwork = "0"

// Moved is a laptop somewhere else: in its network of that number, below Networks, or in
// a home whose network is that IPv4 prefix.
func (l Lab) Moved(name, where string) (Machine, error) {
	m, err := l.Machine(name)
	if err != nil {
		return m, err
	}
	i := slices.IndexFunc(l.Of(Laptop), func(o Machine) bool { return o.Name == name })
	if i < 0 {
		return m, fmt.Errorf("%s cannot move: laptops do", name)
	}
	if n, err := strconv.Atoi(where); err == nil && n >= 0 && n < Networks {
		m.site(firstLaptop + Laptops*n + i)
		return m, nil
	}
	lan, err := netip.ParsePrefix(where)
	if err != nil || !lan.Addr().Is4() || lan != lan.Masked() || lan.Bits() > 29 {
		return m, fmt.Errorf("%s cannot move to %q: that is neither a number from 0 to %d nor an IPv4 network such as 192.168.1.0/24", name, where, Networks-1)
	}
	for _, p := range []netip.Prefix{sites4, links4, internet4} {
		if lan.Overlaps(p) {
			return m, fmt.Errorf("%s cannot move to %s: the lab's own %s is there", name, lan, p)
		}
	}
	m.site(firstLaptop + i)
	m.home(lan)
	return m, nil
}

// WithMoved is the lab with these laptops moved.
func (l Lab) WithMoved(moved map[string]string) (Lab, error) {
	l.Machines = slices.Clone(l.Machines)
	for i, m := range l.Machines {
		if where, ok := moved[m.Name]; ok {
			var err error
			if l.Machines[i], err = l.Moved(m.Name, where); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

func subnet6(n int) netip.Prefix {
	a := siteNets6.Addr().As16()
	a[6], a[7] = byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// nth is the n-th address of p, n < 256.
func nth(p netip.Prefix, n byte) netip.Addr {
	s := p.Addr().AsSlice()
	s[len(s)-1] += n
	a, _ := netip.AddrFromSlice(s)
	return a
}

// NS is the machine's network namespace.
func (m Machine) NS() string { return Prefix + m.Name }

// EdgeNS is the network namespace of the machine's edge.
func (m Machine) EdgeNS() string { return m.NS() + "-edge" }

// RouterNS is the network namespace of the router.
const RouterNS = Prefix + "router"

// Namespaces are all network namespaces of the plan: in the lab's own the router's is
// the first.
func (l Lab) Namespaces() []string {
	var names []string
	if l.Options.Cluster == "" {
		names = append(names, RouterNS)
	}
	for _, m := range l.Machines {
		names = append(names, m.EdgeNS(), m.NS())
	}
	return names
}

// Machine finds a machine by name.
func (l Lab) Machine(name string) (Machine, error) {
	for _, m := range l.Machines {
		if m.Name == name {
			return m, nil
		}
	}
	return Machine{}, fmt.Errorf("no machine %q in this lab: there are %v", name, l.Names())
}

// Names are the machines' names and the router's.
func (l Lab) Names() []string {
	var names []string
	for _, m := range l.Machines {
		names = append(names, m.Name)
	}
	return append(names, string(Router))
}

// Of are the machines of a kind.
func (l Lab) Of(kind Kind) []Machine {
	return slices.DeleteFunc(slices.Clone(l.Machines), func(m Machine) bool { return m.Kind != kind })
}

// ControlPlane is the node that runs it: the first.
func (l Lab) ControlPlane() Machine { return l.Machines[0] }

// Context is the name of the cluster in kubeconfigs.
func (l Lab) Context() string {
	if l.Options.Cluster != "" {
		return l.Options.Cluster
	}
	return "lab"
}

// Server is the API server's URL, as the kubeconfigs have it.
func (l Lab) Server() string { return fmt.Sprintf("https://%s:6443", l.ControlPlane().Addr4) }

// both joins the valid ones of an IPv4 and an IPv6 thing, as Kubernetes' flags
// want them.
func both[T interface {
	String() string
	IsValid() bool
}](four, six T) string {
	if six.IsValid() {
		return four.String() + "," + six.String()
	}
	return four.String()
}

// PodCIDRs, ServiceCIDRs and NodeIPs are written as Kubernetes' flags want them.
func (l Lab) PodCIDRs() string     { return both(l.Pods4, l.Pods6) }
func (l Lab) ServiceCIDRs() string { return both(l.Services4, l.Services6) }

// NodeIPs are the addresses a node registers with.
func (l Lab) NodeIPs(m Machine) string {
	if l.Options.DualStack {
		return both(m.Addr4, m.Addr6)
	}
	return m.Addr4.String()
}
