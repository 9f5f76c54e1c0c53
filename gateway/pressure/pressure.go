// Package pressure tells how full the gateway's memory is, and what follows: at
// nine tenths no flow begins any more, at 95 % some end. The kernel that kills a
// process out of memory ends them all.
package pressure

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// Level is what follows from how full the memory is.
type Level int

const (
	Calm Level = iota
	Full       // nothing new
	Over       // and some of the old has to go
)

// The shares of the budget, in percent, at which a level begins, and below which
// Full ends (security.md, section 4).
const (
	fullAt, overAt, calmBelow = 90, 95, 85
)

// every is how often memory is read.
const every = 250 * time.Millisecond

// atOnce is the part of a peer's flows that one turn sheds: one in so many.
const atOnce = 16

// Reading is memory in bytes.
type Reading struct {
	// Used is what cannot be given back: what is alive on the heap since the last
	// collection, the Go runtime's own, and what the kernel has in its sockets for us.
	Used uint64
	// Budget is what Used may come to; 0: nobody has set a limit.
	Budget uint64
	// Outside is the part of Used that Go does not count.
	Outside uint64
}

// Percent is the share of the budget that is used.
func (r Reading) Percent() int {
	if r.Budget == 0 {
		return 0
	}
	return int(r.Used * 100 / r.Budget)
}

// next is the level after a reading.
func next(was Level, r Reading) Level {
	switch p := r.Percent(); {
	case p >= overAt:
		return Over
	case p >= fullAt:
		return Full
	case p >= calmBelow && was != Calm:
		return Full
	}
	return Calm
}

// Control keeps a gateway within its memory.
type Control struct {
	// Read reads memory.
	Read func() Reading
	// SetFull says whether anything may begin.
	SetFull func(bool)
	// Shed ends one part in n of the flows of whoever has the most.
	Shed func(n int)
	// Changed hears of each change of level.
	Changed func(Level, Reading)

	collect func() // runtime.GC, but in tests
	limit   func(bytes int64)
}

// Run reads and acts until ctx ends.
func (c Control) Run(ctx context.Context) error {
	if c.collect == nil {
		c.collect = runtime.GC
	}
	if c.limit == nil {
		c.limit = func(n int64) { debug.SetMemoryLimit(n) }
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	level, outside := Calm, uint64(0)
	for {
		r := c.Read()
		// Go's collector aims at a limit of its own, which knows nothing of sockets.
		if r.Budget > 0 && differs(r.Outside, outside, r.Budget) {
			outside = r.Outside
			c.limit(int64(max(r.Budget-min(r.Budget, r.Outside), r.Budget/4)))
		}
		now := next(level, r)
		if now != level {
			level = now
			c.SetFull(level != Calm)
			c.Changed(level, r)
		}
		if level == Over {
			c.Shed(atOnce)
		}
		if level != Calm {
			c.collect() // or what has ended would count until there is much more
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// differs reports whether two sizes are more than a hundredth of a whole apart.
func differs(a, b, whole uint64) bool { return max(a, b)-min(a, b) > whole/100 }
