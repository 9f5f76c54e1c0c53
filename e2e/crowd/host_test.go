package crowd

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
)

// TestHostIsOneLaptop looks at what the session did to it while it is connected
// and afterwards.
func TestHostIsOneLaptop(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	w := town.New(t, log, "podnet-gateway-0")
	l := &laptop{rand: rand.New(rand.NewPCG(1, 1)), c: &crowd{Config: Config{
		Log: log, Shop: town.ShopURL, Echo: town.EchoAddr,
		Request: func(int) localapi.ConnectRequest {
			return localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60}
		},
		Open: func(localapi.Kube) (client.Cluster, error) { return w.Cluster(), nil },
	}, report: Report{Deeds: map[string][]time.Duration{}}}}
	v := l.newVisit(t.Context())
	if err := v.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.host.Dial(t.Context(), "tcp", "192.0.2.1:80"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("an address that is not the cluster's: %v", err)
	}
	if _, err := v.host.Dial(t.Context(), "tcp", town.Service.String()+":9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}

	own := v.echo.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	if n, err := v.host.ResetFlows(t.Context(), []netip.Addr{town.NameServer}); n != 0 || err != nil {
		t.Errorf("reset %d flows of another address: %v", n, err)
	}
	if n, err := v.host.ResetFlows(t.Context(), []netip.Addr{own}); n != 1 || err != nil {
		t.Errorf("reset %d flows, want 1: %v", n, err)
	}
	if err := v.ping(t.Context()); err == nil {
		t.Error("a connection lives on after its reset")
	}

	if err := v.close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := v.host.Dial(t.Context(), "udp", town.NameServer.String()+":53"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("after leaving: %v", err)
	}
	if left := w.Peers(); len(left) > 0 {
		t.Errorf("left in the town: %v", left)
	}
}
