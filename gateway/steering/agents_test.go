package steering

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

func TestTheOldestRuleNamesTheAgent(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice")
	s.wantAgents("")
	s.steer("b", "bob", agent(4))
	s.wantAgents("4:a,b")
	s.connected(4)
	s.wantAgents("4:a,b")
	s.rule("a").Agent = testKey(3) // alice has put one in at the same time
	s.look()
	s.wantAgents("3: 4:a,b") // which has not come yet, and ends when it does
	s.connected(3, 4)
	s.wantAgents("3:a,b 4:")
	s.rule("b").Agent = testKey(3)
	s.look()
	s.wantAgents("3:a,b 4:")
	s.after(farewell)
	s.wantAgents("3:a,b")
}

// alice's laptop sleeps, and the agent that her rule names is dead.
func TestADeadAgentIsInNobodysWay(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	s.steer("b", "bob", agent(4))
	s.wantAgents("3:a,b 4:a,b")
	s.connected(4)
	s.wantAgents("3: 4:a,b")
}

func TestAnAgentIsToldThatAllIsOver(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	s.remove("a")
	s.wantAgents("3:")
	if len(s.plan.Ties) != 0 {
		t.Errorf("ties: %v", s.plan.Ties)
	}
	if want := s.now.Add(farewell); !s.plan.Next.Equal(want) {
		t.Errorf("next look at %v, want %v", s.plan.Next, want)
	}
	s.after(farewell - time.Second)
	s.wantAgents("3:")
	s.after(time.Second)
	s.wantAgents("")
	if len(s.book.told)+len(s.book.rules) != 0 {
		t.Errorf("the book remembers %v and %v", s.book.told, s.book.rules)
	}
}

func TestFarewellsAreBounded(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	for i := range 2 * maxEnding {
		s.rule("a").Agent = testKey(10 + i)
		s.look()
	}
	if n := len(s.plan.Agents); n != 1+maxEnding || len(s.book.told) != n {
		t.Errorf("%d agents, %d remembered", n, len(s.book.told))
	}
}

func TestALaptopIsNoAgent(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(2)) // bob's laptop
	s.steer("b", "bob", agent(4))
	s.wantIn("a")
	s.wantAgents("4:a,b")
	s.world.Laptops = append(s.world.Laptops, Laptop{Name: "eve-pc", User: "eve", Key: testKey(4), Lease: leaseTime})
	s.look()
	s.wantAgents("")
}

// A user may steer pod 2, and names in its rule the agent of pod 1, where they
// may do nothing. That agent says that it is in pod 1, and gets what is pod 1's.
func TestAnAgentOfAnotherPod(t *testing.T) {
	s := begin(t)
	s.steer("b", "bob", inPod("2"))
	s.steer("a", "alice", agent(3))
	s.rule("b").Agent = testKey(3)
	s.look()
	if len(s.plan.Agents) != 2 {
		t.Fatalf("agents %q", s.agents())
	}
	for i, want := range []string{"pod-1 a", "pod-2 b"} {
		if a := s.plan.Agents[i]; a.PodUID+" "+a.Rules[0].Name != want || len(a.Rules) != 1 {
			t.Errorf("agent %d has %q and %v, want %s", i, a.PodUID, a.Rules, want)
		}
	}
}

// A user may steer pod 2, and says that its UID is that of pod 1.
func TestAUIDBelongsToOnePod(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	s.steer("b", "bob", agent(3), func(o *Object) { o.Pod = "web-2" })
	s.wantOut("b", podnet.ReasonInvalid, "podUID", "shop/web-1")
	s.steer("c", "bob", agent(3), func(o *Object) { o.Namespace = "bobs" })
	s.wantOut("c", podnet.ReasonInvalid, "podUID", "shop/web-1")
	s.wantAgents("3:a")
}

func TestTies(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	s.steer("a2", "alice", func(o *Object) { o.RelayPort = 20001 })
	s.steer("b", "bob", agent(4)) // which is not the pod's agent
	s.connected(3)
	s.steer("u", "bob", func(o *Object) { o.Steer.Protocol, o.Steer.Matches, o.RelayPort = steer.UDP, nil, 20007 })
	at, alice, bob := testKey(3).Address6(), testKey(1).RelayAddress6(), testKey(2).RelayAddress6()
	want := []Tie{
		{at, alice, control.LivePort, steer.TCP}, {at, alice, 20000, steer.TCP}, {at, alice, 20001, steer.TCP},
		{at, bob, control.LivePort, steer.TCP}, {at, bob, 20000, steer.TCP}, {at, bob, 20007, steer.UDP},
	}
	if bob.Less(alice) {
		want = append(want[3:], want[:3]...)
	}
	if !reflect.DeepEqual(s.plan.Ties, want) {
		t.Errorf("ties %v, want %v", s.plan.Ties, want)
	}
}

