// Command shop is the sample application of the lab: one static binary that is
// the web shop, its database and its till. It says which pod answered, echoes
// TCP and UDP, and serves what tests of a network need: large bodies with
// checksums, slow answers, connections held open.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log, os.Args[1:]); err != nil {
		log.Error("stopped", "err", err)
		os.Exit(1)
	}
}

// run serves what the flags name until ctx ends; an empty address serves nothing.
func run(ctx context.Context, log *slog.Logger, args []string) error {
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	web := flags.String("http", ":8080", "serve HTTP, version 2 without TLS as well, on this `ADDRESS`")
	tcpEcho := flags.String("tcp-echo", "", "echo TCP on this `ADDRESS`")
	udpEcho := flags.String("udp-echo", "", "echo UDP on this `ADDRESS`")
	name := flags.String("name", podName(), "say this `NAME` in answers")
	cluster := flags.String("cluster", "", "say after it that it is in the cluster of this `NAME`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *cluster != "" {
		*name += " in " + *cluster
	}
	g, ctx := errgroup.WithContext(ctx)
	if *web != "" {
		ln, err := net.Listen("tcp", *web)
		if err != nil {
			return err
		}
		g.Go(func() error {
			return serveHTTP(ctx, ln, NewShop(*name, os.Getenv("POD_NAMESPACE"), os.Getenv("NODE_NAME")))
		})
	}
	if *tcpEcho != "" {
		ln, err := net.Listen("tcp", *tcpEcho)
		if err != nil {
			return err
		}
		g.Go(func() error { return echoTCP(ctx, ln) })
	}
	if *udpEcho != "" {
		// The wildcard address would answer from whichever of the pod's
		// addresses the route prefers; a pod has one per family, so that is right.
		pc, err := net.ListenPacket("udp", *udpEcho)
		if err != nil {
			return err
		}
		g.Go(func() error { return echoUDP(ctx, pc) })
	}
	log.Info("open", "pod", *name, "http", *web, "tcpEcho", *tcpEcho, "udpEcho", *udpEcho)
	return g.Wait()
}

// podName is the pod's name: what the downward API says, else the host's name,
// which in a pod is the same.
func podName() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Sprintf("pid-%d", os.Getpid())
	}
	return name
}

func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: both, ReadHeaderTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
