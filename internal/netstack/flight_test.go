package netstack

import (
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// line is a wire with room for everything, which takes its time: what was sent and
// has not arrived waits, as in the socket's buffer of a busy laptop.
type line struct {
	waits atomic.Int64
	queue chan []byte
}

// lineRate is in bytes a millisecond.
const lineRate = 100 << 10

// carry takes packets from one device to the other until that is closed.
func (l *line) carry(from, to *Stack) {
	const offset = 16
	l.queue = make(chan []byte, 1<<14)
	var far sync.WaitGroup
	defer far.Wait()
	defer close(l.queue)
	far.Go(func() {
		start, came := time.Now(), int64(0)
		for p := range l.queue {
			_, _ = to.Device().Write([][]byte{p}, offset)
			l.waits.Add(-int64(len(p)))
			came += int64(len(p))
			time.Sleep(time.Until(start.Add(time.Duration(came) * time.Millisecond / lineRate)))
			if late := time.Since(start).Milliseconds()*lineRate - came; late > lineRate {
				start, came = time.Now(), 0 // it was idle
			}
		}
	})
	dev := from.Device()
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		for i := range n {
			l.waits.Add(int64(offset + sizes[i]))
			l.queue <- slices.Clone(bufs[i][:offset+sizes[i]])
		}
	}
}

// TestConnectionsShareTheWay has more to send than the way takes: what waits on the way
// stays short, however many send, and whichever end sees to it. The other one does not.
func TestConnectionsShareTheWay(t *testing.T) {
	shares := func(c *TCPConn, b []byte) (int, error) { return c.Write(b) }
	takesAll := func(c *TCPConn, b []byte) (int, error) { return c.write(b, nil, false) }
	for name, how := range map[string]struct {
		flows int
		write func(*TCPConn, []byte) (int, error)
	}{
		"one sends": {1, shares}, "four send": {4, shares},
		"one receives": {1, takesAll}, "four receive": {4, takesAll},
	} {
		flows := how.flows
		t.Run(name, func(t *testing.T) {
			goleak.VerifyNone(t)
			var wires, ends sync.WaitGroup
			a, b := newStack(t, a4), newStack(t, b4)
			var there, back line
			wires.Go(func() { there.carry(a, b) })
			wires.Go(func() { back.carry(b, a) })
			t.Cleanup(func() {
				a.Close()
				b.Close()
				wires.Wait()
				goleak.VerifyNone(t)
			})
			ln, at := listen(t, a, a4)
			var over atomic.Bool
			for range flows {
				ends.Go(func() {
					c, err := ln.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					for block := make([]byte, 64<<10); !over.Load(); {
						if _, err := how.write(c.(*TCPConn), block); err != nil {
							t.Error(err)
							return
						}
					}
				})
				c, err := b.DialTCP(t.Context(), at)
				if err != nil {
					t.Fatal(err)
				}
				ends.Go(func() {
					defer c.Close()
					_, _ = io.Copy(io.Discard, c)
				})
			}
			// With headers, and with what the next epoch has not told everybody yet. They
			// find out about each other within three epochs, on a busy machine later.
			const limit = int64(flightLeast * 5 / 4)
			most := int64(0)
			for began := time.Now(); time.Since(began) < 20*time.Second; {
				time.Sleep(3 * flightEpoch)
				most = 0
				for range 200 {
					most = max(most, there.waits.Load())
					time.Sleep(time.Millisecond)
				}
				if flightLeast/4 <= most && most <= limit {
					break
				}
			}
			over.Store(true)
			ends.Wait()
			if most > limit || most < flightLeast/4 {
				t.Errorf("%d bytes on the way, want up to %d", most, limit)
			}
			for _, s := range []*Stack{a, b} {
				if n := len(s.flights.to); n != 0 {
					t.Errorf("%d peers are known after all have closed", n)
				}
			}
		})
	}
}

func newStack(t *testing.T, addr netip.Addr) *Stack {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddAddress(addr); err != nil {
		t.Fatal(err)
	}
	return s
}

// A share goes by the shortest round trip there was lately and by who else sends.
func TestShare(t *testing.T) {
	const ms = time.Millisecond
	var f flight
	now := time.Hour
	for _, c := range []struct {
		what string
		at   time.Duration // after the last
		rtt  time.Duration
		want int64
	}{
		{"near", 0, ms, flightLeast},
		{"a second one, through a queue", 0, 9 * ms, flightLeast / 2},
		{"the same in the next epoch", flightEpoch, 9 * ms, flightLeast / 2},
		{"alone, when it is over", 2 * flightEpoch, 9 * ms, flightLeast},
		{"still remembered", rttMemory, 50 * ms, flightLeast},
		{"far, since the peer has moved", rttMemory + 1, 50 * ms, 50 * flightPerMillisecond},
	} {
		now += c.at
		f.hear(c.rtt, now)
		if got := f.share(&f.out, c.rtt, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	if got := f.share(&f.in, 50*ms, now); got != 50*flightPerMillisecond {
		t.Errorf("the other direction: %d", got)
	}
	now += 2*rttMemory + 1
	if got := f.share(&f.in, 100*ms, now); got != 100*flightPerMillisecond {
		t.Errorf("of what nobody has heard for long: %d", got)
	}
	for range 100 {
		if got := f.share(&f.out, ms, now); got < shareLeast {
			t.Fatalf("a share of %d bytes", got)
		}
	}
}
