package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryGoesBack lets two crowds come and go.
func TestMemoryGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		peers, freed := 0, 0
		done := make(chan error, 1)
		go func() { done <- giveBack(ctx, func() int { return peers }, func() { freed++ }) }()
		after := func(d time.Duration, want int, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if freed != want {
				t.Errorf("%s: freed %d times, want %d", when, freed, want)
			}
		}
		after(time.Minute, 0, "before anybody came")
		peers = 50
		after(time.Minute, 0, "while they are there")
		peers = 0
		after(idleLook+time.Second, 0, "just after they left")
		after(2*idleLook, 1, "a moment later")
		after(2*time.Minute, 1, "while objects are still tidied")
		after(2*time.Minute, 2, "when that is over")
		after(time.Hour, 2, "an hour later")
		peers = 1
		after(idleLook, 2, "with another one")
		peers = 0
		after(3*idleLook, 3, "after that one has left")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
