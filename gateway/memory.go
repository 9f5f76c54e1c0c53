package gateway

import (
	"context"

	"podnet.dev/gateway/pressure"
)

// shedLeast is how many connections somebody must have to lose some for want of
// memory: what fewer take is no help.
const shedLeast = 32

// keepWithinMemory refuses flows, and ends some, before the kernel ends the gateway.
func (g *Gateway) keepWithinMemory(ctx context.Context) error {
	return pressure.Control{
		Read: g.memory.Read,
		SetFull: func(full bool) {
			g.forward.SetFull(full)
			g.admit.expose.SetFull(full)
		},
		Shed: func(part int) {
			g.forward.Shed(1+g.forward.Stats().OpenTCP/part, shedLeast)
			g.admit.expose.Shed(part, shedLeast)
		},
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
