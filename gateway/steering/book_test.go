package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/lease"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

const leaseTime = 300 * time.Second

// story is a gateway's life in a test: objects, a clock, and the last plan.
type story struct {
	t     *testing.T
	book  *Book
	now   time.Time
	world World
	plan  Plan
}

// begin has alice and bob at their laptops, with the keys 1 and 2.
func begin(t *testing.T) *story {
	s := &story{t: t, book: NewBook(24 * time.Hour), now: time.Unix(1_700_000_000, 0), world: World{
		PolicyHolds: true, Connected: true,
		Laptops: []Laptop{{Name: "alice-pc", User: "alice", Key: testKey(1), Lease: leaseTime}, {Name: "bob-pc", User: "bob", Key: testKey(2), Lease: leaseTime}},
	}}
	s.look() // so that what comes next is not taken for older than the gateway
	return s
}

func testKey(i int) (k key.Public) { k[0], k[1], k[2] = 1, byte(i), byte(i>>8); return k }

func (s *story) look() { s.plan = s.book.Plan(s.now, s.world) }

func (s *story) after(d time.Duration) { s.now = s.now.Add(d); s.look() }

// steer adds a rule for the pod shop/web-1, a second younger than the last one.
func (s *story) steer(name, user string, change ...func(*Object)) {
	s.now = s.now.Add(time.Second)
	o := object(name, user, s.now)
	for _, f := range change {
		f(&o)
	}
	s.world.Rules = append(s.world.Rules, o)
	s.look()
}

func object(name, user string, created time.Time) Object {
	return Object{
		UID: "uid-" + name, Namespace: "shop", Name: name, Created: created, User: user, Peer: user + "-pc", Rule: "r", Pod: "web-1", PodUID: "pod-1",
		Renew: 1, RelayPort: 20000,
		Steer: steer.Rule{Name: name, Owner: user, Since: created, Protocol: steer.TCP, Port: 8080, Mode: steer.Steal, Matches: header(user)},
	}
}

func header(value string) []steer.Match {
	return []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: value}}}}
}

func whole(o *Object) { o.Steer.Matches = nil }

func inPod(pod string) func(*Object) {
	return func(o *Object) { o.Pod, o.PodUID = "web-"+pod, "pod-"+pod }
}

func agent(n int) func(*Object) { return func(o *Object) { o.Agent = testKey(n) } }

func (s *story) rule(name string) *Object {
	return &s.world.Rules[slices.IndexFunc(s.world.Rules, func(o Object) bool { return o.Name == name })]
}

func (s *story) verdict(name string) Verdict {
	return s.plan.Verdicts[slices.IndexFunc(s.world.Rules, func(o Object) bool { return o.Name == name })]
}

func (s *story) renew(names ...string) {
	for _, n := range names {
		s.rule(n).Renew++
	}
	s.look()
}

func (s *story) remove(name string) {
	s.world.Rules = slices.DeleteFunc(s.world.Rules, func(o Object) bool { return o.Name == name })
	s.look()
}

func (s *story) wantIn(names ...string) {
	s.t.Helper()
	for _, n := range names {
		if v := s.verdict(n); !v.Accepted || v.Reason != podnet.ReasonAccepted || v.Message == "" || v.Expires.IsZero() {
			s.t.Fatalf("%s is out: %+v", n, v)
		}
	}
}

func (s *story) wantOut(name, reason string, words ...string) {
	s.t.Helper()
	v := s.verdict(name)
	if v.Accepted || v.Reason != reason || !strings.HasSuffix(v.Message, ".") {
		s.t.Fatalf("%s: want out for %s, got %+v", name, reason, v)
	}
	for _, w := range words {
		if !strings.Contains(v.Message, w) {
			s.t.Errorf("%s: %q does not say %q", name, v.Message, w)
		}
	}
}

// connected says which agents are connected from now on.
func (s *story) connected(agents ...int) {
	s.world.Connects = func(k key.Public, _ string) bool {
		return slices.ContainsFunc(agents, func(n int) bool { return testKey(n) == k })
	}
	s.look()
}

