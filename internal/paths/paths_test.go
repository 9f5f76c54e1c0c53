package paths

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const (
	udp ID = iota
	udp2
	stream
)

const msec = time.Millisecond

// home is a laptop with a UDP path of 10 ms and a stream of 20 ms, settled.
func home(t *testing.T, seed uint64) (w *world, u, s *link) {
	w = newWorld(t, seed)
	u = w.add(udp, &link{kind: UDP, delay: 5 * msec})
	s = w.add(stream, &link{kind: APIServer, delay: 10 * msec})
	w.run(5 * time.Second)
	if w.active() != udp {
		t.Fatalf("UDP does not carry the datagrams: %v", w.log)
	}
	w.log = nil
	return w, u, s
}

func TestFirstAnswerWins(t *testing.T) {
	w := newWorld(t, 1)
	w.add(udp, &link{kind: UDP, delay: 30 * msec})
	w.add(udp2, &link{kind: UDP, delay: 5 * msec})
	w.add(stream, &link{kind: APIServer, delay: 20 * msec})
	if d := w.until(time.Second, w.uses(udp2)); d != 10*msec {
		t.Errorf("used after %v, want one round trip", d)
	}
	if st := w.set.State(udp2); !st.Live || st.RTT != 10*msec || st.Datagram != MaxDatagram || !st.Since.Equal(w.now) {
		t.Errorf("state %+v", st)
	}
	w.run(time.Minute)
	if len(w.log) != 1 {
		t.Errorf("moved: %v", w.log)
	}
}

func TestUDPOvertakesTheStream(t *testing.T) {
	for _, c := range []struct {
		name     string
		udp      time.Duration // one way
		appears  time.Duration
		min, max time.Duration // from the stream's use to UDP's
	}{
		{"in the race at the start, at once", 25 * msec, 0, 30 * msec, 30 * msec},
		{"later, when it has proved itself", 5 * msec, 10 * time.Second, 10*time.Second + 500*msec, 10*time.Second + 900*msec},
		{"not when it is much slower", 200 * msec, 0, time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.add(stream, &link{kind: APIServer, delay: 10 * msec})
			u := &link{kind: UDP, delay: c.udp}
			w.after(c.appears, func() { w.add(udp, u) })
			w.within(time.Second, "the stream is used", w.uses(stream))
			if d := w.until(time.Hour, w.uses(udp)); d < c.min || d > c.max {
				t.Errorf("after %v, want %v to %v", d, c.min, c.max)
			}
		})
	}
}

// A machine that is busy while it connects answers late. That says nothing about
// the path.
func TestSlowStart(t *testing.T) {
	w := newWorld(t, 25)
	w.add(stream, &link{kind: APIServer, delay: 10 * msec})
	u := w.add(udp, &link{kind: UDP, delay: 200 * msec})
	w.after(time.Second, func() { u.delay = 5 * msec })
	w.within(10*time.Second, "UDP carries the datagrams", w.uses(udp))
}

// A path that loses packets is no dead path.
func TestLossDoesNotMove(t *testing.T) {
	for _, rtt := range []time.Duration{10 * msec, 150 * msec, 400 * msec} {
		for _, echo := range []time.Duration{0, 70 * msec} {
			t.Run(fmt.Sprintf("%v, echo %v", rtt, echo), func(t *testing.T) {
				for seed := range uint64(2) {
					w := newWorld(t, seed)
					w.add(udp, &link{kind: UDP, delay: rtt / 2, loss: 0.02})
					w.add(udp2, &link{kind: UDP, delay: rtt/2 + msec, loss: 0.02})
					w.add(stream, &link{kind: APIServer, delay: rtt / 2, loss: 0.02})
					w.run(10 * time.Second)
					first := w.active()
					if first == stream || first < 0 {
						t.Fatalf("path %d carries the datagrams", first)
					}
					w.log = nil
					w.talk(echo)
					lowered := false
					w.until(time.Hour, func() bool {
						lowered = lowered || w.set.State(first).Datagram != MaxDatagram
						return false
					})
					if len(w.log) > 0 || lowered {
						t.Errorf("seed %d: lowered %v, %v", seed, lowered, w.log)
					}
				}
			})
		}
	}
}

