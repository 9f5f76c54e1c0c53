package gateway

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/world"
)

var (
	then    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	writer0 = author{
		entry:   podnet.Gateway{Pod: "podnet-gateway-0", PodUID: "u", PublicKey: "k", StreamPort: 51821, Endpoints: []string{"192.0.2.1:31820"}},
		network: podnet.Network{DNSDomain: "cluster.local", PodCIDRs: []string{"10.244.0.0/16"}},
		leads:   true, now: then,
	}
	admission = enrol.Verdict{Ready: true, Reason: podnet.ReasonAdmitted, Message: "The peer may connect.", Address4: netip.MustParseAddr("198.18.0.2"), Renew: 1, Expires: then.Add(300 * time.Second)}
)

// testWorld is a world of a gateway that nobody has told anything yet.
func testWorld(shapes ...func(*Options)) *world.World {
	o := Options{Namespace: "podnet-system", Pod: "podnet-gateway-0", Node: "node2", Enrol: enrol.DefaultConfig(), Log: slog.New(slog.DiscardHandler)}
	for _, shape := range shapes {
		shape(&o)
	}
	return world.New(o.world())
}

// someKey is RFC 7748 section 6.1's: a valid key that is nobody's.
const someKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

func newPeer() *podnet.Peer {
	return &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "podnet-system", UID: "1"}, Spec: podnet.PeerSpec{User: "alice", PublicKey: someKey, LeaseSeconds: 300, Renew: 1}}
}

// settled is a peer whose status says what the patches say.
func settled(t *testing.T, p *podnet.Peer, patches ...*unstructured.Unstructured) *podnet.Peer {
	t.Helper()
	for _, u := range patches {
		if u == nil {
			t.Fatal("nothing to write")
		}
		text, err := json.Marshal(u.Object["status"])
		if err != nil {
			t.Fatal(err)
		}
		// Over what is there: the other manager's fields stay.
		if err := json.Unmarshal(text, &p.Status); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestStatusIsWrittenOnceAndThenSparingly(t *testing.T) {
	p := newPeer()
	settled(t, p, writer0.entryPatch(p, true), writer0.sharedPatch(p, admission))
	if p.Status.Address4 != "198.18.0.2" || p.Status.Network.DNSDomain != "cluster.local" || p.Status.Gateways[0].PublicKey != "k" || !p.Status.ExpiresAt.Time.Equal(admission.Expires) {
		t.Fatalf("status %+v", p.Status)
	}
	if writer0.entryPatch(p, true) != nil || writer0.sharedPatch(p, admission) != nil {
		t.Error("what is there is written again")
	}
	v := admission
	v.Renew, v.Expires = 2, v.Expires.Add(100*time.Second)
	if writer0.sharedPatch(p, v) != nil {
		t.Error("the first renewal costs a write")
	}
	v.Renew, v.Expires = 3, v.Expires.Add(100*time.Second)
	settled(t, p, writer0.sharedPatch(p, v))
	if p.Status.ObservedRenew != 3 || !p.Status.ExpiresAt.Time.Equal(v.Expires) {
		t.Errorf("status %+v", p.Status)
	}
}

func TestStatusFollowsTheCluster(t *testing.T) {
	p := newPeer()
	settled(t, p, writer0.entryPatch(p, true), writer0.sharedPatch(p, admission))
	w := writer0
	w.network.PodCIDRs = []string{"10.244.0.0/16", "10.245.0.0/16"}
	w.entry.Endpoints = nil
	if settled(t, p, w.sharedPatch(p, admission)); len(p.Status.Network.PodCIDRs) != 2 {
		t.Error("a new range is not told")
	}
	if w.entryPatch(p, true) == nil {
		t.Error("an endpoint that is gone is still told")
	}
}

func TestOnlyTheLeaderWritesWhatAllShare(t *testing.T) {
	p, w := newPeer(), writer0
	w.leads = false
	if w.sharedPatch(p, admission) != nil || w.accessPatch(&podnet.Access{}, admission) != nil {
		t.Error("a follower writes the shared status")
	}
	if w.entryPatch(p, true) == nil {
		t.Error("a follower does not list itself")
	}
	if writer0.sharedPatch(p, enrol.Verdict{Pending: true}) != nil {
		t.Error("an undecided peer is told something")
	}
}

func TestExpiryIsToldAndHonouredLater(t *testing.T) {
	p := newPeer()
	settled(t, p, writer0.entryPatch(p, true), writer0.sharedPatch(p, admission))
	over := enrol.Verdict{Reason: podnet.ReasonExpired, Message: "Over.", Renew: 1}
	settled(t, p, writer0.sharedPatch(p, over))
	if got := world.PeerOf(p); got.Ready || !got.Ended {
		t.Errorf("a restarted gateway would see %+v", got)
	}
	if writer0.sharedPatch(p, over) != nil {
		t.Error("told twice")
	}
	if u := writer0.entryPatch(p, false); u == nil || len(u.Object["status"].(map[string]any)) != 0 {
		t.Errorf("the gateway still offers itself: %v", u)
	}
	p.Spec.Renew = 2 // the client came back while no gateway was there
	if world.PeerOf(p).Ended {
		t.Error("a renewal after the end does not count")
	}
}

func TestConditionKeepsItsTime(t *testing.T) {
	p := newPeer()
	settled(t, p, writer0.sharedPatch(p, admission))
	w, v := writer0, admission
	w.now, v.Message = then.Add(time.Hour), "The peer may connect, over IPv6 only."
	settled(t, p, w.sharedPatch(p, v))
	if at := p.Status.Conditions[0].LastTransitionTime.Time; !at.Equal(then) {
		t.Errorf("Ready did not change, but its time did: %v", at)
	}
}
