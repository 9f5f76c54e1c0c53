package client_test

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/e2e/town"
)

// What happens to a session in a day, each told as a story. The gateways, the
// tunnel, the paths and the session are real; the API server, the wire and the
// laptop's operating system are played.

// TestUDPIsCutAndComesBack: a flow lives through both.
func TestUDPIsCutAndComesBack(t *testing.T) {
	t.Parallel()
	l := newTown(t, "podnet-gateway-0").connect(client.PathAuto)
	l.within(20*time.Second, "by udp", func() bool { return l.status().Path.Kind == "udp" })
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.wire.Block(true)
	if err := echo(flow, 5*time.Second); err != nil {
		t.Errorf("the flow did not survive the cut: %v", err)
	}
	if p := l.status().Path; p.Kind != "apiserver" || p.Reason == "" {
		t.Errorf("path %+v", p)
	}
	l.wire.Block(false)
	l.within(20*time.Second, "by udp again", func() bool { return l.status().Path.Kind == "udp" })
	if err := echo(flow, 5*time.Second); err != nil {
		t.Errorf("the flow did not survive the return: %v", err)
	}
	l.hears(localapi.EventPath, "apiserver")
	l.hears(localapi.EventPath, "udp 127.0.0.1")
}

// TestGatewayIsKilledBesideAnother: new flows go to the other replica, old ones
// end rather than hang.
func TestGatewayIsKilledBesideAnother(t *testing.T) {
	t.Parallel()
	for _, path := range []string{client.PathAuto, client.PathAPIServer} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newTown(t, "podnet-gateway-0", "podnet-gateway-1")
			l := w.connect(path)
			flow, err := l.open()
			if err != nil {
				t.Fatal(err)
			}
			defer flow.Close()
			first := l.status().Gateway
			if len(first.Others) != 1 {
				t.Errorf("others %v", first.Others)
			}
			w.Kill(first.Pod)
			l.within(10*time.Second, "at work again", l.works)
			if now := l.status().Gateway; now.Pod == first.Pod {
				t.Errorf("still with %s", now.Pod)
			}
			if err := echo(flow, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the old flow got %v, want its end", err)
			}
			l.hears(localapi.EventGateway, "the old one fell silent")
		})
	}
}

// TestOnlyGatewayStartsAnew with another key and other ports.
func TestOnlyGatewayStartsAnew(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	before := l.status()
	w.Kill("podnet-gateway-0")
	l.within(8*time.Second, "in doubt", func() bool { return l.status().Path.Kind == "" })
	w.Start("podnet-gateway-0")
	l.within(5*time.Second, "at work again", l.works)
	now := l.status()
	if now.Gateway.PublicKey == before.Gateway.PublicKey || now.Tunnel.Address != before.Tunnel.Address {
		t.Errorf("key %s, address %s before and %s now", now.Gateway.PublicKey, before.Tunnel.Address, now.Tunnel.Address)
	}
	l.hears(localapi.EventGateway, "it has started anew")
}

// TestGatewayDrains: the session leaves at once for the other.
func TestGatewayDrains(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0", "podnet-gateway-1")
	l := w.connect(client.PathAuto)
	first := l.status().Gateway.Pod
	w.Drain(first)
	l.within(3*time.Second, "with the other", func() bool { return l.status().Gateway.Pod != first })
	l.within(time.Second, "at work", l.works)
}