func TestQuietSetIsQuiet(t *testing.T) {
	w, _, _ := home(t, 4)
	w.ticks, w.pings = 0, map[ID]int{}
	w.run(100 * time.Second)
	// One in five of the active path's seconds has a full ping beside the small.
	if w.pings[udp] != 120 || w.pings[stream] != 50 || w.ticks > 500 {
		t.Errorf("%v pings, %d ticks in 100 s", w.pings, w.ticks)
	}
}

// A word a second, which gets its answer, is looked after twice: when it goes out, and
// a glance later.
func TestWordNowAndThenIsQuiet(t *testing.T) {
	w, _, _ := home(t, 4)
	w.talk(time.Second)
	w.run(1500 * msec)
	w.ticks = 0
	w.run(100 * time.Second)
	if w.ticks > 700 || !w.set.Resting() {
		t.Errorf("%d ticks in 100 s, resting %v", w.ticks, w.set.Resting())
	}
	if len(w.log) > 0 {
		t.Errorf("%v", w.log)
	}
}

// Whoever is silent after a word at rest is suspected from that word on.
func TestSilenceAfterTheFirstWord(t *testing.T) {
	for i := range 50 {
		w, u, _ := home(t, uint64(i))
		w.run(time.Second + time.Duration(i)*20*msec)
		u.cut(true)
		w.talk(10 * msec)
		w.within(slack+20*msec, "it is suspect", func() bool { return w.set.State(udp).Suspect })
	}
}

// The lid was closed for a night, or the process was stopped.
func TestSleep(t *testing.T) {
	for _, gap := range []time.Duration{3 * time.Second, 8 * time.Hour} {
		w, _, _ := home(t, 7)
		w.run(2500 * msec) // pings may be under way
		w.sleeper = w.now.Add(gap)
		w.run(gap + 10*time.Second)
		if len(w.log) > 0 || !w.set.State(udp).Live || w.set.State(udp).Suspect {
			t.Errorf("gap of %v, and the network is as before: %v", gap, w.log)
		}

		w, u, _ := home(t, 7)
		w.sleeper = w.now.Add(gap)
		u.cut(true)
		w.run(gap)
		w.within(1500*msec, "the stream is used", w.uses(stream))
	}
}

func TestRouse(t *testing.T) {
	w, u, s := home(t, 8)
	w.pings = map[ID]int{}
	w.set.Rouse(w.now)
	w.run(msec)
	if w.pings[udp] < 2 || w.pings[stream] < 1 || !w.set.State(udp).Suspect {
		t.Errorf("not everything is doubted: %v pings", w.pings)
	}
	w.run(time.Second)
	if len(w.log) > 0 || w.set.State(udp).Suspect {
		t.Errorf("moved without need: %v", w.log)
	}

	u.cut(true)
	s.cut(true)
	w.run(10 * time.Minute) // the back-off is at its longest
	w.heal(u)
	w.set.Rouse(w.now)
	w.within(10*msec, "UDP is used after one round trip", w.uses(udp))
}

func TestKnock(t *testing.T) {
	w := newWorld(t, 9)
	u := w.add(udp, &link{kind: UDP, delay: 5 * msec})
	u.cut(true)
	w.run(time.Minute)
	w.heal(u)
	w.set.Knock(w.now, udp)
	w.within(10*msec, "UDP is used after one round trip", w.uses(udp))
	w.run(time.Second)
	if got := w.set.State(udp).Datagram; got != MaxDatagram {
		t.Errorf("datagrams of %d bytes", got)
	}
}