// agents tells who the agents are: "3:a,b" is the agent with key 3, which has the
// rules a and b, "4:" one that is to end, "5:+c" one through which flows leave by
// the rule c.
func (s *story) agents() string {
	var all []string
	for _, a := range s.plan.Agents {
		var names []string
		for _, r := range a.Rules {
			names = append(names, r.Name)
		}
		if a.Chosen != (len(names) > 0) {
			s.t.Errorf("agent %v: chosen %v with the rules %v", a.Key[1], a.Chosen, names)
		}
		text := fmt.Sprintf("%d:%s", a.Key[1], strings.Join(names, ","))
		if len(a.Egress) > 0 {
			text += "+" + strings.Join(a.Egress, ",")
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func (s *story) wantAgents(want string) {
	s.t.Helper()
	if got := s.agents(); got != want {
		s.t.Fatalf("agents %q, want %q", got, want)
	}
}

func TestARuleLivesByItsLease(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	if s.wantIn("a"); !s.plan.Next.Equal(s.now.Add(leaseTime)) {
		t.Errorf("next look at %v, want at the deadline", s.plan.Next)
	}
	s.after(leaseTime - time.Second)
	s.renew("a")
	s.after(leaseTime - time.Second)
	s.wantIn("a")
	s.after(time.Second)
	s.wantOut("a", podnet.ReasonExpired)
	s.wantAgents("3:")
	s.renew("a")
	s.wantIn("a")
	s.wantAgents("3:a")
}

func TestAnExpiredRuleGoesInTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		lease time.Duration
		alone bool // the peer goes as well
		keep  time.Duration
	}{
		"somebody's":   {leaseTime, false, 24 * time.Hour},
		"a CI job's":   {120 * time.Second, false, 3 * time.Second},
		"an orphan's":  {leaseTime, true, leaseTime},
		"CI's, orphan": {120 * time.Second, true, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.world.Laptops[0].Lease = c.lease
			s.steer("a", "alice")
			if c.alone {
				s.world.Laptops = s.world.Laptops[1:]
				s.look()
				s.wantOut("a", podnet.ReasonPeerMissing, "alice-pc", "alice")
			}
			s.after(c.lease)
			s.wantOut("a", podnet.ReasonExpired)
			s.after(c.keep - time.Second)
			if len(s.plan.Delete) != 0 || !s.plan.Next.Equal(s.now.Add(time.Second)) {
				t.Fatalf("a second before: delete %v, next in %v", s.plan.Delete, s.plan.Next.Sub(s.now))
			}
			s.after(time.Second)
			if !slices.Equal(s.plan.Delete, []int{0}) {
				t.Errorf("delete %v", s.plan.Delete)
			}
		})
	}
}

func TestLeasesAreFrozenWhileTheControlPlaneIsAway(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3))
	s.world.Connected = false
	s.after(lease.FrozenLimit - time.Second)
	s.wantIn("a")
	s.world.Connected = true
	s.look()
	s.wantIn("a")
	s.after(leaseTime/2 - time.Second)
	s.wantIn("a")
	s.after(time.Second)
	s.wantOut("a", podnet.ReasonExpired)
}

func TestAfterAStart(t *testing.T) {
	s := begin(t)
	s.steer("alive", "alice")
	s.steer("dead", "alice", func(o *Object) { o.Ended = true })
	s.book = NewBook(24 * time.Hour) // another gateway
	s.look()
	s.wantIn("alive")
	s.wantOut("dead", podnet.ReasonExpired)
	s.after(leaseTime / 2)
	s.wantOut("alive", podnet.ReasonExpired)
}

func TestWithoutPolicyNothingNewActs(t *testing.T) {
	s := begin(t)
	s.steer("old", "alice")
	s.world.PolicyHolds = false
	s.steer("new", "alice")
	s.wantIn("old")
	s.wantOut("new", podnet.ReasonPolicyMissing)
	if v := s.verdict("old"); !strings.Contains(v.Message, "cannot be renewed") {
		t.Errorf("old: %q", v.Message)
	}
	s.renew("old", "new")
	s.after(leaseTime)
	s.wantOut("old", podnet.ReasonExpired)
	s.world.PolicyHolds = true
	s.renew("new")
	s.wantIn("new")
}

