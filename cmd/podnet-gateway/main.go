// Command podnet-gateway ends WireGuard tunnels in an unprivileged process and
// forwards their flows into the network around it: in a cluster for the peers
// that the API server vouches for, or anywhere for those of a WireGuard file.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"podnet.dev/gateway"
	"podnet.dev/gateway/namespaced"
	"podnet.dev/gateway/standalone"
	"podnet.dev/internal/limits"
	"podnet.dev/internal/nocore"
	"podnet.dev/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podnet-gateway:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "top" {
		return gateway.Top(ctx, os.Stdin, os.Stdout)
	}
	fs := flag.NewFlagSet("podnet-gateway", flag.ExitOnError)
	config := fs.String("wireguard-config", os.Getenv("PODNET_WIREGUARD_CONFIG"), "run without Kubernetes from this WireGuard `FILE`")
	domain := fs.String("dns-domain", os.Getenv("PODNET_DNS_DOMAIN"), "the cluster's `ZONE`; found out by itself when not given")
	var advertise list
	if s := os.Getenv("PODNET_ADVERTISE"); s != "" {
		_ = advertise.Set(s)
	}
	fs.Var(&advertise, "advertise", "a UDP `ENDPOINT` (ip:port) from which this gateway can be reached, beside those of Services")
	var podCIDRs list
	if s := os.Getenv("PODNET_POD_CIDR"); s != "" {
		_ = podCIDRs.Set(s)
	}
	fs.Var(&podCIDRs, "pod-cidr", "a `RANGE` of pods for laptops to route, in place of what nodes declare; repeatable")
	var stun list
	if s := os.Getenv("PODNET_STUN"); s != "" {
		_ = stun.Set(s)
	}
	fs.Var(&stun, "stun", "a STUN `SERVER` (host:port) to ask how the cluster's NAT shows the WireGuard port; repeatable")
	bounds := limits.Default()
	for s := range strings.SplitSeq(os.Getenv("PODNET_LIMIT"), ",") {
		if s == "" {
			continue
		}
		if err := bounds.Set(s); err != nil {
			return fmt.Errorf("PODNET_LIMIT: %w", err)
		}
	}
	fs.Var(&bounds, "limit", "a limit as `NAME=VALUE`, such as user-connections=20k; repeatable")
	alone := fs.Bool("namespaced", false, "serve the pod's own namespace only, without the Kubernetes API")
	var serviceCIDRs list
	fs.Var(&serviceCIDRs, "service-cidr", "with --namespaced, a `RANGE` of Services for laptops to route, in place of a guess; repeatable")
	nodePort := fs.Int("node-port", 0, "with --namespaced, the UDP `PORT` of the node that leads here")
	level := slog.LevelInfo
	if s := os.Getenv("PODNET_LOG_LEVEL"); s != "" {
		if err := level.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("PODNET_LOG_LEVEL: %w", err)
		}
	}
	fs.TextVar(&level, "log-level", level, "debug, info, warn or error")
	format := fs.String("log-format", env("PODNET_LOG_FORMAT", "text"), "text or json")
	userMetrics := fs.Bool("user-metrics", os.Getenv("PODNET_USER_METRICS") == "true", "put users' names into the metrics, which every pod may read")
	showVersion := fs.Bool("version", false, "print the version and exit")
	fs.Parse(args)
	if *showVersion {
		fmt.Println(version.Version)
		return nil
	}
	var handler slog.Handler = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	switch *format {
	case "json":
		handler = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	case "text":
	default:
		return fmt.Errorf("unknown log format %q: want text or json", *format)
	}
	log := slog.New(handler)
	if err := nocore.Forbid(); err != nil {
		log.Warn("a crash may leave a core with keys in it", "err", err)
	}
	if *config != "" {
		return standalone.Run(ctx, standalone.Options{ConfigFile: *config, Log: log})
	}
	if *alone {
		o, err := namespaced.Environment()
		if err != nil {
			return err
		}
		o.DNSDomain, o.Advertise, o.PodCIDRs, o.ServiceCIDRs, o.NodePort, o.Limits, o.Log = *domain, advertise, podCIDRs, serviceCIDRs, *nodePort, bounds, log
		return namespaced.Run(ctx, o)
	}
	o, err := gateway.Environment()
	if err != nil {
		return err
	}
	o.DNSDomain, o.Advertise, o.PodCIDRs, o.STUN, o.Limits, o.UserMetrics, o.Log = *domain, advertise, podCIDRs, stun, bounds, *userMetrics, log
	gateway.UseLogger(log)
	return gateway.Run(ctx, o)
}

// list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
