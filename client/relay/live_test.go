package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"log/slog"

	"podnet.dev/internal/steer/control"
)

// deskRelay is a Relay without a stack, for who has connections of their own.
func deskRelay(rules ...Rule) *Relay {
	r := &Relay{log: slog.New(slog.DiscardHandler), state: newState()}
	r.table.Store(newTable(relay6, rules))
	return r
}

// TestBothBeat is an agent that beats for a minute and then falls silent.
func TestBothBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := deskRelay(rule("web", 20000, "3000"))
		agent, ours := net.Pipe()
		var work sync.WaitGroup
		work.Go(func() { r.serveLive(ours, agent6) })
		beats := make(chan time.Time, 100)
		work.Go(func() {
			lines := control.NewReader(agent)
			for first := true; ; first = false {
				var line control.ToPod
				if err := lines.Read(&line); err != nil {
					return
				}
				if first != (line.Podnet == control.Version) {
					t.Errorf("line says version %q, first: %v", line.Podnet, first)
				}
				beats <- time.Now()
			}
		})
		began := time.Now()
		say(t, agent, control.FromPod{Podnet: control.Version, PodUID: pod.UID})
		for range 60 {
			time.Sleep(control.Beat)
			say(t, agent, control.FromPod{})
		}
		synctest.Wait()
		if l := r.Live()[0]; !l.Connected || !l.Since.Equal(began) || !l.LastBeat.Equal(time.Now()) {
			t.Errorf("after a minute: %+v", l)
		}
		if len(beats) < 60 {
			t.Errorf("%d beats in a minute", len(beats))
		}
		last := time.Now()
		<-r.Changed()
		<-r.Changed()
		if silence := time.Since(last); silence != control.Silence || r.Live()[0].Connected {
			t.Errorf("silent for %v: %+v", silence, r.Live()[0])
		}
		work.Wait()
	})
}

// TestBeatAnswers: a laptop speaks when it hears the agent, twice a second at most, and
// by itself when it hears nothing.
func TestBeatAnswers(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct{ heard, spoke []time.Duration }{
		"an agent at rest":      {[]time.Duration{0, 600 * ms, 1600 * ms, 2600 * ms}, []time.Duration{0, 600 * ms, 1600 * ms, 2600 * ms}},
		"one with much to tell": {[]time.Duration{100 * ms, 200 * ms, 600 * ms, 700 * ms, 1000 * ms, 1600 * ms}, []time.Duration{0, 600 * ms, 1600 * ms}},
		"a silent one":          {nil, []time.Duration{0, control.Alone, 2 * control.Alone}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				agent, ours := net.Pipe()
				heard, stop, done := make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
				began := time.Now()
				var spoke []time.Duration
				go func() { done <- beat(ours, heard, stop) }()
				go func() {
					lines := control.NewReader(agent)
					for line := (control.ToPod{}); lines.Read(&line) == nil; {
						spoke = append(spoke, time.Since(began))
					}
				}()
				for _, at := range c.heard {
					time.Sleep(at - time.Since(began))
					heard <- struct{}{}
				}
				time.Sleep(2700*ms - time.Since(began))
				synctest.Wait()
				close(stop)
				if err := <-done; err != nil || !reflect.DeepEqual(spoke, c.spoke) {
					t.Errorf("spoke at %v, want %v; %v", spoke, c.spoke, err)
				}
				agent.Close()
			})
		})
	}
}

// TestAgentThatDoesNotListenIsGone fills the way to the agent.
func TestAgentThatDoesNotListenIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := deskRelay(rule("web", 20000, "3000"))
		agent, ours := net.Pipe() // nobody reads
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.serveLive(ours, agent6)
		}()
		for first := true; ; first = false {
			line := control.FromPod{}
			if first {
				line = control.FromPod{Podnet: control.Version, PodUID: pod.UID}
			}
			if err := control.Write(agent, line); err != nil {
				break
			}
			time.Sleep(control.Beat)
		}
		<-done
		if r.Live()[0].Connected {
			t.Error("still connected")
		}
	})
}

func TestWhoIsNotUnderstoodIsSentAway(t *testing.T) {
	for want, line := range map[string]control.FromPod{
		"agent/v9":  {Podnet: "agent/v9", PodUID: pod.UID},
		"other-uid": {Podnet: control.Version, PodUID: "other-uid"},
	} {
		t.Run(want, func(t *testing.T) {
			w := newWorld(t, rule("web", 20000, "1"))
			for range 2 {
				c := w.mustDial(control.LivePort)
				say(t, c, line)
				_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection stays")
				}
			}
			if l := w.relay.Live()[0]; l.Connected || !strings.Contains(l.Trouble, want) {
				t.Errorf("%+v", l)
			}
			w.greet()
			if l := w.relay.Live()[0]; l.Trouble != "" {
				t.Errorf("understood, and yet %q", l.Trouble)
			}
		})
	}
}

func TestNewestLiveConnectionStays(t *testing.T) {
	w := newWorld(t, rule("web", 20000, "1"))
	old, _ := w.greet()
	since := w.relay.Live()[0].Since
	fresh := w.mustDial(control.LivePort)
	_ = old.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.Copy(io.Discard, old); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the old connection stays")
	}
	say(t, fresh, control.FromPod{Podnet: control.Version, PodUID: pod.UID})
	until(t, "the new one counts", func() bool { l := w.relay.Live()[0]; return l.Connected && l.Since.After(since) })
}

