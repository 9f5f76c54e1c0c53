//go:build !darwin || cgo

// Podnet-tray shows in the panel what this machine is connected to, and connects and
// disconnects by clicks. On macOS a menu bar icon needs cgo.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}
