package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/router"
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

// roads is a host that notes what is to be routed.
type roads struct {
	helper.Session
	set []router.Config
}

func (r *roads) DNS() ([]netip.AddrPort, string) { return nil, "" }
func (r *roads) SetNetwork(want router.Config) error {
	r.set = append(r.set, want)
	return nil
}

// walled is a cluster whose API server can be had when open says so.
type walled struct {
	*fakeCluster
	at   netip.Addr
	open func() bool
}

func (w *walled) Remotes() []netip.Addr {
	if !w.open() {
		return nil
	}
	return []netip.Addr{w.at}
}

func (w *walled) Check(context.Context) error {
	if w.open() {
		return nil
	}
	return &cluster.UnreachableError{Server: "https://blue", Err: &net.OpError{Op: "dial", Addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.at, 6443)), Err: errors.New("refused")}}
}

// TestSessionMakesWay: where another cluster is to be had beside a tunnel no session
// routes it, and where it is to be had through that one only it stays there.
func TestSessionMakesWay(t *testing.T) {
	at, endpoint := netip.MustParseAddr("10.20.0.9"), netip.MustParseAddr("10.20.0.10")
	for _, inside := range []bool{false, true} {
		fleet, host := new(Fleet), new(roads)
		lab, _ := newTestSession(t, newFakeCluster(), &closer{}, "shop")
		lab.Fleet, lab.host, lab.cluster, lab.link, lab.member = fleet, host, newFakeCluster(), &link{name: "podnet0"}, &member{granted: new(v1alpha1.Peer)}
		lab.jobs = newJobs(t.Context())
		defer lab.jobs.close()
		if err := lab.setNetwork(network{own: []netip.Addr{netip.MustParseAddr("198.18.0.5")}, prefixes: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}}); err != nil {
			t.Fatal(err)
		}
		lab.ready.Store(true)
		ctx, over := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			for {
				select {
				case do := <-lab.wishes:
					do()
				case <-ctx.Done():
					return
				}
			}
		}()
		avoids := func(a netip.Addr) bool { return slices.Contains(host.set[len(host.set)-1].Avoid, a) }

		blue, _ := newTestSession(t, newFakeCluster(), &closer{}, "shop")
		blue.Fleet, blue.cluster = fleet, &walled{newFakeCluster(), at, func() bool { return inside || avoids(at) }}
		fleet.join(lab)
		fleet.join(blue)
		if err := blue.check(ctx); err != nil || blue.nested != inside || avoids(at) == inside {
			t.Errorf("inside %v: %v, nested %v, the other one leaves it alone: %v", inside, err, blue.nested, avoids(at))
		}
		m := &member{granted: new(v1alpha1.Peer)}
		m.granted.Status.Gateways = []v1alpha1.Gateway{{Endpoints: []string{endpoint.String() + ":31820"}}}
		blue.keepOut(ctx, blue.outside(m))
		if avoids(endpoint) == inside {
			t.Errorf("inside %v: the gateway is left alone: %v", inside, avoids(endpoint))
		}
		sets := len(host.set)
		blue.keepOut(ctx, blue.outside(m))
		if len(host.set) != sets {
			t.Errorf("inside %v: routes are set though nothing is new", inside)
		}
		// Nobody is inside a tunnel that has made way for him.
		if err := blue.check(ctx); err != nil || blue.nested != inside {
			t.Errorf("inside %v: again: %v, nested %v", inside, err, blue.nested)
		}
		over()
		<-left
		fleet.leave(blue)
		if lab.makeWay(); avoids(at) || avoids(endpoint) {
			t.Errorf("inside %v: what a session that is over needed is still kept out", inside)
		}
	}
}

// TestTriedAt: only what says where it could not get to is about an address.
func TestTriedAt(t *testing.T) {
	for _, err := range []error{nil, errors.New("no"), &net.OpError{Op: "dial", Err: errors.New("no such host")}, &net.OpError{Addr: &net.UnixAddr{Name: "/x"}, Err: errors.New("no")}, &localapi.Error{}} {
		if at := triedAt(err); len(at) != 0 {
			t.Errorf("%v: %v", err, at)
		}
	}
}
