//go:build !linux

package netwatch

import (
	"log/slog"
	"sync"
	"time"
)

// pollEvery is how often the host is looked at where it does not tell.
const pollEvery = 2 * time.Second

func signals(*slog.Logger) (_ <-chan struct{}, stop func()) {
	out, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			select {
			case out <- struct{}{}:
			case <-done:
				return
			}
		}
	})
	return out, func() { close(done); wg.Wait() }
}

// defaultRoutes has no portable way to be known; addresses say nearly as much.
func defaultRoutes() ([]way, error) { return nil, nil }

var start = time.Now()

func clocks() reading { return reading{awake: time.Since(start), all: Uptime()} }

// Uptime counts from an arbitrary moment and does not stand still while the
// machine sleeps. It is the wall clock: somebody may set it.
func Uptime() time.Duration { return time.Now().Round(0).Sub(start.Round(0)) }
