package paths

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Whenever the cut comes, the stream carries the datagrams within two seconds,
// and within little more than one when somebody talks.
func TestCutIsFound(t *testing.T) {
	for _, c := range []struct {
		name    string
		out, in bool
		flood   bool // the gateway sends without being asked
		echo    time.Duration
		limit   time.Duration
	}{
		{"idle", true, true, false, 0, 2000 * msec},
		{"talking", true, true, false, 50 * msec, 1300 * msec},
		{"a word now and then", true, true, false, 500 * msec, 1750 * msec},
		{"nothing gets out", true, false, false, 50 * msec, 1300 * msec},
		{"nothing comes in", false, true, false, 50 * msec, 1300 * msec},
		{"much comes in, then nothing", true, true, true, 50 * msec, 1700 * msec},
		{"nothing gets out, much comes in", true, false, true, 0, 3100 * msec},
	} {
		t.Run(c.name, func(t *testing.T) {
			var worst time.Duration
			for i := range 50 {
				w, u, _ := home(t, uint64(i))
				w.talk(c.echo)
				if c.flood { // and so waits before the wire
					u.delay = 100 * msec
					var flood func()
					flood = func() {
						if !u.cutIn {
							u.counts.Received += 1000
						}
						w.after(20*msec, flood)
					}
					flood()
				}
				w.run(time.Second + time.Duration(i)*20*msec)
				u.cutOut, u.cutIn = c.out, c.in
				worst = max(worst, w.within(c.limit, "the stream is used", w.uses(stream)))
			}
			t.Logf("at most %v", worst)
		})
	}
}

func TestNothingLeft(t *testing.T) {
	w, u, s := home(t, 3)
	u.cut(true)
	s.cut(true)
	w.within(5*time.Second, "nobody knows a way", w.uses(-1))
	w.run(time.Minute)
	if got := strings.Join(w.log, "\n"); strings.Count(got, "drop") != 1 {
		t.Errorf("want one drop:\n%s", got)
	}
	w.heal(u)
	w.within(1300*msec, "UDP is used", w.uses(udp)) // it is tried each second now
}

// One pong that comes late must not make us patient for long.
func TestCutAfterALatePong(t *testing.T) {
	w, u, _ := home(t, 3)
	w.talk(50 * msec)
	late := w.set.State(udp).LastHeard
	u.delay = 900 * msec
	w.within(5*time.Second, "a late pong", func() bool { return w.set.State(udp).LastHeard.After(late) && w.set.paths[udp].last > time.Second })
	u.cut(true)
	w.log = nil
	w.within(4*time.Second, "the stream is used", w.uses(stream))
}

func TestUDPIsTakenBack(t *testing.T) {
	for _, away := range []time.Duration{2 * time.Second, 5 * time.Second, 17 * time.Second, 5 * time.Minute} {
		var worst time.Duration
		for seed := range uint64(20) {
			w, u, _ := home(t, seed)
			for range 3 {
				u.cut(true)
				w.run(away)
				w.heal(u)
				worst = max(worst, w.within(15*time.Second, "UDP is used again", w.uses(udp)))
				w.run(5 * time.Second)
			}
		}
		t.Logf("away for %v: back after at most %v", away, worst)
	}
}

// What cuts everything cuts the stream too, and its own repetitions come late: the
// first of the two that answers is used.
func TestUDPIsTakenBackFromASilentStream(t *testing.T) {
	for away := 1200 * msec; away <= 3*time.Second; away += 100 * msec {
		for seed := range uint64(20) {
			w, u, s := home(t, seed)
			w.talk(50 * msec)
			u.cut(true)
			s.cut(true)
			w.run(away)
			w.heal(u)
			w.after(away, func() { w.heal(s) })
			w.within(700*msec, fmt.Sprintf("UDP is used again after %v", away), w.uses(udp))
		}
	}
}

// A path that begins to swallow what is long is found by those who use it in little
// more than the second between two pings.
func TestPathThatShrinks(t *testing.T) {
	var worst time.Duration
	for seed := range uint64(20) {
		w, u, _ := home(t, seed)
		var bulk func()
		bulk = func() {
			if u.largest == 0 {
				u.counts.Received += 100_000
			}
			w.after(50*msec, bulk)
		}
		bulk()
		w.run(10*time.Second + time.Duration(w.rng.Int64N(int64(time.Second))))
		u.largest = 1300
		worst = max(worst, w.within(2100*msec, "the size is known", func() bool { return w.set.State(udp).Datagram == MinDatagram }))
		if sent := w.set.paths[udp].sent; len(sent) == 0 || !sent[len(sent)-1].at.Equal(w.now) {
			t.Errorf("%v: no ping tells the gateway: %+v", w.age(), sent)
		}
	}
	t.Logf("after at most %v", worst)
}

// The network is back, and the first try is lost all the same: to a socket that
// is just being changed, to a neighbour that has to be found first.
func TestUDPIsTakenBackAfterAMishap(t *testing.T) {
	var worst time.Duration
	for seed := range uint64(50) {
		w, u, _ := home(t, seed)
		u.cut(true)
		w.run(time.Minute)
		w.heal(u)
		u.loss = 1
		tried := w.pings[udp]
		lost := w.within(15*time.Second, "UDP is tried", func() bool { return w.pings[udp] > tried })
		u.loss = 0
		worst = max(worst, lost+w.within(15*time.Second-lost, "UDP is used again", w.uses(udp)))
	}
	t.Logf("back after at most %v", worst)
}
