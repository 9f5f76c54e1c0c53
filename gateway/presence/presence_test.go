package presence

import (
	"testing"
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
