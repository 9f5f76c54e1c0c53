// Package inflight says how many bytes may be on their way in a stream, so that
// what comes after them does not wait for seconds.
//
// A stream through the Kubernetes API is a chain of TCP connections: laptop, API
// server, kubelet, gateway. Each hop has socket buffers of up to 6 MiB, and a
// sender that fills them has put seconds of queue before every small datagram
// that comes after: 6 MiB are 10 s at 5 Mbit/s. No hop tells how much waits in
// it, so the receiver says what has arrived, and the sender keeps no more on the
// way than what the round trip takes plus QueueTarget.
//
// The window is the product of the rate at which bytes arrive and the time they
// should take, as in BBR (Cardwell et al., ACM Queue 14-5, 2016), which explains
// why one cannot measure both at once: the rate shows only while there is a
// queue, the round trip only while there is none. Hence the drain.
package inflight

import (
	"fmt"
	"math"
	"time"
)

const (
	// windowStart is what a stream begins with. TCP's own slow start takes
	// three round trips to get there, and from there on both double.
	windowStart = 128 << 10
	// windowFloor keeps a stream moving whatever the clocks say: it is two
	// acknowledgements, or four datagrams of the largest MTU.
	windowFloor = 64 << 10
	// windowCeil is 1.7 Gbit/s over 150 ms.
	windowCeil = 32 << 20
	// QueueTarget is the queue a sender aims at. Less and the many stations
	// of the chain, each with its own scheduling, run dry now and then.
	QueueTarget = 20 * time.Millisecond
	// roundMin is the shortest time over which a rate is believed.
	roundMin = 10 * time.Millisecond
	// baseFor is how long a shortest round trip is believed at least; twice
	// that at most. A stream that is never idle is drained when it is over:
	// half a window once in that time.
	baseFor = 5 * time.Second
)

// Sender says how many bytes a sender may have on their way in a stream. It is
// pure: the caller brings the clock. The zero value is for an other end that is
// not known to acknowledge, and has no limit.
//
// Bytes are those of WireGuard's messages with their lengths. Control messages
// count for nothing and are not held back.
type Sender struct {
	acks        bool // the other end acknowledges
	sent, acked uint64
	window      int
	marks       []mark // of what is on its way, oldest first

	filled bool // there has been a queue
	round  round
	rates  [4]float64 // bytes per second of the last rounds that showed it
	base   [2]time.Duration
	based  time.Time // when base[0] was begun; zero: nothing is known

	drain   int    // a smaller window for a moment; 0: none
	drained uint64 // what has to arrive for the moment to end; 0: not known yet
}

// mark says when the bytes up to end were handed to the stream.
type mark struct {
	end uint64
	at  time.Time
}

// round is about one round trip's worth of acknowledgements.
type round struct {
	end     uint64    // over when this has arrived
	acked   uint64    // what had arrived when it began,
	arrived time.Time // when that was,
	sent    time.Time // and when it was sent
	dry     bool      // there was nothing to send for a while
	low     time.Duration
}

// Room is how many more bytes may be handed to the stream.
func (s *Sender) Room() int {
	if !s.acks {
		return math.MaxInt
	}
	window := s.window
	if s.drain > 0 {
		window = s.drain
	}
	return max(0, window-int(s.sent-s.acked))
}

// Send counts n bytes that are handed to the stream now.
func (s *Sender) Send(now time.Time, n int) {
	s.sent += uint64(n)
	if !s.acks {
		return
	}
	// A millisecond is close enough, and bounds the marks of tiny datagrams.
	if last := len(s.marks) - 1; last >= 0 && now.Sub(s.marks[last].at) < time.Millisecond {
		s.marks[last].end = s.sent
		return
	}
	s.marks = append(s.marks, mark{s.sent, now})
}

// Dry notes that the sender has nothing to send: what arrives says nothing about
// what could.
func (s *Sender) Dry() { s.round.dry = true }

