// Command bench measures podnet-gateway beside upstream wireguard-go on the
// same machine in the same minutes, and prints both and their ratios against
// the goals of the design. It judges nothing.
//
// Laptop, gateway and pod are three network namespaces joined by veth. The
// gateway is podnet-gateway as uid 65534 without capabilities; on the laptop is
// podnet's tunnel or, as a plain WireGuard client, upstream wireguard-go. Both
// are compared with wireguard-go at both ends, with a TUN each and the
// kernel's forwarding. In mode "pass" the outer link takes
// UDP segments coalesced, in mode "seg" it does not, as most network cards and
// every overlay: there a gateway receives each datagram by itself.
//
// With -steal it measures requests that podnet-agent steers to a laptop instead:
// what each costs the agent, the gateway and the laptop. With -pass it measures
// those that the agent passes on to the pod's own program, beside the same program's
// without an agent.
//
// It needs root, iproute2, setpriv and iperf3, for -steal and -pass curl and wrk, and
// removes what it made.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	gateway string // the podnet-gateway binary
	agent   string // the podnet-agent binary, for steal and pass
	steal   bool
	pass    bool
	modes   []string      // pass, seg
	per     time.Duration // of one throughput figure
	short   time.Duration // of the others
	udp     bool
	only    string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		exit(worker(os.Args[2:]))
		return
	}
	self, err := os.Executable()
	exit(err)
	o := options{per: 3 * time.Second, short: 2 * time.Second, udp: true}
	quick := flag.Bool("quick", false, "about a minute: short figures, no UDP")
	modes := flag.String("modes", "pass,seg", "which links: pass, seg")
	flag.StringVar(&o.gateway, "gateway", filepath.Join(filepath.Dir(self), "podnet-gateway"), "the gateway `BINARY`")
	flag.BoolVar(&o.steal, "steal", false, "measure requests that an agent steers to a laptop")
	flag.BoolVar(&o.pass, "pass", false, "measure requests that an agent passes on, in mode pass")
	flag.StringVar(&o.agent, "agent", filepath.Join(filepath.Dir(self), "podnet-agent"), "the agent `BINARY`")
	flag.DurationVar(&o.per, "per", o.per, "length of a throughput figure")
	flag.StringVar(&o.only, "only", "", "measure only this `SYSTEM`: podnet, plain client or wireguard-go")
	flag.Parse()
	o.modes = strings.Split(*modes, ",")
	if *quick {
		o.per, o.short, o.udp = time.Second, 500*time.Millisecond, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
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
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w\nhint: apt-get install iproute2 iperf3 util-linux curl wrk", err)
		}
	}
	if _, err := os.Stat(binary); err != nil && o.only != upstream {
		return fmt.Errorf("%w\nhint: make build", err)
	}
	start := time.Now()
	if o.pass {
		if err := pass(ctx, o, os.Stdout); err != nil {
			return fmt.Errorf("measure pass: %w", err)
		}
		o.modes = nil
	}
	for _, mode := range o.modes {
		if o.steal {
			if err := steal(ctx, o, mode, os.Stdout); err != nil {
				return fmt.Errorf("measure steal, mode %s: %w", mode, err)
			}
			continue
		}
		results := map[string]*result{}
		for _, system := range []string{upstream, plain, podnet} {
			if o.only != "" && o.only != system {
				continue
			}
			r, err := measure(ctx, o, mode, system)
			if err != nil {
				return fmt.Errorf("measure %s, mode %s: %w", system, mode, err)
			}
			results[system] = r
		}
		report(os.Stdout, mode, results)
	}
	fmt.Printf("measured in %v; ratios of one run are the fact, absolute numbers drift with the machine\n", time.Since(start).Round(time.Second))
	return nil
}
