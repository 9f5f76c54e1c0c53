package gateway

import (
	"context"
	"time"
)

// idleLook is how often a gateway looks whether its last peer has left.
const idleLook = 10 * time.Second

// giveBack returns memory to the node, by free (debug.FreeOSMemory), once the
// last peer has been gone for a moment. The runtime would take minutes: it
// collects every two when nothing happens, and gives back little by little. It
// costs some 20 ms of one core, at a time when nobody waits for it.
func giveBack(ctx context.Context, peers func() int, free func()) error {
	tick := time.NewTicker(idleLook)
	defer tick.Stop()
	for used, idle := false, false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch {
		case peers() > 0:
			used, idle = true, false
		case used && idle:
			free()
			used = false
		default:
			idle = true
		}
	}
}
