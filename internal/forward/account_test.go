package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
)

// bounded is a cable to a gateway with limits, at which the laptop has both its
// addresses and a user.
func bounded(t *testing.T, l forward.Limits) (*cable, *tap) {
	c := newCable(t)
	if err := c.laptop.AddAddress(laptop6); err != nil {
		t.Fatal(err)
	}
	w := newTapWith(t, &policy{}, netstack.Config{MTU: 16384}, forward.Options{Limits: l})
	w.f.SetOwners(map[netip.Addr]string{laptop4: "ada", laptop6: "ada"})
	c.plug(w)
	return c, w
}

// usage is what ada has.
func (w *tap) usage() forward.Usage {
	w.t.Helper()
	all := w.f.Usage()
	if len(all) != 1 || all[0].Owner != "ada" {
		w.t.Fatalf("usage: %+v", all)
	}
	return all[0]
}

// refused dials and wants it to fail within d.
func (c *cable) refused(t *testing.T, to netip.AddrPort, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	conn, err := c.laptop.DialTCP(ctx, to)
	if err == nil {
		conn.Close()
		t.Fatal("a connection beyond the limit was opened")
	}
	return err
}

// A user at the limit is refused at once, from whichever of his addresses, and may
// go on when one of his connections has ended.
func TestConnectionsOfAUser(t *testing.T) {
	at4, at6 := listen(t, pod4, echo), listen(t, pod6, echo)
	c, w := bounded(t, forward.Limits{Connections: 2})
	first := c.dial(t, at4)
	c.dial(t, at6)
	if err := c.refused(t, at4, 5*time.Second); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third connection of two: %v, want a refusal", err)
	}
	c.refused(t, at6, 5*time.Second)
	u := w.usage()
	if u.Connections != 2 || u.Opening != 0 || u.Refused[forward.OverConnections] < 2 {
		t.Errorf("usage: %+v", u)
	}
	if s := w.f.Stats(); s.OverLimit != u.Refused[forward.OverConnections] || s.RefusedFor[forward.OverConnections] != s.OverLimit {
		t.Errorf("stats: %+v", s)
	}
	first.Close()
	eventually(t, "one has ended", func() bool { return w.usage().Connections < 2 })
	c.dial(t, at4)
}

// A user who opens too many flows at once is not heard for a moment.
func TestRateOfAUser(t *testing.T) {
	at := listen(t, pod4, echo)
	c, w := bounded(t, forward.Limits{Rate: 2})
	for range 4 {
		c.dial(t, at)
	}
	began := time.Now()
	c.dial(t, at) // is asked for again, and let in then
	u := w.usage()
	t.Logf("the fifth connection of two a second took %v", time.Since(began))
	if u.Refused[forward.OverRate] == 0 || u.Connections != 5 {
		t.Errorf("usage: %+v", u)
	}
}

// What a user moves is held to so many bytes a second, each way, and TCP loses
// nothing by it.
func TestBytesOfAUser(t *testing.T) {
	const pace, size = 4 << 20, 10 << 20
	up := make(chan string, 1)
	at := listen(t, pod4, func(s *net.TCPConn) {
		up <- digest(t, s)
		_, _ = io.Copy(s, stream(1, size))
	})
	c, w := bounded(t, forward.Limits{Bytes: pace})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	dialled, err := c.laptop.DialTCP(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	conn := dialled.(*netstack.TCPConn)
	defer conn.Close()
	began := time.Now()
	if _, err := io.Copy(conn, stream(2, size)); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	if got := <-up; got != digest(t, stream(2, size)) {
		t.Error("upload arrived changed")
	}
	middle := time.Now()
	if got := digest(t, conn); got != digest(t, stream(1, size)) {
		t.Error("download arrived changed")
	}
	// A second's worth is free.
	least := time.Duration(size-pace) * time.Second / pace * 9 / 10
	for what, took := range map[string]time.Duration{"up": middle.Sub(began), "down": time.Since(middle)} {
		t.Logf("%d MiB %s at %d MiB a second took %v", size>>20, what, pace>>20, took)
		if took < least {
			t.Errorf("%s took %v, want %v at least", what, took, least)
		}
	}
	if u := w.usage(); u.BytesUp != size || u.BytesDown != size {
		t.Errorf("usage: %+v", u)
	}
}

// A connection whose peer is thrown out ends, however long it would have had to
// wait for its next byte.
func TestSlowedConnectionEndsAtOnce(t *testing.T) {
	at := listen(t, pod4, func(s *net.TCPConn) { _, _ = io.Copy(s, stream(1, 1<<40)) })
	c, w := bounded(t, forward.Limits{Bytes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := c.laptop.DialTCP(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	eventually(t, "bytes have flown", func() bool { return w.usage().BytesDown > 1<<20 })
	w.f.ClosePeer(laptop4)
	eventually(t, "it is gone", func() bool { return w.f.Stats().OpenTCP == 0 })
}

// Without memory nothing begins, and what there is goes on.
func TestNoMemory(t *testing.T) {
	at := listen(t, pod4, echo)
	c, w := bounded(t, forward.Limits{})
	conn := c.dial(t, at)
	w.f.SetFull(true)
	if err := c.refused(t, at, 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without memory: %v, want silence", err)
	}
	if _, err := conn.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("an open connection: %v", err)
	}
	w.f.SetFull(false)
	c.dial(t, at)
	if u := w.usage(); u.Refused[forward.OverMemory] == 0 {
		t.Errorf("usage: %+v", u)
	}
}

// The newest connections of whoever has the most are the first to go.
func TestShed(t *testing.T) {
	at4, at6 := listen(t, pod4, echo), listen(t, pod6, echo)
	c, w := bounded(t, forward.Limits{})
	w.f.SetOwners(map[netip.Addr]string{laptop4: "ada", laptop6: "bob"})
	old, bobs := c.dial(t, at4), c.dial(t, at6)
	var news []*netstack.TCPConn
	for range 3 {
		news = append(news, c.dial(t, at4))
	}
	if n := w.f.Shed(3, 5); n != 0 {
		t.Errorf("%d were shed of one who has few", n)
	}
	if n := w.f.Shed(3, 4); n != 3 {
		t.Errorf("%d were shed", n)
	}
	for _, conn := range news {
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a connection that was shed: %v", err)
		}
	}
	for _, conn := range []*netstack.TCPConn{old, bobs} {
		if _, err := conn.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("a connection that was to stay: %v", err)
		}
	}
	eventually(t, "two are left", func() bool { return w.f.Stats().OpenTCP == 2 })
	if n := w.f.Stats().RefusedFor[forward.WasShed]; n != 3 {
		t.Errorf("%d were counted", n)
	}
}
