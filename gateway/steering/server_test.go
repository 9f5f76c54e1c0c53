package steering

import (
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/steer/control"
)

func TestAnAgentIsToldItsRules(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"), testAgent(4, "2", "b"))
		c := o.greet(testKey(3), "pod-1")
		sets, _ := c.sets()
		if len(sets) != 1 || names(sets[0]) != "a" || !reflect.DeepEqual(sets[0].Gateways, theGateways) {
			t.Fatalf("told %+v", sets)
		}
		c.live(10 * time.Second)
		if sets, beats := c.sets(); len(sets) != 1 || beats < 9 || beats > 11 {
			t.Errorf("in 10 s: %d sets, %d beats", len(sets), beats)
		}

		began := time.Now()
		o.set(testAgent(3, "1", "a", "a2"), testAgent(4, "2", "b", "b2"))
		o.set(testAgent(3, "1", "a", "a2"), testAgent(4, "2", "b"))
		sets, _ = c.sets()
		if len(sets) != 2 || names(sets[1]) != "a,a2" || sets[1].Generation <= sets[0].Generation || time.Since(began) != 0 {
			t.Fatalf("after a change: %+v after %v", sets, time.Since(began))
		}

		o.mu.Lock()
		o.here[testKey(1).RelayAddress6()] = true
		o.mu.Unlock()
		o.s.Rehere()
		if sets, _ = c.sets(); len(sets) != 3 || names(sets[2]) != "a!,a2!" {
			t.Fatalf("the laptop is here: %+v", sets)
		}
		o.mu.Lock()
		o.gateways = append(slices.Clone(theGateways), control.Gateway{PublicKey: testKey(201)})
		o.mu.Unlock()
		o.s.Rehere()
		if sets, _ = c.sets(); len(sets) != 4 || len(sets[3].Gateways) != 2 {
			t.Fatalf("another gateway: %+v", sets)
		}

		o.set(testAgent(3, "1"))
		if sets, _ = c.sets(); len(sets) != 5 || sets[4].Rules == nil || len(sets[4].Rules) != 0 {
			t.Fatalf("all is over: %+v", sets)
		}
		o.set()
		if !c.cut() {
			t.Error("it may stay although it is no agent")
		}
	})
}

func TestWhoIsNotWelcome(t *testing.T) {
	for name, c := range map[string]struct {
		key   int
		first string
	}{
		"no agent":         {9, ""},
		"another protocol": {3, `{"podnet":"agent/v0","podUID":"pod-1"}` + "\n"},
		"another pod":      {3, `{"podnet":"agent/v1","podUID":"pod-2"}` + "\n"},
		"no pod":           {3, `{"podnet":"agent/v1"}` + "\n"},
		"not JSON":         {3, "GET / HTTP/1.1\r\n\r\n"},
		"no end":           {3, strings.Repeat("x", maxHeard+1)},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.set(testAgent(3, "1", "a"), testAgent(4, "2", "b"))
				began := time.Now()
				agent := o.dial(testKey(c.key))
				_, _ = io.WriteString(agent.conn, c.first)
				if !agent.cut() || time.Since(began) != 0 {
					t.Errorf("cut %v after %v", agent.cut(), time.Since(began))
				}
				if sets, beats := agent.sets(); len(sets)+beats != 0 {
					t.Errorf("it was told %v", agent.told)
				}
				if _, ok := o.s.Report(testKey(c.key)); ok || o.changed() {
					t.Error("it is reported")
				}
			})
		})
	}
}

// A key that is named for two pods has the rules of the one it is in.
func TestAnAgentSaysWhereItIs(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"), testAgent(3, "2", "b"))
		c := o.greet(testKey(3), "pod-2")
		if sets, _ := c.sets(); len(sets) != 1 || names(sets[0]) != "b" {
			t.Fatalf("told %+v", sets)
		}
		o.set(testAgent(3, "1", "a"))
		if !c.cut() {
			t.Error("nobody says any more that it is in that pod, and it may stay")
		}
	})
}

func TestSilenceEndsASession(t *testing.T) {
	for name, said := range map[string]string{
		"at once": "", "after the first line": `{"podnet":"agent/v1","podUID":"pod-1"}` + "\n", "within a line": `{"podnet":"agent/v1","podUID":"pod-1"}` + "\n{",
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.set(testAgent(3, "1", "a"))
				c := o.dial(testKey(3))
				_, _ = io.WriteString(c.conn, said)
				time.Sleep(control.Silence - time.Millisecond)
				if c.cut() {
					t.Fatal("it was cut before its time")
				}
				time.Sleep(2 * pace)
				if !c.cut() {
					t.Error("it may stay for ever")
				}
				if _, ok := o.s.Report(testKey(3)); ok {
					t.Error("it counts as connected")
				}
			})
		})
	}
}