func TestMuteStreamIsRedialled(t *testing.T) {
	for _, active := range []bool{true, false} {
		for i := range 20 {
			w, u, s := home(t, uint64(i))
			if active {
				u.cut(true)
				w.run(20 * time.Second)
			}
			w.log = nil
			w.run(time.Duration(i) * 100 * msec)
			s.cut(true)
			redialled := func() bool { return strings.Contains(strings.Join(w.log, "\n"), "redial") }
			w.within(5*time.Second, "the stream is dialled anew", redialled)
			if active && w.active() != -1 {
				t.Error("a dead stream still carries the datagrams")
			}
			w.log = nil
			w.within(5*time.Second, "and again", redialled)

			s.held = nil
			s.cut(false)
			w.set.Up(w.now, stream, true)
			w.run(100 * msec)
			if !w.set.State(stream).Live {
				t.Error("the new stream is not live")
			}
			w.log = nil
			w.run(time.Minute)
			if redialled() {
				t.Errorf("and again without need: %v", w.log)
			}
		}
	}
}

func TestStreamThatEnds(t *testing.T) {
	w, u, _ := home(t, 10)
	u.cut(true)
	w.within(2*time.Second, "the stream is used", w.uses(stream))
	w.set.Up(w.now, stream, false)
	w.run(0)
	if w.active() != -1 || w.set.State(stream).Live {
		t.Error("an ended stream is used")
	}
	w.set.Up(w.now, stream, true)
	w.within(20*msec, "the new one is used", w.uses(stream))
	// A new one in the place of one that works: no move.
	w.log = nil
	w.set.Up(w.now, stream, true)
	w.run(time.Second)
	if len(w.log) > 0 {
		t.Errorf("moved: %v", w.log)
	}
}

func TestRemove(t *testing.T) {
	w, _, _ := home(t, 11)
	w.set.Remove(w.now, udp)
	w.within(0, "the stream is used at once", w.uses(stream))
	w.set.Remove(w.now, stream)
	w.within(0, "nothing is used", w.uses(-1))
	if w.run(0); !w.set.Next(w.now).IsZero() {
		t.Error("an empty set wants a Tick")
	}
	w.set.Pong(w.now, udp, 1, Receipt{})
	w.set.Remove(w.now, udp)
	if st := w.set.State(udp); st != (State{}) {
		t.Errorf("state %+v", st)
	}
}

func TestOnly(t *testing.T) {
	for _, c := range []struct {
		only Kind
		want ID
	}{{UDP, udp}, {APIServer, stream}} {
		w := newWorld(t, 12)
		w.set.config.Only = c.only
		w.add(udp, &link{kind: UDP, delay: 50 * msec})
		w.add(stream, &link{kind: APIServer, delay: 50 * msec})
		w.run(5 * time.Second)
		if w.active() != c.want || w.pings[stream-c.want] > 0 {
			t.Errorf("only %s: %v", c.only, w.log)
		}
	}
}

func TestBetterPathIsTaken(t *testing.T) {
	for _, c := range []struct {
		name            string
		active, other   time.Duration // round trips
		kind, otherKind Kind
		move            bool
	}{
		{"much better", 40 * msec, 20 * msec, UDP, UDP, true},
		{"a little better", 40 * msec, 34 * msec, UDP, UDP, false},
		{"better by nothing that is felt", 4 * msec, 2500 * time.Microsecond, UDP, UDP, false},
		{"a stream that is somewhat better", 60 * msec, 20 * msec, UDP, APIServer, false},
		{"a stream that is far better", 300 * msec, 20 * msec, UDP, APIServer, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 13)
			w.add(udp, &link{kind: c.kind, delay: c.active / 2})
			w.run(time.Second)
			w.add(udp2, &link{kind: c.otherKind, delay: c.other / 2})
			w.run(20 * time.Second)
			if moved := w.active() == udp2; moved != c.move || len(w.log) > 2 {
				t.Errorf("moved %v: %v", moved, w.log)
			}
			w.run(time.Hour)
			if len(w.log) > 2 {
				t.Errorf("moves to and fro: %v", w.log)
			}
		})
	}
}

