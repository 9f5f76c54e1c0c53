package resident

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollow lets two crowds come and go.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		users, all, program := 0, 0, 0
		done := make(chan error, 1)
		go func() { done <- follow(ctx, func() int { return users }, func() { all++ }, func() { program++ }) }()
		after := func(d time.Duration, wantAll, wantProgram int, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if all != wantAll || program != wantProgram {
				t.Errorf("%s: shed all %d times and the program %d times, want %d and %d", when, all, program, wantAll, wantProgram)
			}
		}
		after(time.Minute, 1, 0, "when it has started")
		for users = 1; users < 50; users++ {
			after(look, 1, 0, "while they come")
		}
		after(time.Hour, 1, 1, "while they are there")
		users = 0
		after(look+time.Second, 1, 1, "just after they left")
		after(2*look, 2, 1, "a moment later")
		after(2*time.Minute, 2, 1, "while objects are still tidied")
		after(2*time.Minute, 3, 1, "when that is over")
		after(time.Hour, 3, 1, "an hour later")
		users = 1
		after(look, 3, 1, "with another one")
		users = 0
		after(3*look, 4, 1, "after that one has left")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
