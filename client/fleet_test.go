package client

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"podnet.dev/api/v1alpha1"
)

// giver is a cluster that gives out a list of addresses, one a Peer.
type giver struct {
	*fakeCluster
	addresses []string
	devices   []string
}

func (a *giver) CreatePeer(ctx context.Context, ns, name string, spec v1alpha1.PeerSpec) error {
	a.devices = append(a.devices, spec.Device)
	return a.fakeCluster.CreatePeer(ctx, ns, name, spec)
}

func (a *giver) Await(context.Context, string, string, []string) (*v1alpha1.Peer, error) {
	p := &v1alpha1.Peer{}
	p.Status.Address4, a.addresses = a.addresses[0], a.addresses[1:]
	p.Status.Network = &v1alpha1.Network{PodCIDRs: []string{"10.244.0.0/16"}, DNSAddresses: []string{"198.18.0.1"}}
	return p, nil
}

// TestAddressOfAnotherSession: who is given it enrols with another key, and leaves
// nothing of the first.
func TestAddressOfAnotherSession(t *testing.T) {
	fleet, here := new(Fleet), netip.MustParseAddr("198.18.0.5")
	first := &Session{}
	again := fleet.claim(first, []netip.Addr{here})
	if !fleet.claim(first, []netip.Addr{here}) || !again || !fleet.has(here) {
		t.Fatal("the first has no address")
	}
	c := &giver{newFakeCluster(), []string{"198.18.0.5", "198.18.0.5", "198.18.0.6"}, nil}
	s, _ := newTestSession(t, c.fakeCluster, &closer{}, "shop")
	s.Fleet, s.objects = fleet, newMembership(t, c.fakeCluster)
	s.objects.cluster = c
	m, _, err := s.objects.apply(t.Context(), []string{"shop"})
	if err == nil {
		err = s.objects.await(t.Context(), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	was := m.private.Public()
	if m, err = s.distinct(t.Context(), m); err != nil || !slices.Equal(m.network.own, []netip.Addr{netip.MustParseAddr("198.18.0.6")}) || m.private.Public() == was {
		t.Errorf("%v, at %v", err, m.network.own)
	}
	if slices.Sort(c.devices); len(c.devices) != 3 || len(slices.Compact(c.devices)) != 3 {
		t.Errorf("devices %q: gateways go by their names", c.devices)
	}
	if len(c.objects) != 2 {
		t.Errorf("objects %v, want one Peer and its Access", c.objects)
	}
	c.addresses = []string{"198.18.0.5", "198.18.0.5", "198.18.0.5", "198.18.0.5", "198.18.0.5"}
	m.network.own = []netip.Addr{here}
	if _, err := s.distinct(t.Context(), m); err == nil {
		t.Error("it goes on for ever")
	}
	fleet.leave(first)
	if fleet.has(here) || !fleet.claim(s, []netip.Addr{here}) {
		t.Error("the address of a session that is over is not free")
	}
}