func TestEventsBecomeRequests(t *testing.T) {
	dead := closedPort(t)
	w := newWorld(t, rule("web", 20000, dead), rule("api", 20001, "1"))
	told := make(chan Request, 1000)
	cancel := w.relay.Subscribe(func(q Request) { told <- q })
	c, _ := w.greet()
	_, _ = w.dial(20000) // refused
	began := time.Unix(1000, 0).UTC()
	events := []control.Event{
		{Rule: "ada-web", Began: began, Method: "GET", Target: "/a", Host: "web", Status: 200, Took: time.Second, In: 1, Out: 2},
		{Rule: "nobody's", Method: "GET"},
		{Rule: "ada-web", Method: "GET", Status: 502, Error: "reset"},
		{Rule: "ada-web", Method: "GET", Status: 200, ByApp: true},
		{Rule: "ada-api", Mirror: true, Error: "reset"},
	}
	for i := range events {
		say(t, c, control.FromPod{Event: &events[i]})
	}
	why := "connection refused at 127.0.0.1:" + dead
	want := []Request{
		{Rule: "web", Namespace: "shop", Pod: "web-1", By: ByLaptop, Began: began, Method: "GET", Target: "/a", Host: "web", Status: 200, Took: time.Second, In: 1, Out: 2},
		{Rule: "web", Namespace: "shop", Pod: "web-1", By: ByLaptop, Method: "GET", Status: 502, Error: why},
		{Rule: "web", Namespace: "shop", Pod: "web-1", By: ByApp, Method: "GET", Status: 200, Error: why},
		{Rule: "api", Namespace: "shop", Pod: "web-1", By: ByLaptop, Mirror: true, Error: "reset"},
	}
	for _, q := range want {
		if got := <-told; !reflect.DeepEqual(got, q) {
			t.Errorf("told\n%+v, want\n%+v", got, q)
		}
	}
	if got := w.relay.Requests("web"); !reflect.DeepEqual(got, want[:3]) {
		t.Errorf("kept\n%+v", got)
	}
	cancel()
	for i := range MaxRequests + 5 {
		say(t, c, control.FromPod{Event: &control.Event{Rule: "ada-api", Target: fmt.Sprint(i)}})
	}
	last := fmt.Sprint(MaxRequests + 4)
	until(t, "the last one is there", func() bool {
		got := w.relay.Requests("api")
		return len(got) == MaxRequests && got[len(got)-1].Target == last
	})
	if len(told) > 0 {
		t.Error("told after the end")
	}
	w.relay.SetRules([]Rule{rule("web", 20000, dead)})
	if w.relay.Requests("api") != nil {
		t.Error("requests outlive their rule")
	}
}

// An agent is in a pod, and whoever broke into that may say anything.
func TestWordsOfAHostileAgent(t *testing.T) {
	w := newWorld(t, rule("web", 20000, "1"))
	long := strings.Repeat("x", control.MaxLine/2)
	c := w.mustDial(control.LivePort)
	say(t, c, control.FromPod{Podnet: control.Version, PodUID: long})
	until(t, "it is sent away", func() bool { return w.relay.Live()[0].Trouble != "" })
	if n := len(w.relay.Live()[0].Trouble); n > 2*maxText {
		t.Errorf("%d bytes of trouble are kept", n)
	}
	c, _ = w.greet()
	const evil = "/\x1b]0;owned\x07\x1b[2J\r\n12:00:00  GET /forged \u202e\u009b1m"
	events := []control.Event{
		{Rule: "ada-web", Method: "GET", Target: long, Host: "web"},
		{Rule: "ada-web", Method: evil, Target: evil, Host: evil, Error: evil},
		{Rule: "ada-web", Method: "GET", Target: "/straße?q=ü", Error: "no answer"},
	}
	for i := range events {
		say(t, c, control.FromPod{Event: &events[i]})
	}
	until(t, "all are told", func() bool { return len(w.relay.Requests("web")) == len(events) })
	for _, q := range w.relay.Requests("web") {
		for _, s := range []string{q.Method, q.Target, q.Host, q.Error} {
			if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("kept %d bytes: %.60q", len(s), s)
			}
		}
	}
	if q := w.relay.Requests("web")[2]; q.Target != events[2].Target || q.Error != events[2].Error {
		t.Errorf("%+v", q)
	}
}

func TestLiveSaysWhatIsInForce(t *testing.T) {
	// Another pod's agent has not come yet.
	api := rule("api", 20001, "1")
	api.Agents[other6] = Pod{Namespace: "shop", Name: "api-1", UID: "uid-2", Object: "ada-api-2"}
	w := newWorld(t, rule("web", 20000, "1"), api)
	c, _ := w.greet()
	counts := control.Counts{Matched: 5, Failed: 1, Passed: 7}
	say(t, c, control.FromPod{Rules: &[]string{"ada-web"}, Lost: 3, Counts: map[string]control.Counts{"ada-web": counts, "nobody's": {}}})
	until(t, "the line has come", func() bool { return w.relay.Live()[0].Lost == 3 })
	got := w.relay.Live()
	if !reflect.DeepEqual(got[0].Rules, []LiveRule{{Rule: "api", Object: "ada-api"}, {Rule: "web", Object: "ada-web", InForce: true, Counts: counts}}) {
		t.Errorf("the first agent has %+v", got[0].Rules)
	}
	if l := got[1]; l.Connected || l.Pod != "api-1" || l.Agent != other6 || !reflect.DeepEqual(l.Rules, []LiveRule{{Rule: "api", Object: "ada-api-2"}}) {
		t.Errorf("the other agent is %+v", l)
	}
	// An agent without rules is no agent: its line ends.
	w.relay.SetRules([]Rule{{Name: "api", Port: 20001, Protocol: "tcp", Agents: map[netip.Addr]Pod{other6: api.Agents[other6]}}})
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays")
	}
	if got := w.relay.Live(); len(got) != 1 || got[0].Agent != other6 {
		t.Errorf("live: %+v", got)
	}
}
