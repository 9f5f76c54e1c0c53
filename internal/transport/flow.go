package transport

import (
	"sync"
	"time"

	"podnet.dev/internal/transport/inflight"
)

// flow is both directions of a carrier's flow control: how much it may send, and
// what it has to acknowledge. It adds the clock and the frames to inflight.
type flow struct {
	wake func() // the writer has something to do; must not wait

	mu    sync.Mutex
	out   inflight.Sender
	in    inflight.Receiver
	due   bool // to acknowledge now
	timer *time.Timer
	armed time.Time // when timer will ring; zero: it will not
}

// newFlow owes an acknowledgement of nothing: that tells the other end that
// others will come.
func newFlow(wake func()) *flow { return &flow{wake: wake, due: true} }

// cut counts as many whole frames of b as may be written now, up to limit bytes
// unless the first is longer, and returns their bytes.
func (f *flow) cut(b []byte, limit int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit = min(limit, f.out.Room())
	if limit == 0 {
		return 0
	}
	n := 0
	for {
		_, _, size, ok := nextFrame(b[n:])
		if !ok || n > 0 && n+size > limit {
			break
		}
		n += size
	}
	f.out.Send(time.Now(), n)
	return n
}

// queue is how many bytes may wait to be cut, if the stream is known to be so slow
// that sendQueue takes it longer than inflight.QueueTarget/4; ok is then true.
func (f *flow) queue() (bytes int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bytes = int(f.out.Rate() * (inflight.QueueTarget / 4).Seconds())
	return bytes, bytes > 0 && bytes < sendQueue
}

// dry notes that there is nothing to send.
func (f *flow) dry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out.Room() > 0 {
		f.out.Dry()
	}
}

// acknowledged takes the other end's word.
func (f *flow) acknowledged(m []byte) error {
	bytes, held, ok := inflight.Parse(m)
	if !ok {
		return errFrame
	}
	f.mu.Lock()
	err := f.out.Ack(time.Now(), bytes, held)
	f.mu.Unlock()
	f.wake()
	return err
}

// receive counts n bytes that have arrived.
func (f *flow) receive(n int) {
	f.mu.Lock()
	now := time.Now()
	f.in.Receive(now, n)
	wake := f.armLocked(now)
	f.mu.Unlock()
	if wake {
		f.wake()
	}
}

// armLocked has an acknowledgement sent when it is due, and reports whether that
// is now.
func (f *flow) armLocked(now time.Time) bool {
	at, ok := f.in.Due()
	switch {
	case f.due || !ok:
		return false
	case !at.After(now):
		f.due = true
		return true
	case !f.armed.IsZero() && !f.armed.After(at):
		return false // it rings before
	case f.timer == nil:
		f.timer = time.AfterFunc(at.Sub(now), f.ring)
	default:
		f.timer.Reset(at.Sub(now))
	}
	f.armed = at
	return false
}

func (f *flow) ring() {
	f.mu.Lock()
	f.armed = time.Time{}
	wake := f.armLocked(time.Now())
	f.mu.Unlock()
	if wake {
		f.wake()
	}
}

// appendAck appends the frame of an acknowledgement if one is due.
func (f *flow) appendAck(b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.due {
		return b
	}
	f.due = false
	var m [inflight.Len]byte
	bytes, held := f.in.Take(time.Now())
	return appendFrame(b, inflight.Append(m[:0], bytes, held))
}

// close ends the timer.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due = true // and never again
	if f.timer != nil {
		f.timer.Stop()
	}
}
