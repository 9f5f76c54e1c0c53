package client_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/addressing"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/client/router"
	"podnet.dev/e2e/town"
)

// cafe is a network that has an address of the town's Services.
var cafe = router.Network{Prefix: netip.MustParsePrefix("10.96.0.0/24"), Interface: "wlan0"}

// isVirtual says whether the session sees the town at virtual addresses, and only
// there.
func (l *laptop) isVirtual() bool {
	c := l.status()
	return c.Addresses.Mode == addressing.Virtual && len(c.Addresses.Map) == 2 && !l.host.Routed(town.Service) &&
		!slices.Contains(c.Routes, "10.96.0.0/16") && !slices.Contains(c.Routes, "10.244.0.0/16")
}

// TestLaptopIsInTheClustersNetwork: it sees the cluster elsewhere, all of it.
func TestLaptopIsInTheClustersNetwork(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.networks = []router.Network{cafe}
	l := w.connect(client.PathAuto)
	a := l.status().Addresses
	if !l.isVirtual() || a.Why != "the cluster's 10.96.0.0/16 overlaps 10.96.0.0/24 on wlan0" {
		t.Errorf("addresses %+v, routes %v", a, l.status().Routes)
	}
	l.within(5*time.Second, "at work", l.works)
	// The pods' addresses collide with nothing, and are virtual as well.
	if a.Map[1].Real != "10.244.0.0/16" {
		t.Errorf("map %+v", a.Map)
	}
	if !l.told(localapi.EventDone, "10.96.0.0/16 at "+a.Map[0].Virtual) {
		t.Error("nobody is told of the addresses")
	}
	var reverse []string
	for _, domain := range l.host.Resolver().MatchDomains {
		if strings.HasSuffix(domain, "in-addr.arpa") {
			reverse = append(reverse, domain)
		}
	}
	if len(reverse) != 2 || slices.Contains(reverse, "96.10.in-addr.arpa") {
		t.Errorf("reverse zones %v, want those of %+v", reverse, a.Map)
	}
}

// TestCollisionLater: a session comes into a network that has the cluster's
// addresses, moves, and stays where it is afterwards.
func TestCollisionLater(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	if c := l.status(); c.Addresses.Mode != addressing.Direct || len(c.Addresses.Map) > 0 || !l.host.Routed(town.Service) {
		t.Fatalf("addresses %+v", c.Addresses)
	}
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.host.Join(cafe)
	l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "new: wlan0 10.96.0.7/24"}
	l.within(5*time.Second, "virtual", l.isVirtual)
	l.hears(localapi.EventAddresses, "10.96.0.0/24 on wlan0")
	l.within(5*time.Second, "at work", l.works)
	if err := echo(flow, time.Second); err == nil {
		t.Error("a flow to the old address goes on")
	}
	if _, warnings := l.session.Status(); len(warnings) > 0 {
		t.Errorf("warnings %v", warnings)
	}
	was := l.status().Addresses
	l.host.Join()
	l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "gone: wlan0 10.96.0.7/24"}
	flow, err = l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.within(5*time.Second, "told", func() bool { return l.told(localapi.EventNetwork, "gone") })
	if now := l.status().Addresses; !slices.Equal(now.Map, was.Map) || now.Why != was.Why {
		t.Errorf("addresses %+v, before %+v", now, was)
	}
	if err := echo(flow, time.Second); err != nil {
		t.Errorf("a flow ends although nothing collides: %v", err)
	}
}

// TestVirtualAddressesOutliveTheLease: who enrols again is where he was.
func TestVirtualAddressesOutliveTheLease(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.networks = []router.Network{cafe}
	l := w.connect(client.PathAuto)
	was := l.status().Addresses
	w.Set(town.Trouble{Away: true})
	l.within(10*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	w.Forget()
	w.Set(town.Trouble{})
	l.within(10*time.Second, "enrolled again", func() bool { return l.status().Reenrolled == 1 })
	l.within(5*time.Second, "at work again", l.works)
	if now := l.status().Addresses; !l.isVirtual() || !slices.Equal(now.Map, was.Map) || now.Why != was.Why {
		t.Errorf("addresses %+v, before %+v", now, was)
	}
}

// TestAddressesAsAskedFor: direct is refused where it cannot be, and changes
// nothing; virtual needs no reason.
func TestAddressesAsAskedFor(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.addresses = addressing.Virtual
	if l := w.connect(client.PathAuto); !l.isVirtual() || !l.works() || l.status().Addresses.Why != "asked for" {
		t.Errorf("asked for virtual ones: %+v", l.status().Addresses)
	}
	w.addresses, w.networks = addressing.Direct, []router.Network{cafe}
	l := w.begin(client.PathAuto)
	err := <-l.ended
	l.ended <- nil // for leave
	var refused *localapi.Error
	if !errors.As(err, &refused) || refused.Code != localapi.CodeConflict || refused.Phase != string(localapi.PhaseRoutes) ||
		!strings.Contains(refused.Message, "10.96.0.0/24 on interface wlan0") || !strings.Contains(refused.Hint, "--addresses virtual") {
		t.Errorf("asked for direct ones: %+v", err)
	}
}

// TestTwoSessionsAtOnce: another session of this machine has the same networks, and
// this one keeps clear of them.
func TestTwoSessionsAtOnce(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	first := w.connect(client.PathAuto)
	w.others = func() (all []addressing.Network) {
		for _, r := range first.status().Routes {
			all = append(all, addressing.Network{Prefix: netip.MustParsePrefix(r), Session: "first"})
		}
		return all
	}
	second := w.connect(client.PathAuto)
	if a := second.status().Addresses; !second.isVirtual() || a.Why != "the cluster's 10.244.0.0/16 is also routed to the session first" {
		t.Errorf("addresses %+v", a)
	}
	if !second.works() {
		t.Error("the second does not work")
	}
	third := w.others
	w.others = func() []addressing.Network {
		all := third()
		for _, r := range second.status().Routes {
			all = append(all, addressing.Network{Prefix: netip.MustParsePrefix(r), Session: "second"})
		}
		return all
	}
	l := w.connect(client.PathAuto)
	for _, r := range l.status().Routes {
		if slices.Contains(slices.Concat(first.status().Routes, second.status().Routes), r) {
			t.Errorf("%s is routed twice", r)
		}
	}
}

// TestAnswersLeadOnlyWhereTheyMay: an address of the cluster's own that nothing
// stands for is somebody else's here.
func TestAnswersLeadOnlyWhereTheyMay(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.networks = []router.Network{{Prefix: netip.MustParsePrefix("10.244.7.0/24"), Interface: "wlan0"}}
	l := w.connect(client.PathAuto)
	answered := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := l.lookup(ctx, town.EchoName)
		return err == nil
	}
	if !answered() {
		t.Error("no answer")
	}
	w.Set(town.Trouble{Unmapped: true})
	l.within(5*time.Second, "without an answer", func() bool { return !answered() })
	w.Set(town.Trouble{})
	l.within(10*time.Second, "answered", answered)
}
