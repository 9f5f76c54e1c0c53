// Command bench measures podnet-gateway beside yardsticks on the same machine in
// the same minutes, and prints the medians and what they make of the goals of the
// design. It judges nothing: a goal that is not met is no error.
//
// Laptop, gateway and pod are three network namespaces joined by veth. The
// gateway is podnet-gateway as uid 65534 without capabilities; on the laptop is
// podnet's tunnel or, as a plain WireGuard client, upstream wireguard-go. The
// yardsticks are the bare veth, wireguard-go at both ends, with a TUN each and the
// kernel's forwarding, and wireguard-go with its own tun/netstack for a gateway. In
// mode "pass" the outer link takes UDP segments coalesced, in mode "seg" it does not,
// as most network cards and every overlay: there a gateway receives each datagram by
// itself.
//
// Each round measures all systems one after another, so that a machine whose mood
// changes changes it for all. With -json the figures of all rounds are written to a
// file, and as a .txt beside it in the format of Go's benchmarks; "make bench-compare"
// has benchstat compare two of them.
//
// With -steal it measures requests that podnet-agent steers to a laptop instead:
// what each costs the agent, the gateway and the laptop. With -pass it measures
// those that the agent passes on to the pod's own program, beside the same program's
// without an agent. With -scale it measures what a gateway costs with more and more
// flows and peers.
//
// It needs root, iproute2, setpriv and, unless it is for -scale, iperf3, for -steal
// and -pass curl and wrk, and removes what it made.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	gateway string // the podnet-gateway binary
	before  string // another one, or ""
	agent   string // the podnet-agent binary, for steal and pass
	steal   bool
	pass    bool
	scale   bool
	modes   []string      // pass, seg
	per     time.Duration // of one throughput figure
	short   time.Duration // of the others
	udp     bool
	rounds  int
	systems []string
	only    []string // figures, by name; none: all
	json    string
	quick   bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		exit(worker(os.Args[2:]))
		return
	}
	self, err := os.Executable()
	exit(err)
	o := options{per: 3 * time.Second, short: 2 * time.Second, udp: true}
	all := []string{raw, upstream, yardNetstack, plain, podnet}
	quick := flag.Bool("quick", false, "about two minutes: one round of short figures, no UDP, no plain client")
	modes := flag.String("modes", "pass,seg", "which links: pass, seg")
	flag.StringVar(&o.gateway, "gateway", filepath.Join(filepath.Dir(self), "podnet-gateway"), "the gateway `BINARY`")
	flag.StringVar(&o.before, "before", "", "another gateway `BINARY`, measured beside the first")
	flag.BoolVar(&o.steal, "steal", false, "measure requests that an agent steers to a laptop")
	flag.BoolVar(&o.pass, "pass", false, "measure requests that an agent passes on, in mode pass")
	flag.BoolVar(&o.scale, "scale", false, "measure a gateway with more and more flows and peers")
	flag.StringVar(&o.agent, "agent", filepath.Join(filepath.Dir(self), "podnet-agent"), "the agent `BINARY`")
	flag.DurationVar(&o.per, "per", o.per, "length of a throughput figure")
	only := flag.String("only", "", "measure only these `SYSTEMS`, some of: "+strings.Join(all, ","))
	some := flag.String("figures", "", "measure only these `FIGURES`, some of: "+strings.Join(figureNames(), ","))
	flag.IntVar(&o.rounds, "rounds", 3, "how many rounds; benchstat is confident of differences from about 5 on")
	flag.StringVar(&o.json, "json", "", "write the figures to this `FILE`, and to one that ends in .txt")
	flag.Parse()
	o.modes, o.systems = strings.Split(*modes, ","), all
	if *quick {
		o.per, o.short, o.udp, o.rounds = time.Second, 500*time.Millisecond, false, 1
		o.systems = []string{raw, upstream, yardNetstack, podnet}
	}
	if *only != "" {
		o.systems = strings.Split(*only, ",")
	}
	if *some != "" {
		o.only = strings.Split(*some, ",")
	}
	for _, f := range o.only {
		if !slices.Contains(figureNames(), f) {
			exit(fmt.Errorf("unknown figure %q\nhint: one of %s", f, strings.Join(figureNames(), ", ")))
		}
	}
	for _, s := range o.systems {
		if !slices.Contains(all, s) {
			exit(fmt.Errorf("unknown system %q\nhint: one of %s", s, strings.Join(all, ", ")))
		}
	}
	if o.before != "" {
		o.systems = append(o.systems, before)
	}
	o.quick = *quick
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
}

// wants reports whether one of these figures is to be measured.
func (o options) wants(figures ...string) bool {
	return len(o.only) == 0 || slices.ContainsFunc(figures, func(f string) bool { return slices.Contains(o.only, f) })
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("network namespaces need root")
	}
	tools, binary := []string{"ip", "iperf3", "setpriv"}, o.gateway
	if o.steal || o.pass {
		tools, binary = []string{"ip", "setpriv", "curl", "wrk"}, o.agent
	}
	if o.scale {
		tools, binary = []string{"ip", "setpriv"}, "" // this program is its own gateway
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w\nhint: apt-get install iproute2 iperf3 util-linux curl wrk", err)
		}
	}
	if _, err := os.Stat(binary); binary != "" && err != nil {
		return fmt.Errorf("%w\nhint: make build", err)
	}
	start := time.Now()
	if o.scale {
		if err := scale(ctx, o, os.Stdout); err != nil {
			return fmt.Errorf("measure scale: %w", err)
		}
		o.modes = nil
	}
	if o.pass {
		if err := pass(ctx, o, os.Stdout); err != nil {
			return fmt.Errorf("measure pass: %w", err)
		}
		o.modes = nil
	}
	if o.steal {
		for _, mode := range o.modes {
			if err := steal(ctx, o, mode, os.Stdout); err != nil {
				return fmt.Errorf("measure steal, mode %s: %w", mode, err)
			}
		}
		o.modes = nil
	}
	if len(o.modes) > 0 {
		if err := compare(ctx, o); err != nil {
			return err
		}
	}
	fmt.Printf("measured in %v; ratios of one run are the fact, absolute numbers drift with the machine\n", time.Since(start).Round(time.Second))
	return nil
}

// compare measures all systems, a round after the other, and reports them.
func compare(ctx context.Context, o options) error {
	rec := newRecord(o.quick)
	for round := 1; round <= o.rounds; round++ {
		for _, mode := range o.modes {
			for _, system := range o.systems {
				fmt.Fprintf(os.Stderr, "bench: round %d of %d, %s, mode %s ...\n", round, o.rounds, system, mode)
				r, err := measure(ctx, o, mode, system)
				if err != nil {
					return fmt.Errorf("measure %s, mode %s: %w", system, mode, err)
				}
				rec.Samples = append(rec.Samples, sample{mode, system, round, r})
			}
		}
	}
	rec.report(os.Stdout)
	if o.json == "" {
		return nil
	}
	if err := rec.write(o.json); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}
