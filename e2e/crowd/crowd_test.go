package crowd

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCrowd has laptops come, work, roam and leave. Nobody gets stuck, and
// nothing is left in the town.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("the crowd takes ten seconds")
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("PODNET_DEBUG") != "" {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w := town.New(t, log, "podnet-gateway-0")
	r := Run(t.Context(), Config{
		Laptops: 5, For: 6 * time.Second, Pace: 50 * time.Millisecond, Seed: 1, Log: log,
		Request: func(int) localapi.ConnectRequest {
			return localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60}
		},
		Open: func(localapi.Kube) (client.Cluster, error) { return w.Cluster(), nil },
		Shop: town.ShopURL, Echo: town.EchoAddr,
	})
	t.Log(r)
	if len(r.Stuck) > 0 {
		t.Errorf("%d were stuck", len(r.Stuck))
	}
	for _, deed := range []string{"connect, auto", "connect, udp", "connect, apiserver", "download", "upload", "echo", "leave"} {
		if len(r.Deeds[deed]) == 0 {
			t.Errorf("nobody did: %s", deed)
		}
	}
	if left := w.Peers(); len(left) > 0 {
		t.Errorf("left in the town: %v", left)
	}
}