// Whatever there is, and however it comes and goes: the order of the lists does
// not matter, what is accepted does not clash, and agents and ties are those of
// what is accepted.
func TestPlanHoldsItsPromises(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := World{PolicyHolds: true, Connected: true}
		for i, u := range []string{"alice", "bob", "carol"} {
			w.Laptops = append(w.Laptops, Laptop{Name: u + "-pc", User: u, Key: testKey(i), Lease: leaseTime})
		}
		one, other, now := NewBook(time.Hour), NewBook(time.Hour), time.Unix(1_700_000_000, 0)
		for step := range 30 {
			now = now.Add(time.Duration(r.IntN(60)) * time.Second)
			change(r, &w, seed, step, now)
			shuffled := w
			order := r.Perm(len(w.Rules))
			shuffled.Rules, shuffled.Laptops = make([]Object, len(order)), slices.Clone(w.Laptops)
			slices.Reverse(shuffled.Laptops)
			for at, from := range order {
				shuffled.Rules[at] = w.Rules[from]
			}
			p, q := one.Plan(now, w), other.Plan(now, shuffled)
			back := make([]Verdict, len(order))
			for at, from := range order {
				back[from] = q.Verdicts[at]
			}
			for i := range q.Delete {
				q.Delete[i] = order[q.Delete[i]]
			}
			slices.Sort(q.Delete)
			q.Verdicts = back
			if !reflect.DeepEqual(p, q) {
				t.Fatalf("seed %d, step %d: the order matters:\n%+v\n%+v", seed, step, p, q)
			}
			checkPlan(t, w, p)
		}
	}
}

func change(r *rand.Rand, w *World, seed uint64, step int, now time.Time) {
	w.Connected, w.PolicyHolds = r.IntN(8) > 0, r.IntN(8) > 0
	connected := testKey(r.IntN(12))
	w.Connects = func(k key.Public, _ string) bool { return k == connected }
	w.Rules = slices.Clone(w.Rules)
	for i := range w.Rules {
		o := &w.Rules[i]
		if r.IntN(3) == 0 {
			o.Renew++
		}
		if r.IntN(4) == 0 {
			o.Agent = testKey(r.IntN(12)) // 0 to 2 are laptops'
		}
	}
	if len(w.Rules) > 12 {
		at := r.IntN(len(w.Rules))
		w.Rules = slices.Delete(w.Rules, at, at+1)
	}
	for n := range r.IntN(4) {
		user := []string{"alice", "bob", "carol"}[r.IntN(3)]
		o := object(fmt.Sprintf("%s-%d-%d-%d", user, seed, step, n), user, now.Truncate(time.Minute))
		o.RelayPort += uint16(r.IntN(3))
		if r.IntN(3) == 0 {
			inPod("2")(&o)
		}
		switch r.IntN(5) {
		case 4:
			leaving(&o)
		case 0:
			whole(&o)
		case 1:
			o.Steer.Matches = header([]string{"a*", "alice", "*"}[r.IntN(3)])
		case 2:
			o.Steer.Mode = steer.Mirror
		}
		w.Rules = append(w.Rules, o)
	}
}

func checkPlan(t *testing.T, w World, p Plan) {
	t.Helper()
	accepted := map[string]Object{}
	for i, v := range p.Verdicts {
		o := w.Rules[i]
		if v.Reason == "" || v.Message == "" {
			t.Fatalf("%s: nothing is said: %+v", o.Name, v)
		}
		if !v.Accepted {
			continue
		}
		for _, other := range accepted {
			if other.PodUID == o.PodUID && !other.Egress && !o.Egress && (steer.Clash(o.Steer, other.Steer) != nil || steer.Clash(other.Steer, o.Steer) != nil) {
				t.Fatalf("%s and %s clash", o.Name, other.Name)
			}
		}
		accepted[o.Name] = o
	}
	ties := map[Tie]bool{}
	chosen := map[string]int{}
	connected := map[string]bool{}
	for _, a := range p.Agents {
		if a.Key[1] < 3 {
			t.Fatalf("a laptop is an agent: %+v", a)
		}
		if a.Chosen {
			chosen[a.PodUID]++
			connected[a.PodUID] = connected[a.PodUID] || w.Connects(a.Key, a.PodUID)
		}
		if connected[a.PodUID] && chosen[a.PodUID] > 1 {
			t.Fatalf("%s has %d agents, one of them connected", a.PodUID, chosen[a.PodUID])
		}
		for _, name := range a.Egress {
			if o := accepted[name]; !o.Egress || o.PodUID != a.PodUID || o.Agent != a.Key {
				t.Fatalf("flows leave through the agent %v of %s by %+v", a.Key[1], a.PodUID, o)
			}
		}
		for _, r := range a.Rules {
			if o := accepted[r.Name]; !a.Chosen || o.Egress || o.PodUID != a.PodUID || !reflect.DeepEqual(o.Steer, r.Rule) || r.Here {
				t.Fatalf("agent of %s has %+v", a.PodUID, r)
			}
			ties[Tie{a.Key.Address6(), r.Laptop, r.RelayPort, steer.TCP}] = true
			ties[Tie{a.Key.Address6(), r.Laptop, control.LivePort, steer.TCP}] = true
		}
	}
	checkEgress(t, w, p, accepted)
	if len(ties) != len(p.Ties) {
		t.Fatalf("%d ties, want %d", len(p.Ties), len(ties))
	}
	for _, tie := range p.Ties {
		if !ties[tie] {
			t.Fatalf("tie %v is for nothing", tie)
		}
	}
}
