package inflight

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// chain is a stream in simulated time: a sender with a Sender, a hop with a
// rate and all the buffer in the world, a receiver with a Receiver.
type chain struct {
	s     Sender
	r     Receiver
	now   time.Time
	rate  float64       // bytes per second
	way   time.Duration // one way
	limit float64       // bytes per second that the program sends; 0: all it can

	free     time.Time // when the hop has sent all it holds
	arriving []event
	acks     []event
	offered  float64

	// What measure looks at.
	got    int
	queued []time.Duration // how long each chunk waited
}

type event struct {
	at, sent time.Time
	bytes    uint64
	held     time.Duration
}

func newChain(mbit float64, rtt time.Duration) *chain {
	c := &chain{now: time.Unix(1e9, 0), rate: mbit * 1e6 / 8, way: rtt / 2}
	c.s.Ack(c.now, 0, 0) // the other end says that it acknowledges
	return c
}

// run lets d pass.
func (c *chain) run(d time.Duration) {
	const step, chunk = 100 * time.Microsecond, 16 << 10
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(step) {
		for len(c.acks) > 0 && !c.acks[0].at.After(c.now) {
			if err := c.s.Ack(c.now, c.acks[0].bytes, c.acks[0].held); err != nil {
				panic(err)
			}
			c.acks = c.acks[1:]
		}
		c.offered += c.limit * step.Seconds()
		for c.s.Room() > 0 && (c.limit == 0 || c.offered >= chunk) {
			c.offered -= chunk
			c.s.Send(c.now, chunk)
			if c.free.Before(c.now) {
				c.free = c.now
			}
			c.free = c.free.Add(time.Duration(chunk / c.rate * 1e9))
			c.arriving = append(c.arriving, event{at: c.free.Add(c.way), sent: c.now, bytes: chunk})
		}
		if c.s.Room() > 0 {
			c.s.Dry()
		}
		for len(c.arriving) > 0 && !c.arriving[0].at.After(c.now) {
			e := c.arriving[0]
			c.arriving = c.arriving[1:]
			c.r.Receive(c.now, int(e.bytes))
			c.got += int(e.bytes)
			c.queued = append(c.queued, c.now.Sub(e.sent)-c.way)
		}
		if at, ok := c.r.Due(); ok && !at.After(c.now) {
			bytes, held := c.r.Take(c.now)
			c.acks = append(c.acks, event{at: c.now.Add(c.way), bytes: bytes, held: held})
		}
	}
}

// measure runs for d and returns the share of the hop's rate that was used and
// the median and the longest queue.
func (c *chain) measure(d time.Duration) (used float64, median, longest time.Duration) {
	c.queued, c.got = c.queued[:0], 0
	c.run(d)
	if len(c.queued) == 0 {
		return 0, 0, 0
	}
	slices.Sort(c.queued)
	return float64(c.got) / d.Seconds() / c.rate, c.queued[len(c.queued)/2], c.queued[len(c.queued)-1]
}

func TestWindowFillsTheWireAndLittleMore(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		mbit            float64
		rtt             time.Duration
		used            float64 // at least, after 3 s
		median, longest time.Duration
	}{
		// A slow wire takes its time for the smallest window.
		{5, 20 * ms, 0.98, 130 * ms, 200 * ms},
		{5, 150 * ms, 0.94, 100 * ms, 250 * ms},
		{50, ms, 0.98, 35 * ms, 60 * ms},
		{50, 20 * ms, 0.98, 35 * ms, 60 * ms},
		{50, 150 * ms, 0.95, 35 * ms, 150 * ms},
		{500, 20 * ms, 0.98, 30 * ms, 60 * ms},
		{500, 150 * ms, 0.95, 30 * ms, 150 * ms},
		// Loopback, where nothing but the computer limits.
		{1000, ms / 10, 0.99, 30 * ms, 60 * ms},
		{8000, ms / 10, 0.99, 30 * ms, 60 * ms},
	} {
		t.Run(fmt.Sprintf("%v Mbit/s, %v", c.mbit, c.rtt), func(t *testing.T) {
			s := newChain(c.mbit, c.rtt)
			used, median, longest := s.measure(3 * time.Second)
			t.Logf("first 3 s: %3.0f %% used, queue %v, at most %v", used*100, median, longest)
			used, median, longest = s.measure(20 * time.Second)
			t.Logf("from then: %3.0f %% used, queue %v, at most %v, window %d KiB", used*100, median, longest, s.s.window>>10)
			if used < c.used || median > c.median || longest > c.longest {
				t.Errorf("want %.0f %%, queue %v, at most %v", c.used*100, c.median, c.longest)
			}
		})
	}
}

