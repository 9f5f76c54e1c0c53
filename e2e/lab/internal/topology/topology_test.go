package topology

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"podnet.dev/e2e/lab/internal/golden"
)

func plan(t *testing.T, o Options) Lab {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func render(batches []Batch) string {
	var b strings.Builder
	for _, batch := range batches {
		b.WriteString("# " + batch.NS + "\n" + strings.Join(batch.Lines, "\n") + "\n\n")
	}
	return b.String()
}

func TestLinksOfTwoNodes(t *testing.T) {
	l := plan(t, Options{Nodes: 2, DualStack: true})
	golden.Check(t, "links.txt", render(l.Links()))
}

func TestWireGoesInAndOut(t *testing.T) {
	for _, name := range []string{"node1", "laptop"} {
		m, err := plan(t, Options{Nodes: 1, DualStack: true}).Machine(name)
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "wire-"+name+".txt", "## on\n"+render(m.WireOn())+"## off\n"+render(m.WireOff()))
	}
}

// TestAddressesAreDistinct finds overlaps in the largest lab.
func TestAddressesAreDistinct(t *testing.T) {
	l := plan(t, Options{Nodes: MaxNodes, DualStack: true})
	nets := []netip.Prefix{l.Services4, l.Services6, netip.PrefixFrom(Internet4, 32), netip.PrefixFrom(Internet6, 128)}
	for _, m := range l.Machines {
		nets = append(nets, m.LAN4, m.LAN6, m.Link4, m.Link6)
		for _, p := range m.pods() {
			nets = append(nets, p)
			if !l.Pods4.Overlaps(p) && !l.Pods6.Overlaps(p) {
				t.Errorf("%s of %s is not in the cluster's range", p, m.Name)
			}
		}
		for _, in := range []struct {
			p netip.Prefix
			a netip.Addr
		}{{m.LAN4, m.Addr4}, {m.LAN4, m.GW4}, {m.LAN6, m.Addr6}, {m.LAN6, m.GW6}, {m.Link4, m.Public4}, {m.Link4, m.Up4}, {m.Link6, m.Public6}, {m.Link6, m.Up6}} {
			if !in.p.Contains(in.a) {
				t.Errorf("%s: %s is not in %s", m.Name, in.a, in.p)
			}
		}
		if len(RouterWire(m.Name)) > 15 {
			t.Errorf("interface name %q is longer than Linux has them", RouterWire(m.Name))
		}
	}
	// podnet's own addresses must stay free.
	nets = append(nets, netip.MustParsePrefix("198.18.0.0/16"), netip.MustParsePrefix("fd70:6f64:6e65:7400::/64"))
	for i, a := range nets {
		for _, b := range nets[:i] {
			if a.Overlaps(b) {
				t.Errorf("%s overlaps %s", a, b)
			}
		}
	}
}

func TestSingleStack(t *testing.T) {
	l := plan(t, Options{Nodes: 1})
	if l.PodCIDRs() != "10.244.0.0/16" || l.ServiceCIDRs() != "10.96.0.0/16" || l.NodeIPs(l.Machines[0]) != "10.77.1.2" {
		t.Errorf("%s %s %s", l.PodCIDRs(), l.ServiceCIDRs(), l.NodeIPs(l.Machines[0]))
	}
	if links := render(l.Links()); strings.Contains(links, "fd00:10:244") {
		t.Error("a single-stack lab routes IPv6 pods")
	}
}

