package resident

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollow has a crowd come, work, rest and leave, twice.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		users, shed := 0, 0
		used := time.Duration(0)
		done := make(chan error, 1)
		go func() {
			done <- follow(ctx, func() int { return users }, func() time.Duration { return used }, func() { shed++; used += time.Second })
		}()
		after := func(d time.Duration, want int, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if shed != want {
				t.Errorf("%s: shed %d times, want %d", when, shed, want)
			}
		}
		after(time.Minute, 1, "when it has started")
		for users = 1; users < 50; users++ {
			after(look, 1, "while they come")
		}
		for range 60 {
			used += look / 10
			after(look, 1, "while they work")
		}
		after(2*look, 2, "while they rest")
		after(time.Hour, 22, "an hour later")
		users = 0
		after(look+time.Second, 22, "just after they left")
		after(2*look, 23, "a moment later")
		after(2*time.Minute, 23, "while objects are still tidied")
		after(2*time.Minute, 24, "when that is over")
		users = 1
		after(look, 24, "with another one")
		users = 0
		after(3*look, 25, "after that one has left")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestComputed: time goes on only when somebody computes.
func TestComputed(t *testing.T) {
	before := computed()
	for begin := time.Now(); computed()-before < 50*time.Millisecond; {
		if time.Since(begin) > time.Minute {
			t.Fatal("it computes for a minute, and is said not to")
		}
	}
	idle := computed()
	time.Sleep(200 * time.Millisecond)
	if took := computed() - idle; took > 150*time.Millisecond {
		t.Errorf("sleeping for 200 ms takes %v", took)
	}
}
