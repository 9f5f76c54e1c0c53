package wire

import (
	"context"
	"io"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Unix(1000, 0)

func TestPerfectWireDeliversAtOnce(t *testing.T) {
	s := NewShaper(Config{}, 1)
	for i := range 1000 {
		at := start.Add(time.Duration(i))
		if arrives, ok := s.Admit(at, 1500); !ok || !arrives.Equal(at) {
			t.Fatalf("packet %d: %v, %v", i, arrives, ok)
		}
	}
}

// TestRateSpacesPackets sends a burst: at 12 Mbit/s, 1500 bytes take 1 ms.
func TestRateSpacesPackets(t *testing.T) {
	s := NewShaper(Config{Rate: 12e6, Delay: 20 * time.Millisecond}, 1)
	for i := range 10 {
		want := start.Add(20*time.Millisecond + time.Duration(i+1)*time.Millisecond)
		if arrives, ok := s.Admit(start, 1500); !ok || arrives.Sub(want).Abs() > time.Microsecond {
			t.Errorf("packet %d arrives after %v, want %v", i, arrives.Sub(start), want.Sub(start))
		}
	}
	later := start.Add(time.Second) // the queue is long empty
	if arrives, _ := s.Admit(later, 1500); arrives.Sub(later) != 21*time.Millisecond {
		t.Errorf("after a pause: %v", arrives.Sub(later))
	}
}

// TestFullQueueDrops offers ten times the rate and gets the rate.
func TestFullQueueDrops(t *testing.T) {
	s := NewShaper(Config{Rate: 10e6, Queue: 50_000}, 1)
	carried, last := 0, start
	const size, offered = 1250, 100e6
	for sent := 0.0; sent < offered; sent += size * 8 { // one second of 100 Mbit/s
		now := start.Add(time.Duration(sent / offered * float64(time.Second)))
		if arrives, ok := s.Admit(now, size); ok {
			carried += size
			if wait := arrives.Sub(now); wait > 41*time.Millisecond { // 50 kB at 10 Mbit/s
				t.Fatalf("a packet waits %v", wait)
			}
			if arrives.Before(last) {
				t.Fatal("packets overtake each other")
			}
			last = arrives
		}
	}
	if got := float64(carried) * 8; math.Abs(got-10e6) > 0.05*10e6 {
		t.Errorf("carried %.1f Mbit in a second, want 10", got/1e6)
	}
}

func TestLossIsAsOftenAsSaid(t *testing.T) {
	for _, loss := range []float64{0, 0.005, 0.3, 1} {
		s := NewShaper(Config{Loss: loss}, 7)
		lost := 0
		const n = 100_000
		for range n {
			if _, ok := s.Admit(start, 100); !ok {
				lost++
			}
		}
		if got := float64(lost) / n; math.Abs(got-loss) > 0.002+loss*0.02 {
			t.Errorf("lost %v, want %v", got, loss)
		}
	}
}

func TestLongPacketsVanish(t *testing.T) {
	s := NewShaper(Config{MTU: 1280}, 1)
	if _, ok := s.Admit(start, 1280); !ok {
		t.Error("1280 bytes vanish")
	}
	if _, ok := s.Admit(start, 1281); ok {
		t.Error("1281 bytes arrive")
	}
}

func TestCheck(t *testing.T) {
	for _, bad := range []Config{{Delay: -1}, {Delay: time.Hour}, {Loss: -0.1}, {Loss: 1.1}, {Loss: math.NaN()}, {Rate: -1}, {MTU: -1}, {Queue: -1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := (Config{Delay: time.Second, Loss: 0.02, Rate: 1e9, MTU: 1280}).Check(); err != nil {
		t.Error(err)
	}
}

// device is one end of a wire: what the wire reads, and what it wrote.
type device struct {
	in, out chan []byte
	closed  chan struct{}
}

func newDevice() *device {
	return &device{in: make(chan []byte), out: make(chan []byte, 100), closed: make(chan struct{})}
}

func (d *device) Read(p []byte) (int, error) {
	select {
	case b := <-d.in:
		return copy(p, b), nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *device) Write(p []byte) (int, error) {
	d.out <- append([]byte(nil), p...)
	return len(p), nil
}

func (d *device) Close() error {
	select {
	case <-d.closed:
		return io.ErrClosedPipe
	default:
		close(d.closed)
		return nil
	}
}

// TestWireKeepsTimeAndOrder sends both ways through a wire that becomes worse.
func TestWireKeepsTimeAndOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newDevice(), newDevice()
		w := New(a, b, Config{Delay: 30 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()

		sent := time.Now()
		a.in <- []byte("one")
		a.in <- []byte("two")
		b.in <- []byte("back")
		if got := string(<-b.out); got != "one" || time.Since(sent) != 30*time.Millisecond {
			t.Errorf("%q after %v", got, time.Since(sent))
		}
		if got := string(<-b.out); got != "two" {
			t.Errorf("%q", got)
		}
		if got := string(<-a.out); got != "back" {
			t.Errorf("%q", got)
		}

		w.Set(Config{Delay: time.Second})
		sent = time.Now()
		a.in <- []byte("slow")
		if got := string(<-b.out); got != "slow" || time.Since(sent) != time.Second {
			t.Errorf("%q after %v", got, time.Since(sent))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
