// Command podnet-gateway ends WireGuard tunnels in an unprivileged process and
// forwards their flows into the network around it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"podnet.dev/gateway/standalone"
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
	fs := flag.NewFlagSet("podnet-gateway", flag.ExitOnError)
	config := fs.String("wireguard-config", os.Getenv("PODNET_WIREGUARD_CONFIG"), "run without Kubernetes from this WireGuard `FILE`")
	level := slog.LevelInfo
	if s := os.Getenv("PODNET_LOG_LEVEL"); s != "" {
		if err := level.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("PODNET_LOG_LEVEL: %w", err)
		}
	}
	fs.TextVar(&level, "log-level", level, "debug, info, warn or error")
	format := fs.String("log-format", env("PODNET_LOG_FORMAT", "text"), "text or json")
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
	if *config == "" {
		return fmt.Errorf("no configuration\nhint: podnet-gateway --wireguard-config FILE")
	}
	return standalone.Run(ctx, standalone.Options{ConfigFile: *config, Log: slog.New(handler)})
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
