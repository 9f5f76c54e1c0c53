package router

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"podnet.dev/e2e/lab/internal/golden"
	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/topology"
	"podnet.dev/internal/wire"
)

func plan(t *testing.T) topology.Lab {
	t.Helper()
	l, err := topology.New(topology.Options{Nodes: 2, DualStack: true})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func all(lab topology.Lab, s State) string {
	b := "# router\n" + routerRules(lab, s)
	for _, m := range lab.Machines {
		b += "# " + m.EdgeNS() + "\n" + edgeRules(lab, m, s)
	}
	return b
}

// troubles are the states that the goldens show and the kernel must take.
func troubles() map[string]State {
	var cut, nat, rebound, udp, small State
	cut.Cut("node1", "laptop")
	cut.Cut("laptop2", "router")
	nat.SetNAT("laptop", Symmetric)
	nat.SetNAT("node1", Plain)
	rebound.SetNAT("laptop", Plain)
	rebound.Rebind("laptop")
	rebound.SetNAT("laptop2", Sequential)
	udp.SetDropUDP("laptop", true)
	small.SetWire("laptop", &wire.Config{MTU: 1280})
	return map[string]State{"calm": {}, "cut": cut, "nat": nat, "rebound": rebound, "drop-udp": udp, "small": small}
}

func TestRules(t *testing.T) {
	for name, s := range troubles() {
		golden.Check(t, name+".nft", all(plan(t), s))
	}
}

// TestKernelTakesRules loads every rule set into a namespace of its own, twice:
// the second replaces the first.
func TestKernelTakesRules(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft(8)")
	}
	lab := plan(t)
	ns := fmt.Sprintf("lab-router-test-%d", os.Getpid())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := netns.Add(ctx, ns); err != nil {
		t.Skipf("cannot make a network namespace here: %v", err)
	}
	t.Cleanup(func() { _ = netns.Delete(context.Background(), ns) })
	for name, s := range troubles() {
		sets := []string{routerRules(lab, s)}
		for _, m := range lab.Machines {
			sets = append(sets, edgeRules(lab, m, s))
		}
		for _, rules := range sets {
			for range 2 {
				if _, err := netns.Run(ctx, ns, rules, "nft", "-f", "-"); err != nil {
					t.Fatalf("%s: %v\n%s", name, err, rules)
				}
			}
		}
	}
	out, err := netns.Run(ctx, ns, "", "nft", "list", "tables")
	if err != nil || strings.Count(out, "table") != 1 {
		t.Errorf("%v: tables %q, want one", err, out)
	}
}

// TestEveryTroubleCanBeUndone does it all and undoes it.
func TestEveryTroubleCanBeUndone(t *testing.T) {
	var s State
	calm := all(plan(t), s)
	s.Cut("laptop", "node1")
	s.Cut("node1", "laptop") // the same one
	s.SetNAT("laptop", Plain)
	s.SetNAT("laptop", Symmetric)
	s.Rebind("laptop")
	s.SetDropUDP("laptop", true)
	s.SetDropUDP("laptop", true)
	s.SetWire("laptop", &wire.Config{Loss: 0.1})
	if all(plan(t), s) == calm {
		t.Fatal("nothing happened")
	}
	s.Heal("node1", "laptop")
	s.SetNAT("laptop", "")
	s.SetDropUDP("laptop", false)
	s.SetWire("laptop", nil)
	if got := all(plan(t), s); got != calm {
		t.Errorf("left over:\n%s", got)
	}
	if len(s.Wires)+len(s.Rebinds) != 0 {
		t.Errorf("left over: %v %v", s.Wires, s.Rebinds)
	}
}

// TestHomeTranslates, as the internet has no way to its addresses, also when every
// trouble is undone.
func TestHomeTranslates(t *testing.T) {
	var s, nat State
	s.Move("laptop", "10.244.0.0/16")
	s.Calm()
	lab, err := plan(t).WithMoved(s.Moved)
	if err != nil {
		t.Fatal(err)
	}
	nat.SetNAT("laptop", Plain)
	if got := all(lab, s); got != all(lab, nat) || !strings.Contains(got, "ip saddr { 10.244.0.0/16 }") {
		t.Errorf("it does not:\n%s", got)
	}
	s.Move("laptop", topology.FirstNetwork)
	if len(s.Moved) != 0 {
		t.Errorf("back again it is at %v", s.Moved)
	}
}

// TestNoBlockOfPortsIsTakenTwice, whatever was undone in between.
func TestNoBlockOfPortsIsTakenTwice(t *testing.T) {
	var s State
	seen := map[string]bool{}
	for range 3 {
		s.SetNAT("laptop", Plain)
		s.Rebind("laptop")
		seen[all(plan(t), s)] = true
		s.Calm()
	}
	if len(seen) != 3 {
		t.Errorf("three rebinds gave %d blocks", len(seen))
	}
}
