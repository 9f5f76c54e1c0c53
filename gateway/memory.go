package gateway

import (
	"context"
	"time"
)

// idleLook is how often a gateway looks whether its last peer has left.
const idleLook = 10 * time.Second

// giveBackAfter are the looks, counted from the first that saw nobody, at which
// memory is given back: a moment after the last peer has left, and once more
// when the objects of those who left without a word are tidied away as well and
// the buffers in pools have outlived a collection.
var giveBackAfter = map[int]bool{1: true, 19: true}

// giveBack returns memory to the node, by free (debug.FreeOSMemory), once the
// last peer has been gone for a moment, and again three minutes later. The
// runtime would keep it: it collects every two minutes when nothing happens, and
// holds on to as much as it had before the last collection. It costs some 20 ms
// of one core, at a time when nobody waits for it.
func giveBack(ctx context.Context, peers func() int, free func()) error {
	tick := time.NewTicker(idleLook)
	defer tick.Stop()
	used, idle := false, 0 // idle: looks that saw nobody, since somebody was seen
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if peers() > 0 {
			used, idle = true, 0
			continue
		}
		if used && giveBackAfter[idle] {
			free()
		}
		idle++
	}
}
