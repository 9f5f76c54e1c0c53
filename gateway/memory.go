package gateway

import (
	"context"
	"time"

	"podnet.dev/gateway/pressure"
)

// shedLeast is how many connections somebody must have to lose some for want of
// memory: what fewer take is no help.
const shedLeast = 32

// keepWithinMemory refuses flows, and ends some, before the kernel ends the gateway.
func (g *Gateway) keepWithinMemory(ctx context.Context) error {
	return pressure.Control{
		Read: g.memory.Read, SetFull: g.forward.SetFull,
		Shed: func(part int) { g.forward.Shed(1+g.forward.Stats().OpenTCP/part, shedLeast) },
		Changed: func(l pressure.Level, r pressure.Reading) {
			g.admit.limited.SetFull(l != pressure.Calm)
			if l == pressure.Calm {
				g.o.Log.Info("memory is enough again", "used", r.Used, "budget", r.Budget)
				return
			}
			g.o.Log.Warn("memory runs out: no flow begins", "used", r.Used, "budget", r.Budget, "sheds", l == pressure.Over)
		},
	}.Run(ctx)
}

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
