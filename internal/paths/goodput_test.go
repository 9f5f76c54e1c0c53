package paths

import (
	"strings"
	"testing"
	"time"
)

// upload sends so many bytes a second by the active path, from now on, and half as many
// packets come back.
func (w *world) upload(rate map[Kind]int) {
	const every, small = 20 * msec, 80
	var more func()
	more = func() {
		if id, ok := w.set.Active(); ok {
			l := w.links[id]
			left := rate[l.kind] / int(time.Second/every)
			size := min(left, MaxDatagram)
			if l.kind == APIServer {
				size = min(left, 16<<10)
			}
			for ; left > 0; left -= size {
				l.counts.Sent += uint64(size)
				w.there(l, size, func() {
					l.gateway.Received += uint64(size)
					l.gateway.Sent += small
					w.back(l, small, func() { l.counts.Received += small })
				})
			}
		}
		w.after(every, more)
	}
	more()
}

// lossy is a laptop with a UDP path of 20 ms that loses 2 %, and a stream of 30 ms.
func lossy(t *testing.T, seed uint64) (w *world, u, s *link) {
	w, u, s = home(t, seed)
	u.delay, u.loss, s.delay = 10*msec, 0.02, 15*msec
	w.run(time.Minute) // until the round trips are known
	w.log = nil
	return w, u, s
}

func TestStreamTakesTheLoadThatLossesHoldBack(t *testing.T) {
	w, _, s := lossy(t, 1)
	rate := map[Kind]int{UDP: 500e3, APIServer: 10e6}
	w.upload(rate)
	w.within(40*time.Second, "the stream is tried", w.uses(stream))
	if why := strings.Join(w.log, "\n"); !strings.Contains(why, "UDP loses 1.8 %") {
		t.Errorf("%s", why)
	}
	s.loss = 0.02 // which holds up what its round trip is, and not what it moves
	w.run(2 * time.Minute)
	if len(w.log) != 1 {
		t.Errorf("it did not stay: %v", w.log)
	}
	clear(rate)
	w.within(2*span+time.Second, "UDP is back when there is no load", w.uses(udp))
	w.run(time.Minute)
	if len(w.log) != 2 {
		t.Errorf("it moved: %v", w.log)
	}
}

func TestStreamThatMovesNoMoreIsLeft(t *testing.T) {
	w, _, _ := lossy(t, 2)
	w.upload(map[Kind]int{UDP: 500e3, APIServer: 550e3})
	w.within(40*time.Second, "the stream is tried", w.uses(stream))
	w.within(2*span+2*time.Second, "and left", w.uses(udp))
	w.run(15 * time.Minute) // tries after 2, 4 and 8 minutes
	if tries := len(w.log) / 2; tries < 3 || tries > 4 {
		t.Errorf("%d tries in a quarter of an hour: %v", tries, w.log)
	}
}

func TestStreamThatFailsGivesBackTheLoad(t *testing.T) {
	w, _, s := lossy(t, 3)
	w.upload(map[Kind]int{UDP: 500e3, APIServer: 10e6})
	w.within(40*time.Second, "the stream is tried", w.uses(stream))
	w.run(20 * time.Second)
	s.cut(true)
	w.within(3*time.Second, "UDP takes over from a stream that is silent", w.uses(udp))
}

func TestLoadStaysWithUDP(t *testing.T) {
	for name, change := range map[string]func(w *world, u *link, rate map[Kind]int){
		"nothing is lost":                func(_ *world, u *link, _ map[Kind]int) { u.loss = 0 },
		"the way is short":               func(_ *world, u *link, _ map[Kind]int) { u.delay = msec },
		"it is little":                   func(_ *world, _ *link, rate map[Kind]int) { rate[UDP] = 100e3 },
		"it moves much less than it may": func(_ *world, u *link, _ map[Kind]int) { u.loss = 0.003 },
		"the losses are a queue's":       func(_ *world, u *link, _ map[Kind]int) { u.delay = 16 * msec },
		"there is no stream":             func(w *world, _ *link, _ map[Kind]int) { w.set.Up(w.now, stream, false) },
		"the stream is far slower":       func(w *world, _ *link, _ map[Kind]int) { w.links[stream].delay = 100 * msec },
		"it was an outage": func(w *world, u *link, _ map[Kind]int) {
			u.loss = 0
			w.after(5*time.Second, func() { u.cut(true) })
			w.after(5*time.Second+600*msec, func() { w.heal(u) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, u, _ := lossy(t, 4)
			rate := map[Kind]int{UDP: 500e3, APIServer: 10e6}
			if name == "the way is short" || name == "the stream is far slower" {
				change(w, u, rate)
				w.run(time.Minute)
				w.log = nil
			}
			change(w, u, rate)
			w.upload(rate)
			w.run(time.Minute)
			if len(w.log) > 0 {
				t.Errorf("it moved: %v", w.log)
			}
		})
	}
}

// A gateway that does not tell what it counts gives no reason.
func TestNoReceipts(t *testing.T) {
	var a account
	a.enter(ping{seq: 1, sent: 1000}, Receipt{Here: 5})
	a.enter(ping{seq: 2, sent: 9000}, Receipt{Here: 7})
	if a != (account{}) {
		t.Errorf("%+v", a)
	}
}

func TestAccount(t *testing.T) {
	var a account
	for i, step := range []struct {
		seq  uint32
		sent uint32
		r    Receipt
		lost int64
	}{
		{1, 1<<32 - 100, Receipt{1<<32 - 400, 50, 50}, 0}, // where it begins
		{2, 900, Receipt{600, 150, 150}, 0},               // counters go round
		{3, 3000, Receipt{1700, 150, 150}, 1000},
		{3, 3000, Receipt{1700, 1150, 950}, 1200},         // the same ping, later
		{2, 900, Receipt{600, 150, 150}, 1200},            // one before
		{4, 4000, Receipt{10, 2000, 1800}, 1200},          // the gateway has begun anew
		{5, 5000, Receipt{1010, 2000, 1800}, 1200},        // and goes on
		{6, 5000, Receipt{2010, 2000, 1800}, 200},         // what was counted late
		{7, 1<<31 + 5000, Receipt{3000, 2000, 1800}, 200}, // too much for a second
	} {
		a.enter(ping{seq: step.seq, sent: step.sent}, step.r)
		if a.lost != step.lost {
			t.Fatalf("step %d: %d lost, want %d", i, a.lost, step.lost)
		}
	}
}
