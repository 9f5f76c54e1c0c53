package enrol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/key"
)

// story is a gateway's life in a test: objects, a clock, and the last plan.
type story struct {
	t     *testing.T
	book  *Book
	now   time.Time
	world World
	plan  Plan
}

func begin(t *testing.T) *story {
	s := &story{t: t, book: NewBook(DefaultConfig()), now: time.Unix(1_700_000_000, 0), world: World{PolicyHolds: true, Connected: true, Leader: true}}
	s.look() // so that what comes next is not taken for older than the gateway
	return s
}

func (s *story) look() { s.plan = s.book.Plan(s.now, s.world) }

func (s *story) after(d time.Duration) { s.now = s.now.Add(d); s.look() }

func testKey(i int) (k key.Public) { k[0], k[1], k[2] = 1, byte(i), byte(i>>8); return k }

func (s *story) enrol(name, user string, n int) {
	s.world.Peers = append(s.world.Peers, Peer{UID: "uid-" + name, Name: name, User: user, Device: "laptop", Created: s.now, Key: testKey(n), Lease: 300 * time.Second, Renew: 1})
	s.look()
}

func (s *story) open(namespace, peer, user string) {
	s.world.Accesses = append(s.world.Accesses, Access{UID: "uid-" + namespace + peer, Namespace: namespace, Name: peer, User: user, Peer: peer, Renew: 1})
	s.look()
}

func (s *story) peer(name string) *Peer {
	i := slices.IndexFunc(s.world.Peers, func(p Peer) bool { return p.Name == name })
	return &s.world.Peers[i]
}

func (s *story) verdict(name string) Verdict {
	return s.plan.Peers[slices.IndexFunc(s.world.Peers, func(p Peer) bool { return p.Name == name })]
}

func (s *story) renew(name string) { s.peer(name).Renew++; s.look() }

func (s *story) remove(name string) {
	s.world.Peers = slices.DeleteFunc(s.world.Peers, func(p Peer) bool { return p.Name == name })
	s.look()
}