// An agent that beats is answered at once, each time; one that tells much is not told
// more than twice a second, and one that tells nothing hears of the gateway all the same.
func TestAgentIsAnswered(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"))
		c := o.greet(testKey(3), "pod-1")
		for i := range 20 {
			time.Sleep(control.Beat)
			_ = c.say(control.FromAgent{})
			if _, beats := c.sets(); beats != i+1 {
				t.Errorf("%d lines were answered by %d", i+1, beats)
			}
		}
		for range 100 {
			time.Sleep(control.Beat / 10)
			_ = c.say(control.FromAgent{})
		}
		if _, beats := c.sets(); beats != 40 {
			t.Errorf("%d lines in 30 s, want 40", beats)
		}
		time.Sleep(2*control.Alone + pace)
		if _, beats := c.sets(); beats != 42 {
			t.Errorf("%d lines to who is silent, want 2", beats-40)
		}
	})
}

// An agent that does not read is cut off, and holds nobody up.
func TestADeafAgent(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"), testAgent(4, "2", "b"))
		here, there := net.Pipe()
		o.conns <- from{there, testKey(3).Address6()}
		go func() {
			for control.Write(here, control.FromAgent{Podnet: control.Version, PodUID: "pod-1"}) == nil {
				time.Sleep(control.Beat)
			}
		}()
		synctest.Wait()
		c := o.greet(testKey(4), "pod-2")
		if sets, _ := c.sets(); len(sets) != 1 {
			t.Errorf("the other agent was told %v", sets)
		}
		c.live(control.Silence + control.Beat)
		if _, ok := o.s.Report(testKey(3)); ok {
			t.Error("the deaf agent counts as connected")
		}
		if _, ok := o.s.Report(testKey(4)); !ok {
			t.Error("the other agent does not")
		}
	})
}

func TestTheNewestConnectionCounts(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"))
		old := o.greet(testKey(3), "pod-1")
		first, _ := old.sets()
		c := o.greet(testKey(3), "pod-1")
		if !old.cut() || c.cut() {
			t.Errorf("old cut %v, new cut %v", old.cut(), c.cut())
		}
		if sets, _ := c.sets(); len(sets) != 1 || sets[0].Generation <= first[0].Generation {
			t.Errorf("told %+v after %+v", sets, first)
		}
		if _, ok := o.s.Report(testKey(3)); !ok {
			t.Error("no report")
		}
	})
}

func TestGenerationsGrowOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := NewServer(slog.New(slog.DiscardHandler), nil)
		one.generation += 5
		time.Sleep(time.Second)
		if other := NewServer(slog.New(slog.DiscardHandler), nil); other.generation <= one.generation {
			t.Errorf("%d after %d", other.generation, one.generation)
		}
	})
}

func TestReports(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		if _, ok := o.s.Report(testKey(3)); ok {
			t.Error("a report from nobody")
		}
		o.set(testAgent(3, "1", "a"))
		began := time.Now()
		c := o.greet(testKey(3), "pod-1")
		if !o.changed() {
			t.Error("that it came is no news")
		}
		report := func(m control.FromAgent) Report {
			t.Helper()
			time.Sleep(pace)
			if err := c.say(m); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r, ok := o.s.Report(testKey(3))
			if !ok || !r.Connected.Equal(began) || r.PodUID != "pod-1" {
				t.Fatalf("report %+v, %v", r, ok)
			}
			return r
		}
		latest := func() int64 { sets, _ := c.sets(); return sets[len(sets)-1].Generation }

		if r := report(control.FromAgent{}); r.InForce["a"] || r.Generation != 0 || r.Sent != latest() || o.changed() {
			t.Errorf("before it says so: %+v", r)
		}
		if r := report(control.FromAgent{Generation: latest()}); !r.InForce["a"] || r.Generation != latest() || !o.changed() {
			t.Errorf("in force: %+v", r)
		}
		if r := report(control.FromAgent{Generation: latest() + 1000}); r.Generation != latest() {
			t.Errorf("it has in force what does not exist: %+v", r)
		}
		o.set(testAgent(3, "1", "a", "b"))
		if r := report(control.FromAgent{}); !r.InForce["a"] || r.InForce["b"] || len(r.InForce) != 2 {
			t.Errorf("with a new rule: %+v", r)
		}
		o.mu.Lock()
		o.here[testKey(1).RelayAddress6()] = true // which makes a new Set, but no new rule
		o.mu.Unlock()
		o.s.Rehere()
		if r := report(control.FromAgent{}); !r.InForce["a"] || r.InForce["b"] {
			t.Errorf("the laptop is here: %+v", r)
		}
		changed := testAgent(3, "1", "a", "b")
		changed.Rules[0].Port = 9090 // a rule of the same name that is another one
		o.set(changed)
		if r := report(control.FromAgent{}); r.InForce["a"] {
			t.Errorf("another rule of that name: %+v", r)
		}
		if r := report(control.FromAgent{Generation: latest()}); !r.InForce["a"] || !r.InForce["b"] {
			t.Errorf("all in force: %+v", r)
		}

		o.changed()
		if r := report(control.FromAgent{Error: "no\nnftables \xff" + strings.Repeat("x", 2000)}); len(r.Error) > maxError || !strings.HasPrefix(r.Error, "no nftables") || !o.changed() {
			t.Errorf("trouble: %q", r.Error)
		}
		if r := report(control.FromAgent{}); r.Error != "" || !o.changed() {
			t.Errorf("trouble over: %q", r.Error)
		}

		_ = c.conn.Close()
		time.Sleep(pace)
		if !o.changed() {
			t.Error("that it went is no news")
		}
		if _, ok := o.s.Report(testKey(3)); ok {
			t.Error("it counts as connected")
		}
	})
}

