package resident

import (
	"context"
	"time"
)

// look is how often Follow looks who is there.
const look = 10 * time.Second

// Follow sheds whenever it has become quiet, until ctx ends: what starting took, what
// somebody's coming took, and what the last one has left behind. users are those who
// are there.
func Follow(ctx context.Context, users func() int) error {
	return follow(ctx, users, Shed, ShedProgram)
}

// follow calls all once the last user has been gone for a moment, and again three
// minutes later: then the objects of those who left without a word are tidied away as
// well, and the buffers in pools have outlived a collection. The runtime would keep all
// that: it collects every two minutes when nothing happens, and holds on to as much as
// it had before the last collection. While somebody is there it calls program, which
// nobody notices.
func follow(ctx context.Context, users func() int, all, program func()) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	last, same := -1, 0 // same: looks that saw as many as the one before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n := users()
		if n != last {
			last, same = n, 0
			continue
		}
		same++
		switch {
		case n > 0 && same == 1:
			program()
		case n == 0 && (same == 1 || same == 19):
			all()
		}
	}
}
