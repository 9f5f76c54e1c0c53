package presence

import (
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

func TestWhoIsHere(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	fresh, stale, silent, stranger := key.Public{1}, key.Public{2}, key.Public{3}, key.Public{4}
	known := Of([]tunnel.PeerStats{{PublicKey: fresh, LastHandshake: now.Add(-179 * time.Second)}, {PublicKey: stale, LastHandshake: now.Add(-180 * time.Second)}, {PublicKey: silent}})
	for k, want := range map[key.Public]bool{fresh: true, stale: false, silent: false, stranger: false} {
		if got := known.Here(k, now); got != want {
			t.Errorf("%v: %v", k, got)
		}
	}
}

// TestTickerRests: it ticks while somebody wants to know.
func TestTickerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tick := NewTicker()
		defer tick.Stop()
		expect := func(when string, want int) {
			t.Helper()
			ticks := 0
			for end := time.After(10*Poll + Poll/2); ; {
				select {
				case <-tick.C:
					ticks++
					continue
				case <-end:
				}
				break
			}
			if ticks != want {
				t.Errorf("%s: %d ticks, want %d", when, ticks, want)
			}
		}
		expect("at first", 0)
		Follow(tick, true)
		expect("wanted", 10)
		Follow(tick, false)
		expect("not any more", 0)
		Follow(tick, true)
		expect("and again", 10)
	})
}