func TestCountsAreNewsEveryFewSeconds(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"))
		c := o.greet(testKey(3), "pod-1")
		o.changed()
		news := 0
		for i := range 20 {
			time.Sleep(control.Beat)
			if err := c.say(control.FromAgent{Counts: map[string]control.Counts{"a": {Matched: int64(i + 1), Failed: -1}, "elsewhere": {Matched: 1}}}); err != nil {
				t.Fatal(err)
			}
			if o.changed() {
				news++
			}
		}
		if news < 3 || news > 4 {
			t.Errorf("in 20 s there were news %d times", news)
		}
		r, _ := o.s.Report(testKey(3))
		if want := (map[string]control.Counts{"a": {Matched: 20}}); !reflect.DeepEqual(r.Counts, want) {
			t.Errorf("counts %v, want %v", r.Counts, want)
		}
		c.live(2 * countsEvery) // until the last are told
		o.changed()
		c.live(2 * countsEvery)
		if o.changed() {
			t.Error("news, and nothing was counted")
		}
	})
}

// For each news of an agent the status of all rules of its pod is written: one that
// comes and goes, or has another trouble all the time, is news now and then.
func TestAFickleAgent(t *testing.T) {
	const most = newsInARow + int(time.Minute/newsEvery) + 1
	for name, fickle := range map[string]func(o *office, c *caller, i int) *caller{
		"its troubles": func(_ *office, c *caller, i int) *caller {
			_ = c.say(control.FromAgent{Error: strings.Repeat("x", i%7)})
			return c
		},
		"it comes and goes": func(o *office, c *caller, _ int) *caller {
			_ = c.conn.Close()
			c = o.dial(testKey(3))
			_ = c.say(control.FromAgent{Podnet: control.Version, PodUID: "pod-1"})
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.set(testAgent(3, "1", "a"))
				c := o.greet(testKey(3), "pod-1")
				news := 0
				for i := range int(time.Minute / pace) {
					time.Sleep(pace)
					c = fickle(o, c, i)
					synctest.Wait()
					if o.changed() {
						news++
					}
				}
				if news > 2*most { // that it went is news as well
					t.Errorf("news %d times in a minute", news)
				}
				_ = c.conn.Close()
				time.Sleep(newsEvery)
				synctest.Wait()
				c = o.greet(testKey(3), "pod-1")
				for _, trouble := range []string{"no nftables", ""} {
					time.Sleep(newsEvery)
					_ = c.say(control.FromAgent{Error: trouble})
					synctest.Wait()
					if r, ok := o.s.Report(testKey(3)); !ok || r.Error != trouble {
						t.Errorf("later: %+v, %v", r, ok)
					}
				}
			})
		})
	}
}

// Who sends as much as it can is read slowly.
func TestATalkativeAgentWaits(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(testAgent(3, "1", "a"))
		c := o.greet(testKey(3), "pod-1")
		began := time.Now()
		if _, err := io.WriteString(c.conn, strings.Repeat("{}\n", 10_000)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Minute { // the Server reads 4 KiB ahead
			t.Errorf("10,000 lines took %v", took)
		}
	})
}

func TestAnOfficeIsFull(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var all []Agent
		for i := range maxSessions + 1 {
			all = append(all, testAgent(i, "1", "a"))
		}
		o.set(all...)
		var calls []*caller
		for i := range maxSessions {
			calls = append(calls, o.greet(testKey(i), "pod-1"))
		}
		if last := o.dial(testKey(maxSessions)); !last.cut() {
			t.Error("one too many is served")
		}
		_ = calls[7].conn.Close()
		time.Sleep(pace)
		synctest.Wait()
		if last := o.greet(testKey(maxSessions), "pod-1"); last.cut() {
			t.Error("there is room, and it is not served")
		}
		for _, c := range calls {
			_ = c.conn.Close()
		}
	})
}
