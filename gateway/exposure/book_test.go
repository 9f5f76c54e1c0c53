package exposure

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/lease"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
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

// begin has alice and bob at their laptops, with the keys 1 and 2, and a gateway
// that leads.
func begin(t *testing.T) *story {
	s := &story{t: t, book: NewBook(24 * time.Hour), now: time.Unix(1_700_000_000, 0), world: World{
		PolicyHolds: true, Connected: true, Leader: true,
		Laptops: []lease.Laptop{{Name: "alice-pc", User: "alice", Key: testKey(1), Lease: leaseTime}, {Name: "bob-pc", User: "bob", Key: testKey(2), Lease: leaseTime}},
	}}
	s.look() // so that what comes next is not taken for older than the gateway
	return s
}

func testKey(i byte) (k key.Public) { k[0], k[1] = 1, i; return k }

func (s *story) look() { s.plan = s.book.Plan(s.now, s.world) }

func (s *story) after(d time.Duration) { s.now = s.now.Add(d); s.look() }

// expose adds an exposure in shop, a second younger than the last one.
func (s *story) expose(name, user string, change ...func(*Object)) {
	s.now = s.now.Add(time.Second)
	o := Object{UID: "uid-" + name, Namespace: "shop", Name: name, Created: s.now, User: user, Peer: user + "-pc", Renew: 1,
		Ports: []Port{{Protocol: steer.TCP, Port: 80, Relay: 20000}, {Protocol: steer.UDP, Port: 53, Relay: 20001}}}
	for _, f := range change {
		f(&o)
	}
	s.world.Objects = append(s.world.Objects, o)
	s.look()
}

func (s *story) index(name string) int {
	return slices.IndexFunc(s.world.Objects, func(o Object) bool { return o.Name == name })
}

func (s *story) remove(name string) {
	i := s.index(name)
	s.world.Objects = slices.Delete(s.world.Objects, i, i+1)
	s.look()
}

func (s *story) live(name string) *Live {
	for i, l := range s.plan.Live {
		if l.Name == name {
			return &s.plan.Live[i]
		}
	}
	return nil
}

func (s *story) want(name, reason string, words ...string) {
	s.t.Helper()
	v, in := s.plan.Verdicts[s.index(name)], s.live(name) != nil
	if v.Reason != reason || v.Ready != (reason == podnet.ReasonAdmitted) || in != v.Ready || !strings.HasSuffix(v.Message, ".") || v.Ready == v.Expires.IsZero() {
		s.t.Fatalf("%s: want %s, got %+v, live %v", name, reason, v, in)
	}
	for _, w := range words {
		if !strings.Contains(v.Message, w) {
			s.t.Errorf("%s: %q does not say %q", name, v.Message, w)
		}
	}
}

// write has the cluster know the Services as they are planned.
func (s *story) write() {
	s.world.Services = nil
	for _, l := range s.plan.Live {
		s.world.Services = append(s.world.Services, Service{Name: l.Service, Exposure: l.UID, Created: s.now, Ports: slices.Clone(l.Ports)})
	}
	s.look()
}

func (s *story) pods(name string) (all []uint16) {
	if l := s.live(name); l != nil {
		for _, p := range l.Ports {
			all = append(all, p.Pod)
		}
	}
	return all
}

func TestAnExposureLeadsToItsLaptop(t *testing.T) {
	s := begin(t)
	s.expose("my-api", "alice")
	s.want("my-api", podnet.ReasonAdmitted)
	l := s.live("my-api")
	if l.Laptop != testKey(1).RelayAddress6() || l.Service != "podnet-x-uidmyapi" || l.Settled {
		t.Errorf("%+v", l)
	}
	s.write()
	if l := s.live("my-api"); !l.Settled {
		t.Errorf("its Service is there: %+v", l)
	}
	s.after(leaseTime)
	s.want("my-api", podnet.ReasonExpired)
	if !s.plan.Next.Equal(s.now.Add(24 * time.Hour)) {
		t.Errorf("next look after %v", s.plan.Next.Sub(s.now))
	}
	s.world.Objects[0].Renew++
	s.look()
	s.want("my-api", podnet.ReasonAdmitted)
	s.after(leaseTime)
	s.after(24 * time.Hour)
	if !slices.Equal(s.plan.Delete, []int{0}) {
		t.Errorf("it stays: %v", s.plan.Delete)
	}
}

func TestWhatCannotBeExposed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Object)
		reason string
		words  string
	}{
		"somebody else's laptop": {func(o *Object) { o.Peer = "bob-pc" }, podnet.ReasonPeerMissing, "No Peer bob-pc of alice"},
		"no laptop":              {func(o *Object) { o.Peer = "none" }, podnet.ReasonPeerMissing, "none"},
		"no port":                {func(o *Object) { o.Ports = nil }, podnet.ReasonInvalid, "1 to 8"},
		"a port of its own":      {func(o *Object) { o.Ports[0].Relay = 7411 }, podnet.ReasonInvalid, "7411"},
		"a low port":             {func(o *Object) { o.Ports[0].Relay = 80 }, podnet.ReasonInvalid, "above 1023"},
		"sctp":                   {func(o *Object) { o.Ports[0].Protocol = "sctp" }, podnet.ReasonInvalid, "sctp"},
		"twice the same":         {func(o *Object) { o.Ports[1] = o.Ports[0] }, podnet.ReasonInvalid, "80/tcp is there twice"},
		"a dotted name":          {func(o *Object) { o.Name = "my.api" }, podnet.ReasonInvalid, "my.api"},
		"ended before":           {func(o *Object) { o.Ended = true }, podnet.ReasonExpired, "renewed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.expose("my-api", "alice", c.change)
			s.want(s.world.Objects[0].Name, c.reason, c.words)
		})
	}
	s := begin(t)
	s.world.PolicyHolds = false
	s.expose("my-api", "alice")
	s.want("my-api", podnet.ReasonPolicyMissing)
}