// TestLeaseEndsWhileNobodyCanRenew: the session enrols again by itself, with a
// new key and address, and says so.
func TestLeaseEndsWhileNobodyCanRenew(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	before := l.status()
	w.Set(town.Trouble{Away: true})
	l.within(5*time.Second, "warned", func() bool {
		return l.told(localapi.EventWarning, "cannot reach the API server https://town: connection refused, since")
	})
	l.within(5*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	if !l.works() {
		t.Error("a session by UDP does not work without the API server")
	}
	w.Forget() // the gateway, after an hour
	w.Set(town.Trouble{})
	l.within(10*time.Second, "enrolled again", func() bool { return l.status().Reenrolled == 1 })
	l.within(5*time.Second, "at work again", l.works)
	now := l.status()
	if now.Tunnel.Address == before.Tunnel.Address || now.Peer == before.Peer || now.Lease.Frozen {
		t.Errorf("before %+v, now %+v", before, now)
	}
	l.hears(localapi.EventReenrolled, "the lease is over")
	l.hears(localapi.EventCleared, "")
	if _, warnings := l.session.Status(); len(warnings) > 0 {
		t.Errorf("warnings %v", warnings)
	}
	l.leave()
	if left := w.Peers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestPermissionIsGoneAfterANight: enrolling again is refused, and the session
// says that it is over.
func TestPermissionIsGoneAfterANight(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	w.Set(town.Trouble{Away: true})
	l.within(10*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	w.Forget()
	w.Set(town.Trouble{Forbidden: true})
	l.endsWith(sure, func(err error) bool {
		var ended *client.EndedError
		var forbidden *cluster.ForbiddenError
		return errors.As(err, &ended) && errors.As(err, &forbidden)
	})
}

// TestAdministratorDeletesThePeer while its lease runs: that is meant.
func TestAdministratorDeletesThePeer(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	w.Forget()
	l.endsWith(sure, func(err error) bool { return errors.Is(err, cluster.ErrGone) })
}

// sure is more than a session asks before it believes that it is over.
const sure = 30 * time.Second

// TestAPIServerThatHasJustStarted says no to everybody until it has read who may
// do what. That ends no session.
func TestAPIServerThatHasJustStarted(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	w.Set(town.Trouble{Away: true})
	l.within(10*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	w.Set(town.Trouble{Forbidden: true})
	l.within(10*time.Second, "refused", func() bool { return w.Refused() > 1 })
	w.Set(town.Trouble{})
	l.within(10*time.Second, "renewed", func() bool { return l.status().Lease.Error == "" })
	l.leave()
}

// endsWith waits until the session has ended by itself.
func (l *laptop) endsWith(limit time.Duration, as func(error) bool) {
	l.t.Helper()
	select {
	case err := <-l.ended:
		l.ended <- nil // for leave
		if !as(err) {
			l.t.Errorf("the session ended with %v", err)
		}
	case <-time.After(limit):
		l.t.Errorf("the session goes on")
	}
}

// TestClockWasSetBack: gateways refuse a handshake that is older than one they
// have seen. After a sleep WireGuard needs a new one, so a new key it is.
func TestClockWasSetBack(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	w.Set(town.Trouble{Deaf: true})
	l.news <- netwatch.Event{Kind: netwatch.Woke, Away: time.Hour, Text: "the machine slept for 1h0m0s"}
	l.within(8*time.Second, "enrolling again", func() bool { return l.told(localapi.EventLease, "makes no handshake") })
	w.Set(town.Trouble{})
	l.within(5*time.Second, "at work again", l.works)
	l.hears(localapi.EventNetwork, "the machine slept")
	if n := l.status().Reenrolled; n != 1 {
		t.Errorf("enrolled again %d times", n)
	}
}

// TestLaptopMovesToAnotherNetwork: nothing waits for the next renewal, which is
// minutes away.
func TestLaptopMovesToAnotherNetwork(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.lease = 300
	l := w.connect(client.PathAuto)
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.wire.Rebind()
	l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "new: wlan0 192.0.2.7/24"}
	if err := echo(flow, 5*time.Second); err != nil {
		t.Errorf("the flow did not survive: %v", err)
	}
	l.within(7*time.Second, "renewed", func() bool { return w.Peers()[0].Spec.Renew > 1 })
	l.hears(localapi.EventNetwork, "the network changed: new: wlan0 192.0.2.7/24")
}

// TestGatewayCutUsAndTakesUsBack: the lease was over, the Peer is still there,
// and a late renewal brings it back. The session goes on with its key.
func TestGatewayCutUsAndTakesUsBack(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	before := l.status()
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	w.Set(town.Trouble{Away: true, Cut: true, Revive: true})
	l.within(8*time.Second, "cut", func() bool { return l.status().Path.Kind == "" })
	l.within(5*time.Second, "over", func() bool { return time.Now().After(*l.status().Lease.ExpiresAt) })
	w.Set(town.Trouble{Cut: true, Revive: true})
	l.within(10*time.Second, "at work again", l.works)
	if now := l.status(); now.Peer != before.Peer || now.Reenrolled != 0 {
		t.Errorf("enrolled again without need: %+v", now)
	}
	if err := echo(flow, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flow that the gateway had cut got %v, want its end", err)
	}
	l.hears(localapi.EventLease, "flows that were open end")
}

// TestNoPathForLong: by then the gateway has given up the flows. They end when the
// path is back, rather than when the kernel tries them again.
func TestNoPathForLong(t *testing.T) {
	if testing.Short() {
		t.Skip("the gateway keeps flows for two minutes")
	}
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.lease = 300
	l := w.connect(client.PathUDP)
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.wire.Block(true)
	l.within(10*time.Second, "dark", func() bool { return l.status().Path.Kind == "" })
	time.Sleep(2*time.Minute + time.Second)
	l.wire.Block(false)
	l.within(20*time.Second, "by udp again", func() bool { return l.status().Path.Kind == "udp" })
	l.hears(localapi.EventGateway, "flows that were open end")
	if err := echo(flow, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flow got %v, want its end", err)
	}
	l.within(5*time.Second, "at work", l.works)
}

// TestGatewayHasCandidatesOnly: it is told where we are before we knock, and the
// packets become smaller when UDP turns out to be possible.
func TestGatewayHasCandidatesOnly(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.hidden = true
	l := w.connect(client.PathAuto)
	if kind := l.status().Path.Kind; kind != "apiserver" {
		t.Errorf("connected by %s before the gateway knew of us", kind)
	}
	l.within(20*time.Second, "by udp", func() bool { return l.status().Path.Kind == "udp" })
	if len(w.Peers()[0].Spec.Candidates) == 0 {
		t.Log("this machine has no address that others could reach")
	}
	l.within(2*time.Second, "of the size for UDP", func() bool { return l.status().Tunnel.MTU == 1420 })
}

// TestNamesThatGoElsewhere: status says so when this machine's programs ask
// somebody else, and when they ask us again.
func TestNamesThatGoElsewhere(t *testing.T) {
	t.Parallel()
	l := newTown(t, "podnet-gateway-0").connect(client.PathAuto)
	if d := l.status().DNS; !d.Healthy || d.Problem != "" {
		t.Errorf("at first: %+v", d)
	}
	had := l.host.Resolver()
	other := had
	other.Servers = nil
	if err := l.host.SetDNS(t.Context(), other); err != nil { // as another VPN does
		t.Fatal(err)
	}
	l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "another VPN"}
	l.within(20*time.Second, "not healthy", func() bool { return !l.status().DNS.Healthy })
	l.hears(localapi.EventWarning, "do not get the cluster's names")
	if err := l.host.SetDNS(t.Context(), had); err != nil {
		t.Fatal(err)
	}
	l.within(20*time.Second, "healthy again", func() bool { return l.status().DNS.Healthy })
	l.hears(localapi.EventCleared, "get the cluster's names again")
}

// TestNamespacesComeAndGo: short names follow them without a new session.
func TestNamespacesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	var list atomic.Pointer[[]string]
	list.Store(&[]string{"shop", "old"})
	w.all = func() []string { return *list.Load() }
	l := w.connect(client.PathAuto)
	knows := func(domain string) bool { return slices.Contains(l.host.Resolver().MatchDomains, domain) }
	if !knows("shop") || !knows("old") || knows("new") {
		t.Errorf("at first: %q", l.host.Resolver().MatchDomains)
	}
	list.Store(&[]string{"new", "shop"})
	l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "rather than wait"}
	l.within(10*time.Second, "the new one known", func() bool { return knows("new") && !knows("old") })
}
