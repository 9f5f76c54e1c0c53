package netwatch

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func prefixes(text string) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range strings.Fields(text) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

// TestOnlyWhatMattersIsAFact: containers come and go, and our own tunnel is
// nobody's news.
func TestOnlyWhatMattersIsAFact(t *testing.T) {
	wlan := port{name: "wlan0", carries: true, prefixes: prefixes("192.0.2.7/24 fe80::1/64 2001:db8::7/64")}
	home := way{via: netip.MustParseAddr("192.0.2.1"), dev: "wlan0", metric: 600}
	got := describe([]port{
		{name: "lo", loopback: true, carries: true, prefixes: prefixes("127.0.0.1/8")}, wlan,
		{name: "veth12", carries: true, prefixes: prefixes("fe80::2/64")},
		{name: "eth0", prefixes: prefixes("10.0.0.5/24")}, // no carrier
		{name: "podnet0", carries: true, prefixes: prefixes("198.18.0.5/32")},
	}, []way{home, {dev: "podnet0"}, {dev: "ppp0"}})
	want := "default dev ppp0|default via 192.0.2.1 dev wlan0 metric 600|wlan0 192.0.2.7/24|wlan0 2001:db8::7/64"
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("facts %s\nwant  %s", text, want)
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ before, now, want string }{
		{"", "", ""},
		{"a b", "a b", ""},
		{"a b", "b c", "new: c; gone: a"},
		{"a", "", "gone: a"},
		{"", "a b c d e f", "new: a, b, c, d, 2 more"},
	} {
		if got := diff(strings.Fields(c.before), strings.Fields(c.now)); got != c.want {
			t.Errorf("%q to %q: %q, want %q", c.before, c.now, got, c.want)
		}
	}
}

func TestGap(t *testing.T) {
	for _, c := range []struct {
		awake, all time.Duration
		want       string
	}{
		{time.Second, time.Second, ""},
		{4 * time.Second, 4 * time.Second, ""}, // a busy machine
		{time.Second, -time.Hour, ""},          // somebody set the clock back
		{time.Second, 8*time.Hour + time.Second, "the machine slept for 8h0m1s"},
		{10 * time.Minute, 10 * time.Minute, "podnet stood still for 10m0s"},
	} {
		last := reading{awake: 5 * time.Hour, all: 7 * time.Hour}
		e, ok := gap(last, reading{last.awake + c.awake, last.all + c.all})
		if ok != (c.want != "") || e.Text != c.want || ok && e.Away != c.all {
			t.Errorf("%v awake, %v in all: %+v, want %q", c.awake, c.all, e, c.want)
		}
	}
}

// world is a host that a test changes.
type world struct {
	begin   time.Time
	signals chan struct{}
	out     chan Event

	mu    sync.Mutex
	facts facts
	err   error
	slept time.Duration
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) look() (facts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts, w.err
}

func (w *world) clocks() reading {
	w.mu.Lock()
	defer w.mu.Unlock()
	awake := time.Since(w.begin)
	return reading{awake: awake, all: awake + w.slept}
}

func watch(t *testing.T) *world {
	w := &world{facts: facts{"eth0 10.0.0.5/24"}, begin: time.Now(), signals: make(chan struct{}), out: make(chan Event)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&watcher{look: w.look, clocks: w.clocks, log: slog.New(slog.DiscardHandler)}).run(ctx, w.signals, w.out)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	synctest.Wait()
	return w
}

// silent fails when there is an event within d.
func (w *world) silent(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case e := <-w.out:
		t.Errorf("event %+v", e)
	case <-time.After(d):
	}
}

func TestABurstIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		began := time.Now()
		for range 5 {
			w.signals <- struct{}{}
			time.Sleep(10 * time.Millisecond)
		}
		w.set(func() { w.facts = facts{"wlan0 192.0.2.7/24"} })
		if e := <-w.out; e.Kind != Changed || e.Text != "new: wlan0 192.0.2.7/24; gone: eth0 10.0.0.5/24" {
			t.Errorf("%+v", e)
		}
		if d := time.Since(began); d != debounce {
			t.Errorf("told after %v, want %v", d, debounce)
		}
		w.signals <- struct{}{} // a container came and went
		w.silent(t, time.Minute)
		w.set(func() { w.err = errors.New("no") })
		w.signals <- struct{}{}
		w.silent(t, time.Minute)
	})
}

// TestNobodyListens: a session that is busy gets what it missed in one piece.
func TestNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		for _, f := range []string{"a", "b", "c"} {
			w.set(func() { w.facts = facts{f} })
			w.signals <- struct{}{}
			time.Sleep(time.Second)
		}
		w.set(func() { w.slept = time.Hour })
		time.Sleep(3 * time.Second)
		w.set(func() { w.slept = 3 * time.Hour })
		time.Sleep(3 * time.Second)
		first, second := <-w.out, <-w.out
		if first.Kind != Changed || !strings.Contains(first.Text, "new: c") {
			t.Errorf("%+v", first)
		}
		if second.Kind != Woke || second.Away.Round(time.Minute) != 3*time.Hour {
			t.Errorf("%+v", second)
		}
		w.silent(t, time.Minute)
	})
}
