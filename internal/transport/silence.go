package transport

import (
	"sync"
	"time"
)

// tooQuiet is how long a laptop's address may say nothing before what is sent there
// may be lost: a laptop pings the path that it uses every second. TCP repeats 0.2,
// 0.6, 1.4 and 3 s after a loss, and the first of these may be the first look: the
// third must be held, or a cut of 1.5 s lasts for 3.
const tooQuiet = 1050 * time.Millisecond

// silence tells that nothing comes from an address to which much may be sent. It
// costs those who receive nothing but a count, and looks at the clock when something
// is sent.
type silence struct {
	mu    sync.Mutex
	seen  uint64    // what had come
	since time.Time // nothing has come since, as far as was looked
}

// lasts reports whether nothing has come for tooQuiet, during which it was called.
// heard counts what has, in any unit.
func (s *silence) lasts(now time.Time, heard uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if heard != s.seen || s.since.IsZero() {
		s.seen, s.since = heard, now
	}
	return now.Sub(s.since) > tooQuiet
}
