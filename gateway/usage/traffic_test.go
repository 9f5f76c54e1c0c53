package usage

import (
	"bytes"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const udp = "192.0.2.7:4500"
		var log bytes.Buffer
		w := NewTraffic(slog.New(slog.NewTextHandler(&log, nil)))
		ada, bob, agent := key.Public{1}, key.Public{2}, key.Public{3}
		at := func(k key.Public, endpoint string, rx, tx uint64) tunnel.PeerStats {
			return tunnel.PeerStats{PublicKey: k, Endpoint: endpoint, RxBytes: rx, TxBytes: tx}
		}
		want := func(what string, sums map[Route]uint64) {
			t.Helper()
			got := w.Totals()
			maps.DeleteFunc(got, func(_ Route, n uint64) bool { return n == 0 })
			if !maps.Equal(got, sums) {
				t.Errorf("%s: %v, want %v", what, got, sums)
			}
		}
		w.SetOwners(map[key.Public]Device{ada: {"ada", "u1-ada"}, bob: {"bob", "u2-bob"}})
		w.Add([]tunnel.PeerStats{at(ada, udp, 10, 20), at(bob, "", 0, 0), at(agent, udp, 5, 6)})
		sums := map[Route]uint64{{"ada", "udp", true}: 10, {"ada", "udp", false}: 20, {"", "agent", true}: 5, {"", "agent", false}: 6}
		want("the first look", sums)
		w.Add([]tunnel.PeerStats{at(ada, udp, 30, 50), at(agent, udp, 5, 6)})
		sums[Route{"ada", "udp", true}], sums[Route{"ada", "udp", false}] = 30, 50
		want("more", sums)
		w.Add([]tunnel.PeerStats{at(ada, "192.0.2.7:4501", 30, 50), at(agent, udp, 5, 6)}) // its NAT has another port for it
		if n := strings.Count(log.String(), "peer's path"); n != 1 || !strings.Contains(log.String(), "peer=u1-ada user=ada path=udp from=192.0.2.7:4500") {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		w.Add(nil) // all gone
		want("nobody", sums)
		w.Add([]tunnel.PeerStats{at(ada, udp, 1, 2)}) // counted anew
		sums[Route{"ada", "udp", true}], sums[Route{"ada", "udp", false}] = 31, 52
		want("back again", sums)
		if n := w.Devices(); !maps.Equal(n, map[string]int{"ada": 1, "bob": 1}) {
			t.Errorf("devices: %v", n)
		}

		w.SetOwners(map[key.Public]Device{bob: {"bob", "u2-bob"}})
		time.Sleep(trafficKept + time.Second)
		w.Add(nil)
		want("an hour after ada has left", map[Route]uint64{{"", "agent", true}: 5, {"", "agent", false}: 6})
	})
}
