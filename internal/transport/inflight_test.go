package transport

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// chain is a stream in simulated time: a sender with an inflight, a hop with a
// rate and all the buffer in the world, a receiver with an acker.
type chain struct {
	f    inflight
	a    acker
	now  time.Time
	rate float64 // bytes per second
	way  time.Duration

	free    time.Time // when the hop has sent all it holds
	arrive  []event   // at the receiver
	acks    []event   // at the sender
	limit   float64   // bytes per second the program sends; 0: all it can
	offered float64
	delays  []time.Duration // each chunk's, sender to receiver
	got     int
}

type event struct {
	at    time.Time
	bytes uint64
	held  time.Duration
	sent  time.Time
}

func newChain(mbit float64, rtt time.Duration) *chain {
	c := &chain{now: time.Unix(1e9, 0), rate: mbit * 1e6 / 8, way: rtt / 2}
	c.free = c.now
	c.f.ack(c.now, 0, 0) // the other end says that it acknowledges
	return c
}

// run lets d pass in steps of 100 us.
func (c *chain) run(d time.Duration) {
	const step = 100 * time.Microsecond
	const chunk = 16 << 10
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(step) {
		for len(c.acks) > 0 && !c.acks[0].at.After(c.now) {
			if err := c.f.ack(c.now, c.acks[0].bytes, c.acks[0].held); err != nil {
				panic(err)
			}
			c.acks = c.acks[1:]
		}
		c.offered += c.limit * step.Seconds()
		for c.f.room() > 0 && (c.limit == 0 || c.offered >= chunk) {
			c.offered -= chunk
			n := min(chunk, c.f.room())
			c.f.send(c.now, n)
			if c.free.Before(c.now) {
				c.free = c.now
			}
			c.free = c.free.Add(time.Duration(float64(n) / c.rate * 1e9))
			c.arrive = append(c.arrive, event{at: c.free.Add(c.way), bytes: uint64(n), sent: c.now})
		}
		if c.f.room() > 0 {
			c.f.dry()
		}
		for len(c.arrive) > 0 && !c.arrive[0].at.After(c.now) {
			c.a.receive(c.now, int(c.arrive[0].bytes))
			c.got += int(c.arrive[0].bytes)
			c.delays = append(c.delays, c.now.Sub(c.arrive[0].sent))
			c.arrive = c.arrive[1:]
		}
		if at, ok := c.a.due(); ok && !at.After(c.now) {
			bytes, held := c.a.take(c.now)
			c.acks = append(c.acks, event{at: c.now.Add(c.way), bytes: bytes, held: held})
		}
	}
}

// measure runs for d and returns the share of the hop's rate that was used and
// the median and the longest queueing delay.
func (c *chain) measure(d time.Duration) (used float64, median, longest time.Duration) {
	c.delays, c.got = c.delays[:0], 0
	c.run(d)
	slices.Sort(c.delays)
	if len(c.delays) == 0 {
		return 0, 0, 0
	}
	return float64(c.got) / d.Seconds() / c.rate, c.delays[len(c.delays)/2] - c.way, c.delays[len(c.delays)-1] - c.way
}

func TestSim(t *testing.T) {
	for _, mbit := range []float64{1, 5, 20, 50, 200, 1000, 4000} {
		for _, rtt := range []time.Duration{200 * time.Microsecond, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond} {
			c := newChain(mbit, rtt)
			u0, m0, l0 := c.measure(2 * time.Second)
			u, m, l := c.measure(28 * time.Second)
			fmt.Printf("%6.0f Mbit/s %6v: first 2s %3.0f%% %5v %5v; then %3.0f%% median %v longest %v window %d KiB marks %d\n", mbit, rtt,
				u0*100, m0.Round(time.Millisecond), l0.Round(time.Millisecond), u*100, m.Round(time.Millisecond), l.Round(time.Millisecond), c.f.window>>10, len(c.f.marks))
		}
	}
}