// TestWhoWasThereFirstStays: limits meet the youngest.
func TestWhoWasThereFirstStays(t *testing.T) {
	s := begin(t)
	for i := range MaxPerUser {
		s.expose(fmt.Sprintf("a-%d", i), "alice")
	}
	s.expose("one-more", "alice")
	s.expose("bobs", "bob")
	slices.Reverse(s.world.Objects)
	s.look()
	s.want("one-more", podnet.ReasonLimitReached, "alice has 32")
	s.want("bobs", podnet.ReasonAdmitted)
	s.remove("a-7")
	s.want("one-more", podnet.ReasonAdmitted)
	for i := range MaxAll / MaxPerUser {
		user := fmt.Sprintf("user%d", i)
		s.world.Laptops = append(s.world.Laptops, lease.Laptop{Name: user + "-pc", User: user, Key: testKey(byte(10 + i)), Lease: leaseTime})
		for n := range MaxPerUser {
			s.world.Objects = append(s.world.Objects, Object{UID: fmt.Sprintf("%s-%d", user, n), Namespace: "shop", Name: fmt.Sprintf("%s-%d", user, n), Created: s.now.Add(time.Second),
				User: user, Peer: user + "-pc", Renew: 1, Ports: []Port{{Protocol: steer.TCP, Port: 80, Relay: 20000}}})
		}
	}
	s.look()
	if len(s.plan.Live) != MaxAll {
		t.Errorf("%d exposures live", len(s.plan.Live))
	}
	s.want("user7-9", podnet.ReasonLimitReached, "256")
}

// TestPortsOutliveGateways: what a leader gave stands in the Services, and whoever
// comes next goes by them.
func TestPortsOutliveGateways(t *testing.T) {
	s := begin(t)
	s.expose("first", "alice")
	s.expose("second", "bob")
	first, second := s.pods("first"), s.pods("second")
	if all := slices.Concat(first, second); len(slices.Compact(slices.Sorted(slices.Values(all)))) != 4 || slices.Min(all) < FirstPort || slices.Max(all) > LastPort {
		t.Fatalf("ports %v", all)
	}
	s.look()
	if !slices.Equal(s.pods("first"), first) {
		t.Errorf("the ports change before the Service is there: %v", s.pods("first"))
	}
	s.write()
	services := s.world.Services
	s.world.Services = nil // somebody deletes them
	if s.look(); !slices.Equal(s.pods("first"), first) || s.live("first").Settled {
		t.Errorf("the ports change as the Service is gone: %v", s.pods("first"))
	}
	s.world.Services = services
	s.look()

	follower := NewBook(time.Hour)
	w := s.world
	w.Leader = false
	if p := follower.Plan(s.now, w); p.Live[1].Ports[0].Pod != second[0] || !p.Live[1].Settled {
		t.Errorf("a follower has %+v", p.Live[1])
	}
	w.Services = w.Services[:1]
	if p := follower.Plan(s.now, w); p.Live[1].Ports[0].Pod != 0 || p.Live[1].Settled {
		t.Errorf("a follower made up ports: %+v", p.Live[1])
	}

	s.book = NewBook(time.Hour)
	s.look()
	if !slices.Equal(s.pods("first"), first) || !slices.Equal(s.pods("second"), second) {
		t.Errorf("after a restart: %v %v, want %v %v", s.pods("first"), s.pods("second"), first, second)
	}
	s.remove("second") // its Service is still there
	s.expose("third", "alice")
	for _, p := range s.pods("third") {
		if slices.Contains(second, p) || slices.Contains(first, p) {
			t.Errorf("port %d is given again at once", p)
		}
	}
	s.write()
	s.expose("fourth", "alice")
	for _, p := range s.pods("fourth") {
		if slices.Contains(second, p) {
			t.Errorf("port %d is given again while others were not", p)
		}
	}
}

// TestTwoLeadersGaveTheSamePort: the older Service keeps it.
func TestTwoLeadersGaveTheSamePort(t *testing.T) {
	s := begin(t)
	s.expose("first", "alice")
	s.expose("second", "bob")
	s.write()
	young := &s.world.Services[1]
	young.Created = s.now.Add(time.Second)
	young.Ports[0].Pod = s.world.Services[0].Ports[1].Pod
	kept := s.pods("first")
	s.look()
	if got := s.pods("second"); !slices.Equal(s.pods("first"), kept) || slices.Contains(kept, got[0]) || got[0] == 0 || s.live("second").Settled || !s.live("first").Settled {
		t.Errorf("first %v, second %v", s.pods("first"), got)
	}
	for what, ports := range map[string][]Port{
		"podnet's own port": {{Protocol: steer.TCP, Port: 80, Pod: 8081}, {Protocol: steer.UDP, Port: 53, Pod: 21000}},
		"one port less":     {{Protocol: steer.TCP, Port: 80, Pod: 21001}},
		"another protocol":  {{Protocol: steer.UDP, Port: 80, Pod: 21001}, {Protocol: steer.UDP, Port: 53, Pod: 21000}},
		"one port more":     {{Protocol: steer.TCP, Port: 80, Pod: 21001}, {Protocol: steer.UDP, Port: 53, Pod: 21000}, {Protocol: steer.TCP, Port: 81, Pod: 21002}},
	} {
		s.world.Services[1].Ports = ports
		s.look()
		if l := s.live("second"); l.Settled || slices.ContainsFunc(l.Ports, func(p Port) bool { return p.Pod < FirstPort }) {
			t.Errorf("%s: %+v", what, l)
		}
	}
}
