//go:build unix

package main

import (
	"os"
	"syscall"
)

// forwarded are the signals that a command is told of which we were sent.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