func TestARuleNeedsItsOwnUsersPeer(t *testing.T) {
	s := begin(t)
	s.steer("a", "bob", func(o *Object) { o.Peer = "alice-pc" }) // bob would send the pod's traffic to alice
	s.wantOut("a", podnet.ReasonPeerMissing, "alice-pc", "bob")
	if len(s.plan.Ties) != 0 {
		t.Errorf("ties: %v", s.plan.Ties)
	}
}

func TestWhatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Object)
		words  string
	}{
		"what the object says": {func(o *Object) { o.Invalid = errors.New("mode: it is both") }, "mode: it is both"},
		"a low relay port":     {func(o *Object) { o.RelayPort = 443 }, "relayPort"},
		"the live port":        {func(o *Object) { o.RelayPort = control.LivePort }, "relayPort"},
		"too much":             {func(o *Object) { o.Steer.Matches = long(17) }, "matches: they take"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.steer("a", "alice", agent(3), c.change)
			s.wantOut("a", podnet.ReasonInvalid, c.words)
			s.wantAgents("")
		})
	}
}

// long are matches of about n KiB, at most 31.
func long(n int) []steer.Match {
	m := steer.Match{}
	for i := range n {
		m.Headers = append(m.Headers, steer.Condition{Name: fmt.Sprint("x-", i), Value: strings.Repeat("x", 960)})
	}
	return []steer.Match{m}
}

func TestTheOlderRuleStays(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", whole)
	s.steer("b", "bob", whole, agent(4))
	s.wantIn("a")
	s.wantOut("b", podnet.ReasonClash, "alice", "rule a ", "tcp port 8080")
	s.wantAgents("")

	s.steer("a2", "alice", whole) // one's own rules may stand side by side
	s.steer("b2", "bob", inPod("2"), whole)
	s.steer("b3", "bob", whole, func(o *Object) { o.Steer.Port = 8081 })
	s.steer("b4", "bob", whole, func(o *Object) { o.Steer.Mode = steer.Mirror })
	s.wantIn("a2", "b2", "b3", "b4")

	s.remove("a")
	s.wantIn("b")
	s.wantOut("a2", podnet.ReasonClash, "bob", "rule b ") // as it is younger
	s.wantAgents("4:b,b3,b4")
}

func TestARuleThatExpiredMakesRoom(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice")
	s.steer("b", "bob", func(o *Object) { o.Steer.Matches = header("alice") })
	s.wantOut("b", podnet.ReasonClash)
	s.after(200 * time.Second)
	s.renew("b")
	s.after(100 * time.Second)
	s.wantOut("a", podnet.ReasonExpired)
	s.wantIn("b")
	s.renew("a") // it is the older one, still
	s.wantIn("a")
	s.wantOut("b", podnet.ReasonClash)
}

// The API server lets nobody change a rule, but if it did, what was decided about
// the old one would not count.
func TestAChangedRuleIsJudgedAnew(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice")
	s.steer("b", "bob")
	s.wantIn("a", "b")
	s.rule("b").Steer.Matches = header("alice")
	s.look()
	s.wantOut("b", podnet.ReasonClash)
	s.rule("a").Steer.Matches = header("anna")
	s.look()
	s.wantIn("a", "b")
	s.after(leaseTime - time.Second)
	s.wantOut("a", podnet.ReasonExpired) // the lease is the same as before
}

