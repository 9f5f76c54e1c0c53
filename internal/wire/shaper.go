// Package wire is a network cable in user space: it carries packets between
// two devices with a delay, losses, a rate and a largest packet, for kernels
// that have no netem. It knows no addresses and looks into no packet.
package wire

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Config says how bad the wire is. The zero Config is a perfect wire.
type Config struct {
	Delay time.Duration `json:"delay,omitempty"` // one way: a round trip takes twice as long
	Loss  float64       `json:"loss,omitempty"`  // share of packets that vanish, 0 to 1
	Rate  int64         `json:"rate,omitempty"`  // bits per second, each way; 0: as fast as the computer
	MTU   int           `json:"mtu,omitempty"`   // longer packets vanish without a word, bytes; 0: none do
	// Queue is how much waits in front of a wire with a rate, in bytes; what
	// comes when it is full is dropped. 0: what the rate carries in 100 ms,
	// and at least 64 kB, as in a home router of today.
	Queue int64 `json:"queue,omitempty"`
}

// Check says what is wrong with c.
func (c Config) Check() error {
	switch {
	case c.Delay < 0 || c.Delay > time.Minute:
		return fmt.Errorf("delay %v is not between 0 and 1 minute", c.Delay)
	case c.Loss < 0 || c.Loss > 1 || c.Loss != c.Loss:
		return fmt.Errorf("loss %v is not between 0 and 1", c.Loss)
	case c.Rate < 0:
		return fmt.Errorf("rate %d is negative", c.Rate)
	case c.MTU < 0 || c.Queue < 0:
		return fmt.Errorf("MTU %d or queue %d is negative", c.MTU, c.Queue)
	}
	return nil
}

func (c Config) queue() int64 {
	if c.Queue > 0 {
		return c.Queue
	}
	return max(c.Rate/8/10, 64<<10)
}

// Shaper decides, for one direction, which packets arrive and when. It is
// pure: the caller brings the clock and does the waiting. Its choice of lost
// packets follows from its seed.
type Shaper struct {
	config Config
	random *rand.Rand
	free   time.Time // when the last packet will have left the queue
}

// NewShaper starts with an empty queue.
func NewShaper(c Config, seed uint64) *Shaper {
	return &Shaper{config: c, random: rand.New(rand.NewPCG(seed, 0x706f646e6574))}
}

// Set changes the wire; what is in the queue still goes at the old rate.
func (s *Shaper) Set(c Config) { s.config = c }

// Admit takes a packet of size bytes that comes at now and says when it
// arrives at the other end, or that it never does.
func (s *Shaper) Admit(now time.Time, size int) (arrives time.Time, ok bool) {
	c := s.config
	if c.MTU > 0 && size > c.MTU {
		return time.Time{}, false
	}
	leaves := now
	if c.Rate > 0 {
		start := now
		if s.free.After(now) {
			start = s.free
		}
		// The queue, in time: the bytes that have not left yet.
		if waiting := start.Sub(now); bytesIn(waiting, c.Rate)+int64(size) > c.queue() {
			return time.Time{}, false
		}
		leaves = start.Add(timeOf(size, c.Rate))
		s.free = leaves
	}
	// Lost on the way, so after it has used the wire.
	if c.Loss > 0 && s.random.Float64() < c.Loss {
		return time.Time{}, false
	}
	return leaves.Add(c.Delay), true
}

func bytesIn(d time.Duration, rate int64) int64 { return int64(d.Seconds() * float64(rate) / 8) }

func timeOf(size int, rate int64) time.Duration {
	return time.Duration(float64(size) * 8 / float64(rate) * float64(time.Second))
}
