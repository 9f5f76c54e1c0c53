package crowd

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
)

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
	town := newTown(t, log)
	r := Run(t.Context(), Config{
		Laptops: 5, For: 6 * time.Second, Pace: 50 * time.Millisecond, Seed: 1, Log: log,
		Request: func(int) localapi.ConnectRequest {
			return localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60}
		},
		Open: func(localapi.Kube) (client.Cluster, error) { return resident{town}, nil },
		Shop: shopURL, Echo: echoAddr,
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
	if len(town.peers) > 0 {
		t.Errorf("left in the town: %v", town.peers)
	}
}