func TestWindowFollowsTheWire(t *testing.T) {
	s := newChain(50, 20*time.Millisecond)
	s.run(5 * time.Second)
	want := func(what string, used float64, queue time.Duration) {
		t.Helper()
		s.run(3 * time.Second)
		if u, q, _ := s.measure(2 * time.Second); u < used || q > queue {
			t.Errorf("%s: %.0f %% used, queue %v; want %.0f %%, %v", what, u*100, q, used*100, queue)
		}
	}
	s.rate /= 10
	want("the wire is ten times slower", 0.97, 130*time.Millisecond)
	s.rate *= 10
	want("and as before", 0.97, 40*time.Millisecond)
	s.way = 60 * time.Millisecond
	s.run(10 * time.Second)
	want("the way is longer", 0.95, 40*time.Millisecond)
	s.way = 5 * time.Millisecond
	want("and shorter", 0.97, 40*time.Millisecond)
}

// Silence says nothing about the wire.
func TestWindowOutlastsLightUse(t *testing.T) {
	s := newChain(50, 60*time.Millisecond)
	s.run(5 * time.Second)
	before := s.s.window
	s.limit = 1e6 / 8
	s.run(20 * time.Second)
	if w := s.s.window; w < before*3/4 || w > 2*before {
		t.Errorf("a window of %d bytes became %d", before, w)
	}
	s.limit = 0
	s.run(time.Second)
	if used, median, _ := s.measure(2 * time.Second); used < 0.95 || median > 40*time.Millisecond {
		t.Errorf("%.0f %% used, queue %v", used*100, median)
	}
}

func TestWithoutAcknowledgementsThereIsNoLimit(t *testing.T) {
	var s Sender
	now := time.Unix(1e9, 0)
	s.Send(now, 100<<20)
	if n := s.Room(); n != math.MaxInt {
		t.Errorf("room for %d", n)
	}
	if err := s.Ack(now, 1000, 0); err != nil { // the first says that it can
		t.Error(err)
	}
	if r := s.Room(); r != 0 {
		t.Errorf("room for %d with 100 MiB on the way", r)
	}
	if err := s.Ack(now, 100<<20, 0); err != nil {
		t.Error(err)
	}
	if r := s.Room(); r != windowStart {
		t.Errorf("room for %d, want %d", r, windowStart)
	}
}

func TestFalseAcknowledgementsAreRefused(t *testing.T) {
	var s Sender
	now := time.Unix(1e9, 0)
	s.Send(now, 1000)
	for _, c := range []struct {
		bytes uint64
		ok    bool
	}{{0, true}, {500, true}, {500, true}, {499, false}, {1001, false}, {math.MaxUint64, false}, {1000, true}} {
		if err := s.Ack(now, c.bytes, 0); (err == nil) != c.ok {
			t.Errorf("%d of 1000 acknowledged: %v", c.bytes, err)
		}
	}
}

// Whatever the other end says, the window stays within its bounds.
func FuzzSender(f *testing.F) {
	f.Add([]byte{9, 200, 0, 0, 40, 255, 9, 9, 3, 128, 128, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Sender
		now := time.Unix(1e9, 0)
		for ; len(b) >= 4; b = b[4:] {
			now = now.Add(time.Duration(b[0]) * time.Duration(b[0]) * 100 * time.Microsecond)
			if b[1] > 0 {
				s.Send(now, int(b[1])<<9)
			} else {
				s.Dry()
			}
			s.Ack(now, s.acked+uint64(b[2])<<9, time.Duration(b[3])*ackUnit*16)
			if s.window < 0 || s.window > windowCeil || s.window > 0 && s.window < windowFloor {
				t.Fatalf("a window of %d", s.window)
			}
			if len(s.marks) > int(s.sent-s.acked) {
				t.Fatalf("%d marks of %d bytes", len(s.marks), s.sent-s.acked)
			}
		}
	})
}

func TestReceiverTells(t *testing.T) {
	var r Receiver
	start := time.Unix(1e9, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	want := func(d time.Duration, due bool) {
		t.Helper()
		if got, ok := r.Due(); ok != due || ok && !got.Equal(at(d)) {
			t.Errorf("due %v after %v; want %v, %v", ok, got.Sub(start), due, d)
		}
	}
	want(0, false)
	r.Receive(at(0), 100)
	r.Receive(at(5*time.Millisecond), 100)
	want(ackDelay, true)
	if bytes, held := r.Take(at(ackDelay)); bytes != 200 || held != 15*time.Millisecond {
		t.Errorf("told of %d, held %v", bytes, held)
	}
	want(0, false)
	r.Receive(at(ackDelay), ackEvery)
	want(ackDelay+ackPause, true)
}

func FuzzAck(f *testing.F) {
	f.Add(Append(nil, 1<<40, 20*time.Millisecond))
	f.Add([]byte("pa"))
	f.Fuzz(func(t *testing.T, m []byte) {
		n, held, ok := Parse(m)
		if !ok {
			return
		}
		if again := Append(nil, n, held); !bytes.Equal(again, m[:Len]) {
			t.Errorf("%x became %x", m[:Len], again)
		}
	})
}
