package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// countedConn counts how often something is written.
type countedConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// TestPulse: what is to be done each second is done at the same moment.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &worker{poked: make(chan struct{}, 1), gateways: map[key.Public]*gateway{}, laptops: map[netip.Addr]*laptop{}}
		g, l := &gateway{notify: make(chan struct{}, 1)}, &laptop{notify: make(chan struct{}, 1)}
		w.gateways[key.Public{1}], w.laptops[netip.MustParseAddr("fd70::1")] = g, l
		w.wg.Go(func() { w.pulse(ctx) })
		for i := range 5 {
			began := time.Now()
			<-w.poked
			<-g.notify
			<-l.notify
			if d := time.Since(began); d != time.Second {
				t.Errorf("pulse %d came after %v", i, d)
			}
		}
		cancel()
		w.wg.Wait()
	})
}

// TestEventsGoTogether: a laptop hears of requests soon, in order and in few words.
func TestEventsGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		conn := &countedConn{Conn: ours}
		defer theirs.Close()
		w := &worker{seen: newObserver()}
		l := &laptop{addr: netip.MustParseAddr("fd70::1"), notify: make(chan struct{}, 1)}
		said := make(chan error, 1)
		go func() { said <- w.tell(t.Context(), l, conn) }()

		lines := control.NewReader(theirs)
		hear := func() *control.Event {
			for {
				var line control.FromPod
				if err := lines.Read(&line); err != nil {
					t.Fatal(err)
				}
				if line.Event != nil {
					return line.Event
				}
			}
		}
		queue := w.seen.queue(l.addr)
		began := time.Now()
		tell := func(from, to int) {
			for i := from; i < to; i++ {
				queue.waiting <- control.Event{Rule: fmt.Sprint(i), Began: began}
			}
		}
		expect := func(from, to int, within time.Duration) {
			t.Helper()
			for i := from; i < to; i++ {
				if e := hear(); e.Rule != fmt.Sprint(i) {
					t.Fatalf("heard of request %s, want %d", e.Rule, i)
				}
			}
			if d := time.Since(began); d > within {
				t.Errorf("heard of request %d after %v", to-1, d)
			}
		}
		tell(0, 1)
		expect(0, 1, gatherTime)
		tell(1, 501)
		expect(1, 501, 2*gatherTime)
		if n := conn.writes.Load(); n > 10 {
			t.Errorf("501 events were told in %d parts", n)
		}
		ours.Close()
		wake(l.notify) // the next pulse
		if err := <-said; err == nil {
			t.Error("nobody noticed the end")
		}
	})
}
