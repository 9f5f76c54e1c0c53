package namespaced

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/key"
)

// office is a roster with a clock of its own.
type office struct {
	*testing.T
	roster *roster
	now    time.Time
	in     admitted
}

func open(t *testing.T) *office {
	o := &office{T: t, now: time.Unix(1_700_000_000, 0)}
	o.restart()
	return o
}

func (o *office) restart() {
	c := enrol.DefaultConfig()
	c.MaxPeers, c.MaxPerUser, c.Keep = 3, 3, keep
	o.roster = newRoster(c, slog.New(slog.DiscardHandler), o.now)
	o.roster.entry = podnet.Gateway{Pod: "podnet-gateway-0", PublicKey: "the gateway's", StreamPort: 51821}
	o.roster.network = func() podnet.Network {
		return podnet.Network{PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/12"}, DNSDomain: "cluster.test", DNSAddresses: []string{"198.18.0.1"}}
	}
	o.roster.enforce = func(all admitted) bool { o.in = all; return true }
}

// next is when the roster wants to be looked at.
func (o *office) next() time.Time {
	o.Helper()
	select {
	case at := <-o.roster.next:
		return at
	default:
		o.Fatal("nobody says when to look again")
		return time.Time{}
	}
}

func (o *office) after(d time.Duration) { o.now = o.now.Add(d); o.roster.look(o.now) }

// laptop is one that calls.
func laptop(t *testing.T, name string) desk.Call {
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return desk.Call{Version: desk.Version, Verb: desk.Put, Name: name, Secret: strings.Repeat("ab", 16), Spec: &podnet.PeerSpec{
		User: "alice", Device: "laptop", PublicKey: private.Public().String(), LeaseSeconds: 60, Renew: 1}}
}

func (o *office) put(c desk.Call) *podnet.PeerStatus {
	o.Helper()
	a := o.roster.call(o.now, c)
	if a.Error != nil || a.Status == nil || a.Version != desk.Version {
		o.Fatalf("%s: %+v", c.Name, a)
	}
	return a.Status
}

func (o *office) refuses(c desk.Call, code desk.Code) {
	o.Helper()
	if a := o.roster.call(o.now, c); a.Error == nil || a.Error.Code != code || a.Error.Message == "" || a.Status != nil {
		o.Errorf("%s: want a refusal as %s, got %+v", c.Name, code, a)
	}
}

func ready(s *podnet.PeerStatus) bool {
	return meta.IsStatusConditionTrue(s.Conditions, podnet.ConditionReady) && len(s.Gateways) == 1 && s.Network != nil && s.Address4 != "" && s.Address6 != ""
}

func (o *office) names() string {
	var all []string
	for _, p := range o.in.peers {
		all = append(all, p.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestLeaseOfACall(t *testing.T) {
	o := open(t)
	a := laptop(t, "a")
	if s := o.put(a); !ready(s) || o.names() != "a" {
		t.Fatalf("%+v, in are %q", s, o.names())
	}
	if at := o.next(); !at.Equal(o.now.Add(60 * time.Second)) {
		t.Errorf("look again at %v", at)
	}
	o.after(50 * time.Second)
	o.put(a) // a look, no renewal
	o.after(10 * time.Second)
	if o.names() != "" {
		t.Errorf("in is %q after its lease", o.names())
	}
	s := o.put(a)
	if c := meta.FindStatusCondition(s.Conditions, podnet.ConditionReady); ready(s) || c == nil || c.Reason != podnet.ReasonExpired || len(s.Gateways) != 0 {
		t.Errorf("%+v", s)
	}
	a.Spec.Renew = 2
	if s := o.put(a); !ready(s) || s.ObservedRenew != 2 {
		t.Errorf("not back after it was renewed: %+v", s)
	}
	o.after(59 * time.Second)
	a.Spec.Renew = 3
	o.put(a)
	o.after(59 * time.Second)
	if o.names() != "a" {
		t.Error("out although it was renewed")
	}
	a.Spec.Renew = 1 // an old call that comes late
	o.put(a)
	o.after(time.Second)
	if o.names() != "" {
		t.Error("an old renewal has prolonged the lease")
	}
	o.after(keep + time.Second)
	o.roster.mu.Lock()
	defer o.roster.mu.Unlock()
	if len(o.roster.peers) != 0 {
		t.Error("who went long ago is remembered for ever")
	}
}

func TestSecretIsAsked(t *testing.T) {
	o := open(t)
	a := laptop(t, "a")
	o.put(a)
	thief := a
	thief.Secret = strings.Repeat("cd", 16)
	o.refuses(thief, desk.CodeNotYours)
	thief.Verb = desk.Delete
	o.refuses(thief, desk.CodeNotYours)
	if o.names() != "a" {
		t.Error("a stranger has thrown it out")
	}
	a.Verb = desk.Delete
	if answer := o.roster.call(o.now, a); answer.Error != nil || o.names() != "" {
		t.Errorf("%+v, in are %q", answer, o.names())
	}
	if answer := o.roster.call(o.now, a); answer.Error != nil {
		t.Errorf("deleting what is gone: %+v", answer)
	}
}

func TestWhatMayChange(t *testing.T) {
	o := open(t)
	a := laptop(t, "a")
	o.put(a)
	for name, change := range map[string]func(*podnet.PeerSpec){
		"the key":    func(s *podnet.PeerSpec) { s.PublicKey = laptop(t, "x").Spec.PublicKey },
		"the user":   func(s *podnet.PeerSpec) { s.User = "bob" },
		"the lease":  func(s *podnet.PeerSpec) { s.LeaseSeconds = 900 },
		"the device": func(s *podnet.PeerSpec) { s.Device = "phone" },
	} {
		b := a
		b.Spec = a.Spec.DeepCopy()
		change(b.Spec)
		if got := o.roster.call(o.now, b); got.Error == nil || got.Error.Code != desk.CodeInvalid {
			t.Errorf("%s may change: %+v", name, got)
		}
	}
	a.Spec.Virtual = []podnet.VirtualPrefix{{Real: "10.244.0.0/16", Virtual: "10.200.0.0/16"}}
	s := o.put(a)
	if !slices.Equal(s.Virtual, a.Spec.Virtual) || len(o.in.maps) != 2 {
		t.Errorf("%+v, maps %v", s, o.in.maps)
	}
	for at, m := range o.in.maps {
		if real, ok := m.Real(netip.MustParseAddr("10.200.0.17")); !ok || real != netip.MustParseAddr("10.244.0.17") {
			t.Errorf("at %s: %v", at, real)
		}
	}
	a.Spec.Virtual = []podnet.VirtualPrefix{{Real: "192.0.2.0/24", Virtual: "10.200.0.0/24"}}
	if s := o.put(a); len(s.Virtual) != 0 || !meta.IsStatusConditionFalse(s.Conditions, podnet.ConditionVirtual) {
		t.Errorf("a network that is none of the cluster's is mapped: %+v", s)
	}
}

func TestRestartedGateway(t *testing.T) {
	o := open(t)
	a := laptop(t, "a")
	a.Spec.Renew = 17
	before := o.put(a)
	o.restart()
	if after := o.put(a); !ready(after) || after.Address4 != before.Address4 || after.Address6 != before.Address6 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestLimits(t *testing.T) {
	o := open(t)
	for i := range 3 {
		o.put(laptop(t, fmt.Sprint("p", i)))
	}
	s := o.put(laptop(t, "late"))
	if c := meta.FindStatusCondition(s.Conditions, podnet.ConditionReady); c == nil || c.Reason != podnet.ReasonLimitReached {
		t.Errorf("%+v", s)
	}
	for i := range remembered {
		o.now = o.now.Add(time.Millisecond)
		o.roster.call(o.now, laptop(t, fmt.Sprint("crowd", i)))
	}
	o.refuses(laptop(t, "last"), desk.CodeFull)
	if o.names() != "p0 p1 p2" {
		t.Errorf("the crowd has driven out somebody: in are %q", o.names())
	}
}

func TestOneKeyIsOnePeer(t *testing.T) {
	o := open(t)
	a := laptop(t, "a")
	o.put(a)
	o.now = o.now.Add(time.Second)
	b := a
	b.Name = "b"
	s := o.put(b)
	if c := meta.FindStatusCondition(s.Conditions, podnet.ConditionReady); c == nil || c.Reason != podnet.ReasonConflict || o.names() != "a" {
		t.Errorf("%+v, in are %q", s, o.names())
	}
}
