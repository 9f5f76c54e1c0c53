package wake

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestUpDoesNotWait(t *testing.T) {
	c := make(chan struct{}, 1)
	Up(c)
	Up(c)
	if len(c) != 1 {
		t.Errorf("%d tokens", len(c))
	}
}

func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if !After(ctx, 300*time.Millisecond) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("it took %v", time.Since(began))
		}
		if After(ctx, time.Minute) || time.Since(began) != time.Second {
			t.Errorf("it outlived its ctx, after %v", time.Since(began))
		}
	})
}

func TestEarlier(t *testing.T) {
	first, second, never := time.Unix(1, 0), time.Unix(2, 0), time.Time{}
	for _, c := range []struct{ a, b, want time.Time }{{first, second, first}, {second, first, first}, {never, second, second}, {second, never, second}, {never, never, never}} {
		if got := Earlier(c.a, c.b); !got.Equal(c.want) {
			t.Errorf("of %v and %v: %v", c.a, c.b, got)
		}
	}
}
