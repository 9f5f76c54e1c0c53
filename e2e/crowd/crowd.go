// Package crowd is many laptops in one process. Each is a real client.Session
// against a real cluster; only its operating system and its wire are played: a
// network stack of this process stands for the one (package userspace), a relay that
// can fail in every way for the other (Wire). So a hundred laptops need neither
// privilege nor machines, and each can roam by itself.
package crowd

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
)

// Config of a crowd.
type Config struct {
	// Laptops is how many there are at once.
	Laptops int
	// For is how long they come and go; none begins anything new after that.
	For time.Duration
	// Request is what laptop i (from 0) asks for. The crowd chooses the path.
	Request func(i int) localapi.ConnectRequest
	// Open opens the cluster.
	Open func(localapi.Kube) (client.Cluster, error)
	// Shop is the URL of a web server as e2e/shop, Echo the address of a TCP
	// server that sends everything back. Names are resolved by the session.
	Shop, Echo string
	// Vanish makes every fifth laptop leave without a goodbye, as one whose
	// battery is empty; its objects stay until the lease ends.
	Vanish bool
	// Pace is the mean pause between two deeds of a laptop.
	Pace time.Duration
	// Seed makes the laptops' choices repeatable.
	Seed uint64
	Log  *slog.Logger
}

// Report is what a crowd did.
type Report struct {
	Laptops int
	Took    time.Duration
	Deeds   map[string][]time.Duration // how long each took, sorted
	Stuck   []string                   // deeds that failed or did not end in time
}

// String is a line for each kind of deed.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d laptops for %v, %d stuck\n", r.Laptops, r.Took.Round(time.Second), len(r.Stuck))
	names := make([]string, 0, len(r.Deeds))
	for name := range r.Deeds {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all := r.Deeds[name]
		at := func(percent int) time.Duration {
			return all[(len(all)-1)*percent/100].Round(time.Millisecond)
		}
		fmt.Fprintf(&b, "%-28s %6d times, median %v, p99 %v, longest %v\n", name, len(all), at(50), at(99), at(100))
	}
	for _, s := range r.Stuck {
		fmt.Fprintf(&b, "stuck: %s\n", s)
	}
	return b.String()
}

// crowd is the state of one Run.
type crowd struct {
	Config
	until time.Time

	mu     sync.Mutex
	report Report
}

// arrival is how far apart the laptops come at first: a morning, not a stampede.
const arrival = 100 * time.Millisecond

// Run lets the laptops come and go and returns when the last has left. Done
// early by ctx they leave at once.
func Run(ctx context.Context, cfg Config) Report {
	start := time.Now()
	c := &crowd{Config: cfg, until: start.Add(cfg.For), report: Report{Laptops: cfg.Laptops, Deeds: map[string][]time.Duration{}}}
	var wg sync.WaitGroup
	for i := range cfg.Laptops {
		wg.Go(func() {
			l := &laptop{c: c, number: i, rand: rand.New(rand.NewPCG(cfg.Seed, uint64(i)))}
			if wait(ctx, time.Duration(i)*arrival) {
				l.live(ctx)
			}
		})
	}
	wg.Wait()
	c.report.Took = time.Since(start)
	for _, all := range c.report.Deeds {
		slices.Sort(all)
	}
	return c.report
}

func (c *crowd) over() bool { return !time.Now().Before(c.until) }

func (c *crowd) did(deed string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Deeds[deed] = append(c.report.Deeds[deed], took)
}

func (c *crowd) stuck(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Stuck = append(c.report.Stuck, text)
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
