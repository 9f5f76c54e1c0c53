// Package wake is how loops sleep, and how they are woken.
package wake

import (
	"context"
	"time"
)

// Up puts a token into a channel of one, unless there is one: there is something
// to do for who reads it.
func Up(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// After waits, and reports false when ctx ended first.
func After(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Earlier is the earlier of two times to wake at; zero is never.
func Earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