func TestImpossibleOptions(t *testing.T) {
	for _, o := range []Options{{}, {Nodes: MaxNodes + 1}, {Nodes: -1}, {Nodes: 1, GatewayPort: 51820}, {Nodes: 1, Cluster: "red"}, {Nodes: 2, Cluster: "blue"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestUnknownMachine(t *testing.T) {
	_, err := plan(t, Options{Nodes: 1}).Machine("mars")
	if err == nil || !strings.Contains(err.Error(), "laptop2") {
		t.Errorf("%v does not say which machines there are", err)
	}
}

// TestHomeIsNobodysButItsOwn has the pods' network at home, of which the router is told
// nothing.
func TestHomeIsNobodysButItsOwn(t *testing.T) {
	l := plan(t, Options{Nodes: 1, DualStack: true})
	first, err := l.Machine("laptop")
	if err != nil {
		t.Fatal(err)
	}
	home, err := l.Moved("laptop", "10.244.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "move-home.txt", render(Move(first, home)))
	if l, err = l.WithMoved(map[string]string{"laptop": "10.244.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	if back, err := l.Moved("laptop", FirstNetwork); err != nil || back != first {
		t.Errorf("back again it is %+v, %v", back, err)
	}
}

// TestFurtherCluster has the addresses of the lab's own cluster for pods and Services,
// and no others.
func TestFurtherCluster(t *testing.T) {
	own := plan(t, Options{Nodes: MaxNodes, DualStack: true})
	blue := plan(t, Options{Nodes: 1, DualStack: true, Cluster: "blue"})
	golden.Check(t, "links-blue.txt", render(append(blue.Links(), blue.Unplug())))
	if blue.PodCIDRs() != own.PodCIDRs() || blue.ServiceCIDRs() != own.ServiceCIDRs() || blue.Machines[0].Pods4 != own.Machines[0].Pods4 {
		t.Errorf("pods %s, Services %s", blue.PodCIDRs(), blue.ServiceCIDRs())
	}
	if len(blue.Of(Laptop)) != 0 || blue.Context() == own.Context() {
		t.Errorf("%v in %s", blue.Names(), blue.Context())
	}
	for _, b := range blue.Machines {
		for n := range Networks {
			moved, err := own.WithMoved(map[string]string{"laptop": strconv.Itoa(n), "laptop2": strconv.Itoa(n)})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range moved.Machines {
				if m.Name == b.Name || m.LAN4.Overlaps(b.LAN4) || m.LAN6.Overlaps(b.LAN6) || m.Link4.Overlaps(b.Link4) || m.Link6.Overlaps(b.Link6) {
					t.Errorf("%+v is too near to %+v", b, m)
				}
			}
		}
	}
	for _, ns := range blue.Namespaces() {
		if ns == RouterNS {
			t.Error("the router is a further cluster's")
		}
	}
}

func TestLaptopMoves(t *testing.T) {
	l := plan(t, Options{Nodes: 1})
	home, err := l.Moved("laptop", FirstNetwork)
	if err != nil {
		t.Fatal(err)
	}
	cafe, err := l.Moved("laptop", "1")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "move.txt", render(Move(home, cafe)))
	moved, err := l.WithMoved(map[string]string{"laptop": "1"})
	if err != nil {
		t.Fatal(err)
	}
	if back, err := moved.Moved("laptop", FirstNetwork); err != nil || back != home {
		t.Errorf("back home it is %+v, %v", back, err)
	}
	seen := map[netip.Prefix]string{}
	for n := range Networks {
		for _, m := range l.Of(Laptop) {
			to, err := l.Moved(m.Name, strconv.Itoa(n))
			if err != nil {
				t.Fatal(err)
			}
			if other := seen[to.LAN4]; other != "" {
				t.Errorf("%s shares %s with %s", m.Name, to.LAN4, other)
			}
			seen[to.LAN4] = m.Name
		}
	}
	for _, bad := range []string{"-1", strconv.Itoa(Networks), "", "home", "10.244.0.0", "10.244.0.1/16", "10.244.0.0/30", "fd00::/64", "10.0.0.0/8", "198.51.100.0/25"} {
		if _, err := l.Moved("laptop", bad); err == nil {
			t.Errorf("moved to %q", bad)
		}
	}
	if _, err := l.Moved("node1", "1"); err == nil {
		t.Error("a node moved")
	}
}
