package transport

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// A stream through the Kubernetes API is a chain of TCP connections: laptop, API
// server, kubelet, gateway. Each hop has socket buffers of up to 6 MiB, and a
// sender that fills them has put seconds of queue before every small datagram
// that comes after: 6 MiB are 10 s at 5 Mbit/s. No hop tells how much waits in
// it, so the receiver says what has arrived, and the sender keeps no more on the
// way than what the round trip takes plus queueTarget.
//
// The window is the product of the rate at which bytes arrive and the time they
// should take, as in BBR (Cardwell et al., ACM Queue 14-5, 2016), which explains
// why one cannot measure both at once: the rate shows only while there is a
// queue, the round trip only while there is none. Hence the drain.
const (
	// windowStart is what a stream begins with. TCP's own slow start takes
	// three round trips to get there, and from there on both double.
	windowStart = 128 << 10
	// windowFloor keeps a stream moving whatever the clocks say: it is two
	// acknowledgements, or four datagrams of the largest MTU.
	windowFloor = 64 << 10
	// windowCeil is 1.7 Gbit/s over 150 ms.
	windowCeil = 32 << 20
	// queueTarget is the queue a sender aims at. Less and the many stations
	// of the chain, each with its own scheduling, run dry now and then.
	queueTarget = 20 * time.Millisecond
	// roundMin is the shortest time over which a rate is believed.
	roundMin = 10 * time.Millisecond
	// baseFor is how long a shortest round trip is believed at least; twice
	// that at most. A stream that is never idle is drained when it is over:
	// half a window once in that time.
	baseFor = 5 * time.Second
)

