package resident

import (
	"context"
	"time"
)

const (
	// look is how often Follow looks how things are.
	look = 10 * time.Second
	// little is what a process at rest computes from one look to the next: 3 % of a core.
	little = look * 3 / 100
	// again is after how many looks more it sheds again: three minutes.
	again = 18
)

// Follow sheds whenever it has become quiet, until ctx ends: what starting took, what
// somebody's coming took, and what the last one has left behind. users are those who
// are there.
func Follow(ctx context.Context, users func() int) error {
	return follow(ctx, users, computed, Shed)
}

// follow calls shed once nobody has come or gone and next to nothing was computed from
// one look to the next, and every three minutes while it stays so: then the objects of
// those who left without a word are tidied away as well. The runtime would keep all that:
// it collects every two minutes when nothing happens, and holds on to as much as it had
// before the last collection.
func follow(ctx context.Context, users func() int, computed func() time.Duration, shed func()) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	had, so, quiet := -1, time.Duration(0), 0 // quiet: looks in a row that found it so
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, c := users(), computed()
		still := n == had && c-so <= little
		had, so = n, c
		if !still {
			quiet = 0
			continue
		}
		if quiet++; quiet%again == 1 {
			shed()
			so = computed() // which took some itself
		}
	}
}
