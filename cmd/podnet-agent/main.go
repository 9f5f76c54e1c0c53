// Command podnet-agent steers the traffic of one pod: it runs in an ephemeral
// container there, and ends when nobody steers the pod any more.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"podnet.dev/gateway/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := agent.Main(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
