package paths

import (
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for _, c := range []struct{ takes, want int }{
		{0, 1452}, {1452, 1452}, {1451, 1392}, {1392, 1392}, {1350, 1332}, {1252, 1232}, {1232, 1232},
	} {
		w := newWorld(t, 5)
		w.add(udp, &link{kind: UDP, delay: 5 * msec, largest: c.takes})
		w.within(time.Second, "UDP is used", w.uses(udp))
		if got := w.set.State(udp).Datagram; got != c.want {
			t.Errorf("takes %d: found %d, want %d", c.takes, got, c.want)
		}
		w.run(10 * time.Minute)
		if got := w.set.State(udp).Datagram; got != c.want || len(w.log) != 1 {
			t.Errorf("takes %d: %d after a while, want %d; %v", c.takes, got, c.want, w.log)
		}
	}
}

// Pings that ask only for life do not keep a path that cannot work.
func TestTooSmallPathIsNotUsed(t *testing.T) {
	w := newWorld(t, 6)
	w.add(udp, &link{kind: UDP, delay: 5 * msec, largest: MinDatagram - 1})
	w.run(time.Minute)
	if w.active() != -1 || w.set.State(udp).Live {
		t.Errorf("used: %v", w.log)
	}
	w, u, _ := home(t, 6)
	u.largest = 1000
	w.within(10*time.Second, "the stream is used", w.uses(stream))
	if got := w.log[0]; !strings.Contains(got, "carries no datagrams of 1232 bytes") {
		t.Error(got)
	}
}

func TestBlackHoleThatAppears(t *testing.T) {
	for _, c := range []struct {
		talking bool
		limit   time.Duration
	}{{true, 2500 * msec}, {false, 8 * time.Second}} {
		var worst time.Duration
		for i := range 20 {
			w, u, _ := home(t, uint64(i))
			w.run(time.Duration(i) * 300 * msec)
			u.largest = 1300
			if c.talking { // TCP repeats what does not arrive; none of it comes back
				var repeat func()
				repeat = func() { w.send(u, 1452); w.after(200*msec, repeat) }
				repeat()
			}
			worst = max(worst, w.within(c.limit, "the size is 1232", func() bool { return w.set.State(udp).Datagram == 1232 }))
			u.largest = 0
			w.within(time.Minute+time.Second, "the size is 1452 again", func() bool { return w.set.State(udp).Datagram == 1452 })
			if len(w.log) > 0 {
				t.Errorf("moved: %v", w.log)
			}
		}
		t.Logf("talking %v: found after at most %v", c.talking, worst)
	}
}
