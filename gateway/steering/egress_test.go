package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// leaving makes a rule one of egress.
func leaving(o *Object) {
	o.Egress, o.RelayPort = true, 0
	o.Steer = steer.Rule{Name: o.Name, Owner: o.User, Since: o.Created}
}

// wantEgress says whose flows leave through which agents: "alice-pc:3 bob-pc:" has
// those of alice leave through 3, and those of bob not at all.
func (s *story) wantEgress(want string) {
	s.t.Helper()
	var all []string
	for _, e := range s.plan.Egress {
		text := e.Peer + ":"
		for n := range 10 {
			if e.Agent == testKey(n).Address6() {
				text += fmt.Sprint(n)
			}
		}
		all = append(all, text)
	}
	if got := strings.Join(all, " "); got != want {
		s.t.Fatalf("egress %q, want %q", got, want)
	}
}

func TestFlowsLeaveThroughTheNamedAgent(t *testing.T) {
	s := begin(t)
	s.wantEgress("")
	s.steer("a", "alice", leaving)
	s.wantIn("a")
	s.wantAgents("")
	s.wantEgress("alice-pc:") // as soon as there is a rule, nothing leaves as the gateway
	s.rule("a").Agent = testKey(3)
	s.look()
	s.wantAgents("3:+a")
	s.wantEgress("alice-pc:")
	s.connected(3)
	s.wantEgress("alice-pc:3")
	if len(s.plan.Ties) != 0 {
		t.Errorf("it has ties: %v", s.plan.Ties)
	}
	s.steer("b", "bob", leaving, agent(3)) // two may have one agent
	s.wantAgents("3:+a,b")
	s.wantEgress("alice-pc:3 bob-pc:3")
	s.connected()
	s.wantEgress("alice-pc: bob-pc:")
	s.remove("a")
	s.wantEgress("bob-pc:")
	s.remove("b")
	s.wantEgress("")
	s.wantAgents("3:") // and is told that it is over
}

func TestTheOldestRuleOfALaptopCounts(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", leaving, agent(3))
	s.steer("a2", "alice", leaving, inPod("2"), agent(4))
	s.connected(4)
	s.wantEgress("alice-pc:4") // the pod that it had before is gone, or its agent
	s.connected(3, 4)
	s.wantEgress("alice-pc:3")
	s.wantAgents("3:+a 4:+a2")
}

// Whatever is wrong with the rule, flows do not leave as somebody else.
func TestARuleThatMayNotActLetsNothingOut(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", leaving, agent(3))
	s.connected(3)
	s.wantEgress("alice-pc:3")
	s.after(leaseTime)
	s.wantOut("a", podnet.ReasonExpired)
	s.wantEgress("alice-pc:")
	s.renew("a")
	s.wantEgress("alice-pc:3")
	s.world.PolicyHolds = false
	s.remove("a")
	s.steer("b", "alice", leaving, agent(3))
	s.wantOut("b", podnet.ReasonPolicyMissing)
	s.wantEgress("alice-pc:")
}

// bob may not have alice's flows leave from where he wants them, nor cut them off.
func TestEgressIsForOnesOwnPeer(t *testing.T) {
	s := begin(t)
	s.steer("b", "bob", leaving, agent(3), func(o *Object) { o.Peer = "alice-pc" })
	s.connected(3)
	s.wantOut("b", podnet.ReasonPeerMissing)
	s.wantEgress("")
	s.steer("c", "bob", leaving, agent(1)) // and alice's laptop is no agent
	s.connected(1)
	s.wantIn("c")
	s.wantEgress("bob-pc:")
}

// Rules of egress take nothing, so they are in nobody's way, and have no say in who
// the pod's agent is.
func TestEgressStandsBesideTheOthers(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", leaving, agent(3))
	s.steer("b", "bob", leaving)
	s.steer("w", "alice", whole, agent(4))
	s.wantIn("a", "b", "w")
	s.connected(3, 4)
	s.wantAgents("3:+a 4:w")
	s.connected(3)
	s.wantAgents("3:+a 4:w")
	s.rule("w").Agent = testKey(3) // one that redirects may have both
	s.connected(3)
	s.wantAgents("3:w+a 4:")
	s.steer("w2", "bob", agent(5), func(o *Object) { o.Steer.Port = 8081 })
	s.connected(3, 5)
	s.wantAgents("3:w,w2+a 4: 5:")
	s.rule("b").Agent = testKey(5) // it is not the pod's, and stays for bob
	s.look()
	s.wantAgents("3:w,w2+a 4: 5:+b")
	s.wantEgress("alice-pc:3 bob-pc:5")
}

func TestAnAgentIsToldWhoLeavesThroughIt(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := testAgent(3, "1")
		a.Chosen, a.Egress = false, []string{"out"}
		o.set(a)
		c := o.greet(testKey(3), "pod-1")
		sets, _ := c.sets()
		if len(sets) != 1 || len(sets[0].Rules) != 0 || !slices.Equal(sets[0].Egress, []string{"out"}) {
			t.Fatalf("told %+v", sets)
		}
		_ = c.say(control.FromAgent{Generation: sets[0].Generation})
		c.live(control.Beat)
		if r, ok := o.s.Report(testKey(3)); !ok || !r.InForce["out"] {
			t.Errorf("report %+v", r)
		}
		a.Egress = []string{"out", "more"}
		o.set(a)
		if sets, _ = c.sets(); len(sets) != 2 || len(sets[1].Egress) != 2 {
			t.Fatalf("told %+v", sets)
		}
		if r, _ := o.s.Report(testKey(3)); !r.InForce["out"] || r.InForce["more"] {
			t.Errorf("report %+v", r)
		}
		a.Egress = nil
		o.set(a)
		if sets, _ = c.sets(); len(sets) != 3 || len(sets[2].Egress)+len(sets[2].Rules) != 0 {
			t.Fatalf("told %+v", sets)
		}
	})
}

// checkEgress: a peer is named exactly if its user has rules of egress, and its
// agent is that of an accepted one, and connected; zero only if there is none.
func checkEgress(t *testing.T, w World, p Plan, accepted map[string]Object) {
	t.Helper()
	users := map[string]string{}
	for _, l := range w.Laptops {
		users[l.Name] = l.User
	}
	ways := map[string][]netip.Addr{}
	for _, o := range w.Rules {
		if !o.Egress || users[o.Peer] != o.User {
			continue
		}
		ways[o.Peer] = append(ways[o.Peer], netip.Addr{})
		if _, ok := accepted[o.Name]; ok && o.Agent[1] >= 3 && w.Connects(o.Agent, o.PodUID) {
			ways[o.Peer] = append(ways[o.Peer], o.Agent.Address6())
		}
	}
	if len(ways) != len(p.Egress) {
		t.Fatalf("egress %v of %v", p.Egress, ways)
	}
	for _, e := range p.Egress {
		if all := ways[e.Peer]; !slices.Contains(all, e.Agent) || !e.Agent.IsValid() && slices.ContainsFunc(all, netip.Addr.IsValid) {
			t.Fatalf("%s leaves through %v, of %v", e.Peer, e.Agent, all)
		}
	}
}