// Round trips that waver around a limit make no path waver.
func TestWaveringRoundTrips(t *testing.T) {
	w := newWorld(t, 14)
	u := w.add(udp, &link{kind: UDP, delay: 35 * msec})
	w.add(stream, &link{kind: APIServer, delay: 10 * msec})
	var waver func()
	waver = func() {
		u.delay = 35*msec + time.Duration(w.rng.Int64N(int64(30*msec))) - 15*msec
		w.after(300*msec, waver)
	}
	waver()
	w.run(time.Hour)
	if len(w.log) > 3 {
		t.Errorf("%d moves in an hour: %v", len(w.log), w.log)
	}
}

// A download makes queues on its own path. That is no reason to leave it.
func TestOwnLoadIsNoReasonToMove(t *testing.T) {
	w, u, _ := home(t, 15)
	u.delay = 200 * msec
	var bulk func()
	bulk = func() { u.counts.Received += 100_000; w.after(50*msec, bulk) }
	bulk()
	w.run(10 * time.Minute)
	if len(w.log) > 0 {
		t.Errorf("moved: %v", w.log)
	}
	if rtt := w.set.State(udp).RTT; rtt < 350*msec {
		t.Errorf("the round trip told is %v", rtt)
	}
}

// Queues that fill within seconds are no death either.
func TestRoundTripThatGrows(t *testing.T) {
	for _, to := range []time.Duration{time.Second, 2 * time.Second} {
		w, u, _ := home(t, 16)
		w.talk(50 * msec)
		for u.delay < to/2 {
			u.delay += u.delay / 4
			w.run(200 * msec)
		}
		w.run(20 * time.Second)
		if len(w.log) > 0 && w.log[0][9:14] != "use 2" || strings.Contains(fmt.Sprint(w.log), "no answer") {
			t.Errorf("up to %v: %v", to, w.log)
		}
	}
}

// Whatever happens, a path that is used is alive, pings stay within bounds, and
// a network that has been well for a while is used as it should be.
func TestChaos(t *testing.T) {
	for seed := range uint64(12) {
		w := newWorld(t, seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		links := []*link{
			w.add(udp, &link{kind: UDP, delay: 5 * msec}),
			w.add(udp2, &link{kind: UDP, delay: 30 * msec}),
			w.add(stream, &link{kind: APIServer, delay: 15 * msec}),
		}
		w.talk(100 * msec)
		for range 20 {
			for range 10 {
				l := links[rng.IntN(len(links))]
				switch rng.IntN(8) {
				case 0, 1:
					l.cut(true)
				case 2:
					l.cutOut = true
				case 3:
					l.loss = rng.Float64() / 2
				case 4:
					l.largest = 1000 + rng.IntN(500)
				case 5:
					w.set.Rouse(w.now)
				case 6:
					w.sleeper = w.now.Add(time.Duration(rng.IntN(10_000)) * msec)
				case 7:
					w.heal(l)
				}
				w.until(time.Duration(rng.IntN(3000))*msec, func() bool {
					if id := w.active(); id >= 0 && !w.set.paths[id].alive() && !w.set.soon {
						t.Fatalf("seed %d: path %d is used and dead", seed, id)
					}
					return false
				})
			}
			for _, l := range links {
				l.loss, l.largest = 0, 0
				w.heal(l)
			}
			w.within(15*time.Second, fmt.Sprintf("seed %d: the best path is used", seed), func() bool { return w.active() <= udp2 && w.active() >= 0 })
			w.run(70 * time.Second)
			if w.active() != udp || w.set.State(udp).Datagram != MaxDatagram {
				t.Fatalf("seed %d: path %d with datagrams of %d bytes\n%v", seed, w.active(), w.set.State(udp).Datagram, w.log)
			}
			w.log = nil
		}
		if n, limit := w.pings[udp]+w.pings[udp2]+w.pings[stream], 3*15*int(w.age().Seconds()); n > limit {
			t.Errorf("seed %d: %d pings in %v", seed, n, w.age())
		}
	}
}
