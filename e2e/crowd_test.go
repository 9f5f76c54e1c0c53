//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/crowd"
)

// crowdGroup may do what a developer of the shop may.
const crowdGroup = "crowd"

// TestFiftyLaptops lets fifty laptops of fifty users come, work, roam and leave
// at once. None gets stuck, and the gateway ends up as it was.
func TestFiftyLaptops(t *testing.T) {
	const laptops = 50
	kubectl("create", "rolebinding", "lab-crowd", "-n", "shop", "--clusterrole=lab-developer", "--group="+crowdGroup).must(t)
	t.Cleanup(func() { kubectl("delete", "rolebinding", "lab-crowd", "-n", "shop").must(t) })

	// A program that has served nobody yet is smaller than it ever will be
	// again: its heap, its tables and its threads have a working size, and the Go
	// runtime keeps some 4 % of the most that its heap ever had to describe it. What
	// must not happen is that they grow from one crowd to the next, which in the long
	// form is as large, as busy and as long.
	fresh := gatewayGauges(t)
	gather(t, laptops, lasting(15*time.Second, 7*time.Minute), long)
	before := deserted(t)
	gather(t, laptops, lasting(60*time.Second, 7*time.Minute), long)
	busy := gatewayGauges(t)
	after := deserted(t)

	report(t, "gateway, fresh", fresh)
	report(t, "[35] gateway, deserted by the first crowd", before)
	report(t, "gateway, as the last laptop of the second crowd leaves", busy)
	report(t, "[35] gateway, deserted (goroutines +20; in the long form heap and its own +10 %)", after)
	if long && (after.heap > before.heap*1.1 || after.own > before.own*1.1) {
		t.Errorf("the gateway keeps memory of its visitors")
	}
	eventually(t, time.Minute, "as many goroutines and files as before", func() error {
		if now := gatewayGauges(t); now.goroutines > before.goroutines+20 || now.files > before.files+20 {
			return fmt.Errorf("%v, and before %v", now, before)
		}
		return nil
	})
	if n := kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.containerStatuses[0].restartCount}").must(t); n != "0" {
		t.Errorf("the gateway restarted %s times", n)
	}
}

// gather has a crowd on the laptop's side and prints what it did.
func gather(t *testing.T, laptops int, lasts time.Duration, vanish bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts+3*time.Minute)
	defer cancel()
	cmd := admin.role("crowd", fmt.Sprint(laptops), lasts.String(), fmt.Sprint(vanish)).exec(ctx)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // it says where each laptop stands
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	for line := range strings.Lines(said.String()) {
		report(t, "crowd", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		t.Fatalf("the crowd: %v", err)
	}
}

// crowdMemory is what the crowd's process may hold, in bytes. Each visit makes a
// WireGuard device of 32 MiB, in pools and behind finalizers that take Go's collector
// three rounds to see through: where it waits each time until the heap has doubled,
// as it does unless told a limit, what is left of the visits before the last grows
// without end (20 GiB after eight minutes). A laptop of its own makes one device.
const crowdMemory = 6 << 30

// crowdRole COUNT DURATION VANISH is a crowd on the machine that it runs on.
func crowdRole(ctx context.Context, args []string) error {
	debug.SetMemoryLimit(crowdMemory)
	lasts, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("PODNET_DEBUG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	before := runtime.NumGoroutine()
	r := crowd.Run(ctx, crowd.Config{
		Laptops: number(args[0]), For: lasts, Vanish: args[2] == "true", Pace: time.Second, Seed: uint64(time.Now().UnixNano()), Log: log,
		Shop: "http://web.shop.svc.cluster.local", Echo: "db-0.db.shop.svc.cluster.local:5432",
		Open: func(kube localapi.Kube) (client.Cluster, error) { return cluster.Open(kube, log) },
		Request: func(i int) localapi.ConnectRequest {
			return localapi.ConnectRequest{
				Kube: localapi.Kube{Env: os.Environ(), Flags: map[string][]string{
					"as": {fmt.Sprintf("crowd-%02d", i)}, "as-group": {"dev", crowdGroup},
				}},
				Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60,
			}
		},
	})
	fmt.Printf("%v%d goroutines are left of them\n", r, runtime.NumGoroutine()-before)
	if len(r.Stuck) > 0 {
		return fmt.Errorf("%d were stuck", len(r.Stuck))
	}
	return nil
}

// gauges are what a gateway that forgets nothing would let grow.
type gauges struct {
	goroutines, files       float64
	memory, own, heap, used float64 // bytes; own is the part of memory that is of no file
}

func (g gauges) String() string {
	return fmt.Sprintf("%.0f goroutines, %.1f MiB resident, %.1f of its own, %.1f MiB of heap in use, %.1f MiB for good, %.0f files", g.goroutines, g.memory/(1<<20), g.own/(1<<20), g.heap/(1<<20), g.used/(1<<20), g.files)
}

func gatewayGauges(t testing.TB) (g gauges) {
	t.Helper()
	want := map[string]*float64{
		"go_goroutines": &g.goroutines, "process_resident_memory_bytes": &g.memory, "go_memstats_heap_inuse_bytes": &g.heap, "podnet_gateway_memory_used_bytes": &g.used, "process_open_fds": &g.files,
	}
	text := kubectl("get", "--raw", "/api/v1/namespaces/podnet-system/pods/podnet-gateway-0:8081/proxy/metrics").must(t)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if at := want[name]; at != nil {
			var err error
			if *at, err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatalf("metric %s: %v", name, err)
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Fatalf("the gateway does not tell %v", want)
	}
	g.own = float64(holding(t, host("pgrep", "-x", "podnet-gateway").must(t)).own)
	return g
}

// deserted waits until nobody has anything in the gateway any more and tells how
// it is then: the leases of those who vanished take a minute. In the long form
// memory is the least that it has in the five minutes after that. How much
// garbage an idle program has just then is chance; what it keeps is not, and
// within that time it has given back twice.
func deserted(t testing.TB) gauges {
	t.Helper()
	eventually(t, 4*time.Minute, "nobody has objects", func() error {
		if left := kubectl("get", "peers,accesses", "-A", "-o", "name").must(t); left != "" {
			return fmt.Errorf("%d objects are left", len(strings.Fields(left)))
		}
		return nil
	})
	least := gatewayGauges(t)
	for end := time.Now().Add(lasting(0, 5*time.Minute)); time.Now().Before(end); time.Sleep(5 * time.Second) {
		if g := gatewayGauges(t); g.own < least.own {
			least = g
		}
	}
	return least
}
