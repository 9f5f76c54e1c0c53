package inflight

import "time"

const (
	// ackEvery bytes are acknowledged, or what has come ackDelay after it
	// came. Below 13 Mbit/s the delay comes first.
	ackEvery = 32 << 10
	ackDelay = 20 * time.Millisecond
	// ackPause is between two acknowledgements: a fast stream needs no more.
	ackPause = time.Millisecond
)

// Receiver says when to acknowledge what has arrived. It is pure.
type Receiver struct {
	got, told uint64
	since     time.Time // when the first byte that is not told of came
	last      time.Time // when the last byte came
	toldAt    time.Time
}

// Receive counts n bytes that have arrived now.
func (r *Receiver) Receive(now time.Time, n int) {
	if r.got == r.told {
		r.since = now
	}
	r.got += uint64(n)
	r.last = now
}

// Due says when to acknowledge; ok is false when there is nothing to.
func (r *Receiver) Due() (at time.Time, ok bool) {
	switch {
	case r.got == r.told:
		return time.Time{}, false
	case r.got-r.told >= ackEvery:
		return r.toldAt.Add(ackPause), true
	}
	return r.since.Add(ackDelay), true
}

// Take is what to tell now.
func (r *Receiver) Take(now time.Time) (bytes uint64, held time.Duration) {
	if r.got == 0 {
		return 0, 0
	}
	r.told, r.toldAt = r.got, now
	return r.got, now.Sub(r.last)
}