// Ack takes the word of the other end that bytes in all have arrived, the last
// of them held before now. It is an error if so many were not sent.
func (s *Sender) Ack(now time.Time, bytes uint64, held time.Duration) error {
	if bytes > s.sent || bytes < s.acked {
		return fmt.Errorf("acknowledgement of %d bytes after %d, %d sent", bytes, s.acked, s.sent)
	}
	if !s.acks {
		s.acks, s.window = true, windowStart
	}
	first := s.acked
	s.acked = bytes
	if bytes == first {
		return nil
	}
	sent, known := s.sentAt(bytes)
	if !known {
		return nil
	}
	arrived := now.Add(-held)
	rtt := max(0, arrived.Sub(sent))
	s.measure(arrived, rtt)
	s.endDrain()

	r := &s.round
	if r.arrived.IsZero() {
		s.begin(arrived, sent)
		return nil
	}
	r.low = min(r.low, rtt)
	if bytes >= r.end && arrived.Sub(r.arrived) >= roundMin {
		s.finish(arrived, sent, rtt)
		s.begin(arrived, sent)
	}
	return nil
}

// sentAt finds when byte number n was sent and forgets what came before it.
func (s *Sender) sentAt(n uint64) (time.Time, bool) {
	i := 0
	for i < len(s.marks) && s.marks[i].end < n {
		i++
	}
	if i == len(s.marks) {
		return time.Time{}, false // sent before there were acknowledgements
	}
	at := s.marks[i].at
	if s.marks[i].end == n {
		i++
	}
	s.marks = s.marks[:copy(s.marks, s.marks[i:])]
	return at, true
}

// measure keeps the shortest round trip of the last baseFor to 2*baseFor.
func (s *Sender) measure(now time.Time, rtt time.Duration) {
	switch {
	case s.based.IsZero():
		s.base = [2]time.Duration{rtt, rtt}
		s.based = now
	case now.Sub(s.based) >= baseFor:
		s.base = [2]time.Duration{rtt, s.base[0]}
		s.based = now
		if !s.round.dry && s.Rate() > 0 {
			s.drain = clampWindow(s.Rate() * s.shortest().Seconds() / 2)
			s.drained = 0
		}
	default:
		s.base[0] = min(s.base[0], rtt)
	}
}

func (s *Sender) shortest() time.Duration { return min(s.base[0], s.base[1]) }

// endDrain ends a drain when something that was sent with no queue before it has
// arrived, and was measured.
func (s *Sender) endDrain() {
	switch {
	case s.drain == 0:
	case s.drained > 0 && s.acked >= s.drained:
		s.drain, s.drained = 0, 0
	case s.drained == 0 && int(s.sent-s.acked) <= s.drain:
		s.drained = s.sent + 1
	}
}

func (s *Sender) begin(arrived, sent time.Time) {
	s.round = round{
		end: s.sent, acked: s.acked, arrived: arrived, sent: sent,
		dry: s.drain > 0, low: math.MaxInt64,
	}
}

// finish learns from a round and from the round trip at its end.
func (s *Sender) finish(arrived, sent time.Time, rtt time.Duration) {
	r := &s.round
	// A pause anywhere makes what comes after it arrive in one heap; it was
	// not sent so fast.
	took := max(arrived.Sub(r.arrived), sent.Sub(r.sent))
	rate := float64(s.acked-r.acked) / took.Seconds()
	queue := r.low - s.shortest()
	switch {
	case !r.dry && queue > 2*QueueTarget:
		// The stream is slower than it was.
		s.rates = [len(s.rates)]float64{rate}
	case !r.dry || rate > s.Rate():
		copy(s.rates[1:], s.rates[:])
		s.rates[0] = rate
	}
	// What has arrived and is not acknowledged yet counts as on its way.
	window := s.Rate()*(s.shortest()+QueueTarget).Seconds() + ackEvery
	switch {
	case queue > QueueTarget/2:
		s.filled = true
	case r.dry || rtt-s.shortest() > QueueTarget/4:
	case s.filled:
		window *= 1.25 // the queue is gone, so there may be room
	default:
		window *= 2
	}
	if w := clampWindow(window); !r.dry || w > s.window {
		s.window = w
	}
}

// Rate is the best of the last rounds.
func (s *Sender) Rate() float64 {
	best := s.rates[0]
	for _, r := range s.rates[1:] {
		best = max(best, r)
	}
	return best
}

func clampWindow(bytes float64) int {
	return int(min(max(bytes, windowFloor), windowCeil))
}
