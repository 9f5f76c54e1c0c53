package transport

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/internal/paths"
)

const (
	// heldMax is how many datagrams are held, heldBytes how many bytes of them, and
	// heldFor how long: TCP repeats a lost segment after pauses that double from
	// 0.2 s, so that of a cut of 6 s the last repetition is at most 3 s old.
	heldMax   = 64
	heldBytes = 64 << 10
	heldFor   = 3 * time.Second
)

// held keeps the last datagrams of which it is not known whether they get through:
// there was no path, or one that is silent where it should not be. Sent once more
// by a path that works they end the silence of the TCP flows inside, which would
// otherwise last until the kernel's next repetition, up to twice as long as the
// cut did. Those that did get through before are replays to WireGuard, which drops
// them. The zero held is empty.
type held struct {
	mu    sync.Mutex
	list  []heldDatagram // the oldest first
	bytes int
}

type heldDatagram struct {
	m  []byte
	at time.Time
}

// add holds copies of bufs. Initiations are left out: the last one is repeated
// anyhow.
func (h *held) add(now time.Time, bufs [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range bufs[max(0, len(bufs)-heldMax):] {
		if len(m) > 0 && m[0] != msgInitiation {
			h.list = append(h.list, heldDatagram{slices.Clone(m), now})
			h.bytes += len(m)
		}
	}
	h.trim(now)
}

// trim forgets what is too old or too much. h.mu is held.
func (h *held) trim(now time.Time) {
	n := 0
	for n < len(h.list) && (now.Sub(h.list[n].at) > heldFor || len(h.list)-n > heldMax || h.bytes > heldBytes) {
		h.bytes -= len(h.list[n].m)
		n++
	}
	h.list = slices.Delete(h.list, 0, n)
}

// show returns what is held, in the order in which it came.
func (h *held) show(now time.Time) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all(now)
}

// take returns what show does, and holds it no more.
func (h *held) take(now time.Time) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	bufs := h.all(now)
	h.list, h.bytes = nil, 0
	return bufs
}

// all is what is held and not too old. h.mu is held.
func (h *held) all(now time.Time) [][]byte {
	h.trim(now)
	var bufs [][]byte
	for _, d := range h.list {
		bufs = append(bufs, d.m)
	}
	return bufs
}

// tidy gives memory back that is not needed any more.
func (h *held) tidy(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trim(now); len(h.list) == 0 {
		h.list = nil
	}
}

// sparse is the pause that has what follows it held by repetitions. TCP's own
// pauses before it repeats are at least twice as long.
const sparse = 100 * time.Millisecond

// repetitions keeps, of datagrams that are too long for some paths, each that
// follows a pause. When a path begins to swallow what is long, all other signs of
// life go on, and these are what TCP repeats meanwhile: sent once more in pieces,
// they end the silence inside. The zero repetitions is empty.
type repetitions struct {
	held
	last atomic.Int64 // when one was last sent, in ns since 1970
}

// note looks at what is being sent.
func (r *repetitions) note(now time.Time, bufs [][]byte) {
	at := now.UnixNano()
	if time.Duration(at-r.last.Swap(at)) < sparse {
		return
	}
	for i, m := range bufs {
		if len(m) > paths.MinDatagram {
			r.add(now, bufs[i:i+1])
			return
		}
	}
}
