package topology

import (
	"net/netip"
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
	// podnet's own addresses (DESIGN.md section 3) must stay free.
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
	for _, o := range []Options{{}, {Nodes: MaxNodes + 1}, {Nodes: -1}, {Nodes: 1, GatewayPort: 51820}} {
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

func TestLaptopMoves(t *testing.T) {
	l := plan(t, Options{Nodes: 1})
	home, err := l.Moved("laptop", 0)
	if err != nil {
		t.Fatal(err)
	}
	cafe, err := l.Moved("laptop", 1)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "move.txt", render(Move(home, cafe)))
	moved, err := l.WithMoved(map[string]int{"laptop": 1})
	if err != nil {
		t.Fatal(err)
	}
	if back, err := moved.Moved("laptop", 0); err != nil || back != home {
		t.Errorf("back home it is %+v, %v", back, err)
	}
	seen := map[netip.Prefix]string{}
	for n := range Networks {
		for _, m := range l.Of(Laptop) {
			to, err := l.Moved(m.Name, n)
			if err != nil {
				t.Fatal(err)
			}
			if other := seen[to.LAN4]; other != "" {
				t.Errorf("%s shares %s with %s", m.Name, to.LAN4, other)
			}
			seen[to.LAN4] = m.Name
		}
	}
	for _, bad := range []int{-1, Networks} {
		if _, err := l.Moved("laptop", bad); err == nil {
			t.Errorf("moved to network %d", bad)
		}
	}
	if _, err := l.Moved("node1", 1); err == nil {
		t.Error("a node moved")
	}
}