func TestLimits(t *testing.T) {
	many := func(s *story, n int, user string, change func(int, *Object)) {
		for i := range n {
			s.now = s.now.Add(time.Second)
			o := object(fmt.Sprintf("%s-%04d", user, i), user, s.now)
			change(i, &o)
			s.world.Rules = append(s.world.Rules, o)
		}
		s.look()
	}
	in := func(s *story) (n int) {
		for _, v := range s.plan.Verdicts {
			if v.Accepted {
				n++
			} else if v.Reason != podnet.ReasonLimitReached {
				s.t.Fatalf("%+v", v)
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		users, each int
		change      func(int, *Object)
		want        int
	}{
		"rules of a user": {1, 70, func(int, *Object) {}, 64},
		"rules of a pod":  {5, 60, func(int, *Object) {}, control.MaxRules},
		"bytes of a user": {1, 30, func(_ int, o *Object) { o.Steer.Matches = long(15) }, 17},
		"pods": {1, maxPods + 2, func(i int, o *Object) {
			inPod(fmt.Sprint(i))(o)
		}, maxPods},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			for u := range c.users {
				user := fmt.Sprint("user", u)
				s.world.Laptops = append(s.world.Laptops, Laptop{Name: user + "-pc", User: user, Key: testKey(100 + u), Lease: time.Hour})
				many(s, c.each, user, c.change)
			}
			if got := in(s); got != c.want {
				t.Errorf("%d rules are accepted, want %d", got, c.want)
			}
		})
	}
}

// The rules of a pod must fit into one line, however long they are.
func TestAFullSetCanBeSent(t *testing.T) {
	s := begin(t)
	for u := range 5 {
		user := fmt.Sprint("user", u)
		s.world.Laptops = append(s.world.Laptops, Laptop{Name: user + "-pc", User: user, Key: testKey(100 + u), Lease: time.Hour})
		for i := range 20 {
			s.world.Rules = append(s.world.Rules, object(fmt.Sprint(user, i), user, s.now))
			o := &s.world.Rules[len(s.world.Rules)-1]
			o.Steer.Mode, o.Steer.Matches, o.Agent = steer.Mirror, long(15), testKey(3)
			for i := range o.Steer.Matches[0].Headers { // < becomes \u003c
				o.Steer.Matches[0].Headers[i].Value = strings.Repeat("<", 160)
			}
		}
	}
	s.look()
	set := &control.Set{Rules: slices.Clone(s.plan.Agents[0].Rules)}
	for i := range set.Rules {
		set.Rules[i].Here = true
	}
	var n counter
	if err := control.Write(&n, control.ToAgent{Set: set}); err != nil || n > maxPod+1024 || n < maxPod-maxRule {
		t.Errorf("a set of %d rules and %d bytes: %v", len(set.Rules), n, err)
	}
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

func TestPodAddrs(t *testing.T) {
	s := begin(t)
	s.world.PodAddrs = func(uid string) []netip.Addr {
		return map[string][]netip.Addr{"pod-1": {netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.1")}}[uid]
	}
	s.steer("a", "alice", agent(3))
	s.steer("b", "alice", agent(4), inPod("2"))
	if a := s.plan.Agents; fmt.Sprint(a[0].Addrs, a[1].Addrs) != "[10.0.0.1 fd00::1] []" {
		t.Errorf("%v %v", a[0].Addrs, a[1].Addrs)
	}
}

// A thousand pods with two rules each, of two users who do not clash.
func BenchmarkPlan(b *testing.B) {
	w := World{PolicyHolds: true, Connected: true, Laptops: []Laptop{{Name: "alice-pc", User: "alice", Key: testKey(1), Lease: leaseTime}, {Name: "bob-pc", User: "bob", Key: testKey(2), Lease: leaseTime}}}
	for i := range 1000 {
		for _, user := range []string{"alice", "bob"} {
			o := object(fmt.Sprint(user, i), user, time.Unix(int64(i), 0))
			inPod(fmt.Sprint(i))(&o)
			agent(10 + i)(&o)
			w.Rules = append(w.Rules, o)
		}
	}
	book, now := NewBook(time.Hour), time.Unix(5000, 0)
	for b.Loop() {
		if p := book.Plan(now, w); len(p.Agents) != 1000 || len(p.Ties) != 4000 {
			b.Fatal(len(p.Agents), len(p.Ties))
		}
	}
}

// What is steered may be no good, whatever the rule says.
func TestARuleIsRefusedForWhatItSteers(t *testing.T) {
	s := begin(t)
	s.steer("a", "alice", agent(3), func(o *Object) { o.Refused = "The Service is headless." })
	s.wantOut("a", podnet.ReasonServiceRefused, "headless")
	s.wantAgents("")
	s.rule("a").Refused = ""
	s.look()
	s.wantIn("a")
	s.wantAgents("3:a")
}
