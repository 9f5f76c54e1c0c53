package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/world/worldtest"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// admits reports an error unless a gateway's tunnel has n peers.
func admits(g *Gateway, n int) error {
	if peers, err := g.ground.Tunnel.Stats(); err != nil || len(peers) != n {
		return fmt.Errorf("%s has %d peers, %v, want %d", g.o.Pod, len(peers), err, n)
	}
	return nil
}

// TestTwoGateways: each lists itself, one leads, and the other goes on when it ends.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	first, stopFirst := s.start("podnet-gateway-0")
	second, _ := s.start("podnet-gateway-1")
	l := s.enrol("laptop", 300, "shop")
	pods := func(p *podnet.Peer) []string {
		var names []string
		for _, g := range p.Status.Gateways {
			names = append(names, g.Pod)
		}
		slices.Sort(names)
		return names
	}
	l.await("knows both", func(p *podnet.Peer) bool {
		return slices.Equal(pods(p), []string{"podnet-gateway-0", "podnet-gateway-1"})
	})
	if !first.leader.leads.Load() || second.leader.leads.Load() {
		t.Error("the first gateway should lead, and it alone")
	}
	address := l.peer.Status.Address4
	apiserver.Eventually(t, 10*time.Second, "both admit the laptop", func() error { return errors.Join(admits(first, 1), admits(second, 1)) })
	stopFirst()
	l.await("knows the second alone", func(p *podnet.Peer) bool { return slices.Equal(pods(p), []string{"podnet-gateway-1"}) })
	apiserver.Eventually(t, 30*time.Second, "the second leads", func() error {
		if !second.leader.leads.Load() {
			return errors.New("not yet")
		}
		return nil
	})
	if l.await("keeps its address", func(p *podnet.Peer) bool { return p.Status.Address4 == address }); l.peer.Status.Network == nil {
		t.Error("the status lost its network with the leader")
	}
	began := time.Now()
	m := s.enrol("laptop2", 300, "shop")
	t.Logf("a new laptop is ready after %v", time.Since(began))
	if m.peer.Status.Address4 == address {
		t.Errorf("both laptops have %s", address)
	}
}

// TestDeadGatewayIsSwept: a gateway that was killed and does not come back is
// taken off the Peers by the one that leads, with everything it had written.
func TestDeadGatewayIsSwept(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for 30 s")
	}
	t.Parallel()
	s := setStage(t)
	port, slice := int32(WireGuardPort), worldtest.Gateways("podnet-gateway-0")
	slice.AddressType, slice.Ports = discoveryv1.AddressTypeIPv4, []discoveryv1.EndpointPort{{Port: &port}}
	slice.Labels[discoveryv1.LabelServiceName] = deploy.StatefulSetName
	slice.Endpoints[0].TargetRef.UID = "uid-podnet-gateway-0"
	s.create(slice)
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	dead := author{entry: podnet.Gateway{Pod: "podnet-gateway-1", PodUID: "uid-dead", PublicKey: someKey, StreamPort: StreamPort, Endpoints: []string{"192.0.2.1:31821"}}}
	if err := g.client.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(dead.entryPatch(&l.peer, true)), client.FieldOwner("podnet-gateway-1"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l.await("knows both", func(p *podnet.Peer) bool { return len(p.Status.Gateways) == 2 })
	// The one that lives does not go with it.
	apiserver.Eventually(t, goneAfter+10*time.Second, "the dead gateway is swept", func() error {
		var p podnet.Peer
		if err := s.alice.Get(t.Context(), types.NamespacedName{Namespace: deploy.DefaultNamespace, Name: l.name}, &p); err != nil {
			return err
		}
		if n := len(p.Status.Gateways); n != 1 || p.Status.Gateways[0].Pod != "podnet-gateway-0" {
			return fmt.Errorf("gateways %+v", p.Status.Gateways)
		}
		return nil
	})
	if took := time.Since(began); took < goneAfter-time.Second {
		t.Errorf("swept after %v: too early", took)
	}
}

// TestDrain: a laptop that probes is told to leave before the gateway goes, the
// Peer says so as well, and the gateway waits until the laptop has left.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	first, stopFirst := s.start("podnet-gateway-0")
	s.start("podnet-gateway-1")
	l := s.enrol("laptop", 300, "shop")
	l.await("knows both", func(p *podnet.Peer) bool { return len(p.Status.Gateways) == 2 })

	bind := transport.NewBind(transport.Options{})
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	tun, err := tunnel.New(stack.Device(), bind, tunnel.Config{PrivateKey: l.secret, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tun.Close(); _ = stack.Close() })
	k, err := probe.NewKey(l.secret, first.ground.Key)
	if err != nil {
		t.Fatal(err)
	}
	path := bind.NewGateway(transport.GatewayConfig{Key: k})
	t.Cleanup(func() { _ = path.Close() })
	path.SetUDP([]netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), first.ground.Tunnel.ListenPort())})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := path.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if path.Status().Draining {
		t.Error("it is to leave a gateway that stays")
	}

	began := time.Now()
	stopped := make(chan struct{})
	go func() { stopFirst(); close(stopped) }()
	apiserver.Eventually(t, 5*time.Second, "the laptop hears of it", func() error {
		if !path.Status().Draining {
			return errors.New("not yet")
		}
		return nil
	})
	t.Logf("the laptop hears of it after %v", time.Since(began))
	l.await("says so", func(p *podnet.Peer) bool {
		return slices.ContainsFunc(p.Status.Gateways, func(g podnet.Gateway) bool { return g.Pod == "podnet-gateway-0" && g.Draining })
	})
	if err := get(first, "/readyz"); err == nil {
		t.Error("a gateway that stops is ready")
	}
	if err := admits(first, 1); err != nil {
		t.Errorf("it does not wait: %v", err)
	}
	_ = path.Close() // it has moved
	left := time.Now()
	<-stopped
	if took := time.Since(left); took > quietTime+10*time.Second {
		t.Errorf("the gateway stopped %v after its last laptop had left", took)
	}
	l.await("knows the second alone", func(p *podnet.Peer) bool {
		return len(p.Status.Gateways) == 1 && p.Status.Gateways[0].Pod == "podnet-gateway-1"
	})
}
