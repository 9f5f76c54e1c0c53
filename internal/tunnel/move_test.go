package tunnel

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A tunnel that has moved speaks at once and some times more; a second move in
// between begins anew.
func TestMovedTunnelShowsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spoke []time.Duration
		start := time.Now()
		s := NewShower(func() { spoke = append(spoke, time.Since(start)) })
		defer s.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(spoke) != 0 {
			t.Fatalf("spoke %v without a move", spoke)
		}
		start = time.Now()
		s.Move()
		time.Sleep(200 * time.Millisecond)
		s.Move()
		time.Sleep(time.Minute)
		synctest.Wait()
		ms := time.Millisecond
		if want := []time.Duration{0, 100 * ms, 200 * ms, 300 * ms, 500 * ms, 1200 * ms}; !slices.Equal(spoke, want) {
			t.Errorf("spoke at %v, want %v", spoke, want)
		}
	})
}