// inflight says how many bytes a sender may have on their way in a stream. It is
// pure: the caller brings the clock. The zero value is for an other end that is
// not known to acknowledge, and has no limit.
//
// Bytes are those of WireGuard's messages with their lengths. Control messages
// count for nothing and are not held back.
type inflight struct {
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

// room is how many more bytes may be handed to the stream.
func (f *inflight) room() int {
	if !f.acks {
		return math.MaxInt
	}
	window := f.window
	if f.drain > 0 {
		window = f.drain
	}
	return max(0, window-int(f.sent-f.acked))
}

// send counts n bytes that are handed to the stream now.
func (f *inflight) send(now time.Time, n int) {
	f.sent += uint64(n)
	if !f.acks {
		return
	}
	// A millisecond is close enough, and bounds the marks of tiny datagrams.
	if last := len(f.marks) - 1; last >= 0 && now.Sub(f.marks[last].at) < time.Millisecond {
		f.marks[last].end = f.sent
		return
	}
	f.marks = append(f.marks, mark{f.sent, now})
}

// dry notes that the sender has nothing to send: what arrives says nothing about
// what could.
func (f *inflight) dry() { f.round.dry = true }

// ack takes the word of the other end that bytes in all have arrived, the last
// of them held before now. It is an error if so many were not sent.
func (f *inflight) ack(now time.Time, bytes uint64, held time.Duration) error {
	if bytes > f.sent || bytes < f.acked {
		return fmt.Errorf("acknowledgement of %d bytes after %d, %d sent", bytes, f.acked, f.sent)
	}
	if !f.acks {
		f.acks, f.window = true, windowStart
	}
	first := f.acked
	f.acked = bytes
	if bytes == first {
		return nil
	}
	sent, known := f.sentAt(bytes)
	if !known {
		return nil
	}
	arrived := now.Add(-held)
	rtt := max(0, arrived.Sub(sent))
	f.measure(arrived, rtt)
	f.endDrain()

	r := &f.round
	if r.arrived.IsZero() {
		f.begin(arrived, sent)
		return nil
	}
	r.low = min(r.low, rtt)
	if bytes >= r.end && arrived.Sub(r.arrived) >= roundMin {
		f.finish(arrived, sent, rtt)
		f.begin(arrived, sent)
	}
	return nil
}

// sentAt finds when byte number n was sent and forgets what came before it.
func (f *inflight) sentAt(n uint64) (time.Time, bool) {
	i := 0
	for i < len(f.marks) && f.marks[i].end < n {
		i++
	}
	if i == len(f.marks) {
		return time.Time{}, false // sent before there were acknowledgements
	}
	at := f.marks[i].at
	if f.marks[i].end == n {
		i++
	}
	f.marks = f.marks[:copy(f.marks, f.marks[i:])]
	return at, true
}

// measure keeps the shortest round trip of the last baseFor to 2*baseFor.
func (f *inflight) measure(now time.Time, rtt time.Duration) {
	switch {
	case f.based.IsZero():
		f.base = [2]time.Duration{rtt, rtt}
		f.based = now
	case now.Sub(f.based) >= baseFor:
		f.base = [2]time.Duration{rtt, f.base[0]}
		f.based = now
		if !f.round.dry && f.rate() > 0 {
			f.drain = clampWindow(f.rate() * f.shortest().Seconds() / 2)
			f.drained = 0
		}
	default:
		f.base[0] = min(f.base[0], rtt)
	}
}

func (f *inflight) shortest() time.Duration { return min(f.base[0], f.base[1]) }

// endDrain ends a drain when something that was sent with no queue before it has
// arrived, and was measured.
func (f *inflight) endDrain() {
	switch {
	case f.drain == 0:
	case f.drained > 0 && f.acked >= f.drained:
		f.drain, f.drained = 0, 0
	case f.drained == 0 && int(f.sent-f.acked) <= f.drain:
		f.drained = f.sent + 1
	}
}

func (f *inflight) begin(arrived, sent time.Time) {
	f.round = round{
		end: f.sent, acked: f.acked, arrived: arrived, sent: sent,
		dry: f.drain > 0, low: math.MaxInt64,
	}
}

// finish learns from a round and from the round trip at its end.
func (f *inflight) finish(arrived, sent time.Time, rtt time.Duration) {
	r := &f.round
	// A pause anywhere makes what comes after it arrive in one heap; it was
	// not sent so fast.
	took := max(arrived.Sub(r.arrived), sent.Sub(r.sent))
	rate := float64(f.acked-r.acked) / took.Seconds()
	queue := r.low - f.shortest()
	switch {
	case !r.dry && queue > 2*queueTarget:
		// The stream is slower than it was.
		f.rates = [len(f.rates)]float64{rate}
	case !r.dry || rate > f.rate():
		copy(f.rates[1:], f.rates[:])
		f.rates[0] = rate
	}
	// What has arrived and is not acknowledged yet counts as on its way.
	window := f.rate()*(f.shortest()+queueTarget).Seconds() + ackEvery
	switch {
	case queue > queueTarget/2:
		f.filled = true
	case r.dry || rtt-f.shortest() > queueTarget/4:
	case f.filled:
		window *= 1.25 // the queue is gone, so there may be room
	default:
		window *= 2
	}
	if w := clampWindow(window); !r.dry || w > f.window {
		f.window = w
	}
}

// rate is the best of the last rounds.
func (f *inflight) rate() float64 {
	best := f.rates[0]
	for _, r := range f.rates[1:] {
		best = max(best, r)
	}
	return best
}

func clampWindow(bytes float64) int {
	return int(min(max(bytes, windowFloor), windowCeil))
}

const (
	// ackEvery bytes are acknowledged, or what has come ackDelay after it
	// came. Below 13 Mbit/s the delay comes first.
	ackEvery = 32 << 10
	ackDelay = 20 * time.Millisecond
	// ackPause is between two acknowledgements: a fast stream needs no more.
	ackPause = time.Millisecond
)

// acker says when to acknowledge what has arrived. It is pure.
type acker struct {
	got, told uint64
	since     time.Time // when the first byte that is not told of came
	last      time.Time // when the last byte came
	toldAt    time.Time
}

// receive counts n bytes that have arrived now.
func (a *acker) receive(now time.Time, n int) {
	if a.got == a.told {
		a.since = now
	}
	a.got += uint64(n)
	a.last = now
}

// due says when to acknowledge; ok is false when there is nothing to.
func (a *acker) due() (at time.Time, ok bool) {
	switch {
	case a.got == a.told:
		return time.Time{}, false
	case a.got-a.told >= ackEvery:
		return a.toldAt.Add(ackPause), true
	}
	return a.since.Add(ackDelay), true
}

// take is what to tell now.
func (a *acker) take(now time.Time) (bytes uint64, held time.Duration) {
	if a.got == 0 {
		return 0, 0
	}
	a.told, a.toldAt = a.got, now
	return a.got, now.Sub(a.last)
}

// An acknowledgement is a control message: 'p', 'a', how long the last byte was
// held back in units of ackUnit (2 bytes), and how many bytes have arrived in
// all (8 bytes), big-endian.
const (
	msgAck  = 'a' // second byte
	ackLen  = 12
	ackUnit = 100 * time.Microsecond
)

func appendAck(b []byte, bytes uint64, held time.Duration) []byte {
	units := min(max(held/ackUnit, 0), math.MaxUint16)
	b = append(b, msgControl, msgAck)
	b = binary.BigEndian.AppendUint16(b, uint16(units))
	return binary.BigEndian.AppendUint64(b, bytes)
}

// parseAck reads an acknowledgement. Later versions may make it longer.
func parseAck(m []byte) (bytes uint64, held time.Duration, ok bool) {
	if len(m) < ackLen || m[0] != msgControl || m[1] != msgAck {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(m[4:]), time.Duration(binary.BigEndian.Uint16(m[2:])) * ackUnit, true
}