func (s *story) admitted(name string) *Admitted {
	i := slices.IndexFunc(s.plan.Admitted, func(a Admitted) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &s.plan.Admitted[i]
}

func (s *story) wantIn(name string) *Admitted {
	s.t.Helper()
	a := s.admitted(name)
	if v := s.verdict(name); a == nil || !v.Ready || v.Reason != podnet.ReasonAdmitted {
		s.t.Fatalf("%s is out: %+v", name, v)
	}
	return a
}

func (s *story) wantOut(name, reason string) {
	s.t.Helper()
	if v := s.verdict(name); s.admitted(name) != nil || v.Ready || v.Reason != reason || v.Message == "" {
		s.t.Fatalf("%s: want out for %s, got %+v", name, reason, v)
	}
}

func TestLeaseRunsOutUnlessRenewed(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	if s.wantIn("a"); !s.plan.Next.Equal(s.now.Add(300 * time.Second)) {
		t.Errorf("next look at %v, want at the deadline", s.plan.Next)
	}
	s.after(299 * time.Second)
	s.wantIn("a")
	s.renew("a")
	s.after(299 * time.Second)
	s.wantIn("a")
	s.after(time.Second)
	s.wantOut("a", podnet.ReasonExpired)
	s.renew("a")
	s.wantIn("a") // the API server let the user write, so the user is back
}

func TestOnlyAGreaterRenewProlongs(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	for range 10 {
		s.after(29 * time.Second)
		s.look()
	}
	s.after(10 * time.Second)
	s.wantOut("a", podnet.ReasonExpired)
}

func TestAccessRunsOutByItself(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	s.open("shop", "a", "alice")
	s.open("pay", "a", "alice")
	if got := s.wantIn("a").Namespaces; !slices.Equal(got, []string{"pay", "shop"}) {
		t.Fatalf("namespaces %v", got)
	}
	s.after(200 * time.Second)
	s.world.Accesses[0].Renew++ // pay is refused from now on
	s.renew("a")
	s.after(100 * time.Second)
	if got := s.wantIn("a").Namespaces; !slices.Equal(got, []string{"shop"}) {
		t.Errorf("namespaces %v, want shop alone", got)
	}
	if v := s.plan.Accesses[1]; v.Ready || v.Reason != podnet.ReasonExpired {
		t.Errorf("access to pay: %+v", v)
	}
}

func TestAccessNeedsItsOwnUsersPeer(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	s.open("shop", "a", "bob") // bob may open shop, and tries to open it for alice's peer
	s.open("pay", "gone", "alice")
	if a := s.wantIn("a"); len(a.Namespaces) != 0 {
		t.Errorf("alice got %v from bob", a.Namespaces)
	}
	for i, v := range s.plan.Accesses {
		if v.Ready || v.Reason != podnet.ReasonPeerMissing {
			t.Errorf("access %d: %+v", i, v)
		}
	}
}

func TestClusterAccess(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	s.open("podnet-system", "a", "alice")
	s.world.Accesses[0].Cluster = true
	s.look()
	if a := s.wantIn("a"); !a.Cluster || len(a.Namespaces) != 0 {
		t.Errorf("%+v", a)
	}
}

func TestOldestHoldsTheKey(t *testing.T) {
	s := begin(t)
	s.enrol("old", "alice", 1)
	s.after(time.Second)
	s.enrol("new", "mallory", 1)
	address := s.wantIn("old").Address4
	s.wantOut("new", podnet.ReasonConflict)
	s.remove("old")
	if got := s.wantIn("new").Address4; got == address {
		t.Errorf("another user's peer got %s at once, without quarantine", got)
	}
}

func TestLimits(t *testing.T) {
	s := begin(t)
	for i := range 6 {
		s.enrol(fmt.Sprintf("a%d", i), "alice", i)
		s.now = s.now.Add(time.Second)
	}
	s.wantOut("a5", podnet.ReasonLimitReached)
	s.enrol("b", "bob", 100)
	s.wantIn("b")
	s.remove("a2")
	s.wantIn("a5")

	s = begin(t)
	for i := range 1001 {
		s.world.Peers = append(s.world.Peers, Peer{UID: fmt.Sprint(i), Name: fmt.Sprint(i), User: fmt.Sprint(i), Created: s.now.Add(time.Duration(i) * time.Second), Key: testKey(i), Lease: time.Minute, Renew: 1})
	}
	s.look()
	s.wantIn("999")
	s.wantOut("1000", podnet.ReasonLimitReached)
}

func TestMissingPolicy(t *testing.T) {
	s := begin(t)
	s.enrol("before", "alice", 1)
	s.world.PolicyHolds = false
	s.enrol("during", "mallory", 2)
	s.wantIn("before")
	if m := s.verdict("before").Message; !strings.Contains(m, "policies are missing") {
		t.Errorf("whoever is in is not told: %q", m)
	}
	s.wantOut("during", podnet.ReasonPolicyMissing)
	s.after(100 * time.Second)
	s.renew("before") // does not count
	s.renew("during")
	s.after(200 * time.Second)
	s.wantOut("before", podnet.ReasonExpired)
	s.world.PolicyHolds = true
	s.look()
	s.wantOut("before", podnet.ReasonExpired)
	s.wantOut("during", podnet.ReasonPolicyMissing) // nobody checked who wrote it
	s.renew("before")
	s.renew("during")
	s.wantIn("before")
	s.wantIn("during")
}

func TestControlPlaneOutage(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	s.open("shop", "a", "alice")
	reaches := func(when string) {
		t.Helper()
		if a := s.wantIn("a"); !slices.Equal(a.Namespaces, []string{"shop"}) {
			t.Errorf("%s: %v is open", when, a.Namespaces)
		}
	}
	s.after(200 * time.Second)
	s.world.Connected, s.world.Leader = false, false // nobody can hold on to the leadership either
	s.after(30 * time.Minute)
	reaches("half an hour without an API server")
	s.world.Connected, s.world.Leader = true, true
	s.look()
	reaches("back, with time to renew")
	s.after(149 * time.Second)
	reaches("while there is still time")
	s.after(time.Second)
	s.wantOut("a", podnet.ReasonExpired)

	s.renew("a")
	s.world.Connected = false
	s.after(FrozenLimit - time.Second)
	s.wantIn("a")
	s.after(time.Second)
	s.wantOut("a", podnet.ReasonExpired)
}

// A restarted gateway must not give the dead a full lease, nor forget who has
// which address.
func TestRestart(t *testing.T) {
	s := begin(t)
	for i, n := range []string{"alive", "dead", "ended"} {
		s.enrol(n, n, i)
	}
	s.after(100 * time.Second)
	addresses := map[string]netip.Addr{}
	for _, n := range []string{"alive", "dead"} {
		addresses[n] = s.wantIn(n).Address4
		s.peer(n).Address4, s.peer(n).Ready = addresses[n], true
	}
	s.peer("ended").Ended = true

	s.book = NewBook(DefaultConfig())
	slices.Reverse(s.world.Peers) // a list comes in any order
	s.look()
	for _, n := range []string{"alive", "dead"} {
		if got := s.wantIn(n).Address4; got != addresses[n] {
			t.Errorf("%s moved from %s to %s", n, addresses[n], got)
		}
	}
	s.wantOut("ended", podnet.ReasonExpired)
	s.after(100 * time.Second)
	s.renew("alive")
	s.after(50 * time.Second)
	s.wantIn("alive")
	s.wantOut("dead", podnet.ReasonExpired)
}

func TestFollowerTakesAddressesFromStatus(t *testing.T) {
	s := begin(t)
	s.world.Leader = false
	s.enrol("a", "alice", 1)
	if s.admitted("a") != nil || !s.verdict("a").Pending {
		t.Fatalf("a follower decided by itself: %+v", s.verdict("a"))
	}
	s.peer("a").Address4, s.peer("a").Ready = netip.MustParseAddr("198.18.7.7"), true
	s.look()
	if got := s.wantIn("a").Address4; got != s.peer("a").Address4 {
		t.Errorf("address %s", got)
	}
	s.peer("a").Address4 = netip.MustParseAddr("198.18.7.8") // a new leader thought otherwise
	s.look()
	if got := s.wantIn("a").Address4; got != s.peer("a").Address4 {
		t.Errorf("address %s after the change", got)
	}
}

// Two leaders that did not know of each other gave one address twice.
func TestDoubleAddressIsMended(t *testing.T) {
	s := begin(t)
	s.world.Peers = []Peer{
		{UID: "2", Name: "young", User: "bob", Created: s.now.Add(time.Second), Key: testKey(2), Lease: time.Minute, Renew: 1, Address4: netip.MustParseAddr("198.18.0.9")},
		{UID: "1", Name: "old", User: "alice", Created: s.now, Key: testKey(1), Lease: time.Minute, Renew: 1, Address4: netip.MustParseAddr("198.18.0.9")},
	}
	s.look()
	if a := s.wantIn("old").Address4; a != netip.MustParseAddr("198.18.0.9") {
		t.Errorf("the older peer lost its address for %s", a)
	}
	if a := s.wantIn("young").Address4; a == netip.MustParseAddr("198.18.0.9") || !a.IsValid() {
		t.Errorf("the younger peer has %s", a)
	}
}

func TestExpiredObjectsAreDeletedInTheEnd(t *testing.T) {
	s := begin(t)
	s.enrol("a", "alice", 1)
	s.open("shop", "a", "alice")
	s.enrol("job", "ci", 2)
	s.peer("job").Lease = 120 * time.Second
	s.remove("job")
	s.enrol("job", "ci", 2)
	s.world.Peers[1].Lease, s.world.Peers[1].UID = 120*time.Second, "other"
	s.look()
	s.after(300 * time.Second)
	if len(s.plan.DeletePeers) != 0 {
		t.Fatal("deleted at once")
	}
	s.after(3 * time.Second)
	if !slices.Equal(s.plan.DeletePeers, []int{1}) {
		t.Fatalf("delete %v, want the CI job's alone", s.plan.DeletePeers)
	}
	s.after(24 * time.Hour)
	if !slices.Equal(s.plan.DeletePeers, []int{0, 1}) || !slices.Equal(s.plan.DeleteAccesses, []int{0}) {
		t.Errorf("delete peers %v and accesses %v, want all", s.plan.DeletePeers, s.plan.DeleteAccesses)
	}
}

// An Access is written after its Peer, so its lease ends after it. When it has
// outstayed, the Peer, which would say that it was a CI job's, is gone.
func TestAccessIsDeletedAfterItsPeer(t *testing.T) {
	s := begin(t)
	s.world.Peers = []Peer{{UID: "uid-job", Name: "job", User: "ci", Created: s.now, Key: testKey(1), Lease: 120 * time.Second, Renew: 1}}
	s.look()
	s.after(time.Second)
	s.open("shop", "job", "ci")
	s.enrol("a", "alice", 2)
	s.open("shop", "a", "alice")
	s.after(119 * time.Second) // the Peer's lease is over,
	s.after(time.Second)       // and the Access'
	s.after(2 * time.Second)
	if !slices.Equal(s.plan.DeletePeers, []int{0}) || len(s.plan.DeleteAccesses) > 0 {
		t.Fatalf("delete peers %v and accesses %v, want the job's Peer", s.plan.DeletePeers, s.plan.DeleteAccesses)
	}
	s.remove("job")
	s.remove("a") // its owner disconnected, and could not delete the Access
	s.after(time.Second)
	if !slices.Equal(s.plan.DeleteAccesses, []int{0}) {
		t.Errorf("delete accesses %v, want the job's", s.plan.DeleteAccesses)
	}
	s.after(177 * time.Second) // hers is over
	s.after(300 * time.Second)
	if !slices.Equal(s.plan.DeleteAccesses, []int{0, 1}) {
		t.Errorf("delete accesses %v, want both", s.plan.DeleteAccesses)
	}
}

// BenchmarkPlan is one look at so many peers with three Accesses each.
func BenchmarkPlan(b *testing.B) {
	for _, peers := range []int{1000, 10000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			c := DefaultConfig()
			c.MaxPeers = peers
			book := NewBook(c)
			now := time.Unix(1_700_000_000, 0)
			w := World{PolicyHolds: true, Connected: true, Leader: true}
			for i := range peers {
				n := fmt.Sprint(i)
				w.Peers = append(w.Peers, Peer{UID: n, Name: n, User: n, Created: now, Key: testKey(i), Lease: 300 * time.Second, Renew: 1})
				for j := range 3 {
					w.Accesses = append(w.Accesses, Access{UID: fmt.Sprint(n, "/", j), Namespace: fmt.Sprint("ns", j), Name: n, User: n, Peer: n, Renew: 1})
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if p := book.Plan(now, w); len(p.Admitted) != peers {
					b.Fatal(len(p.Admitted))
				}
			}
		})
	}
}
