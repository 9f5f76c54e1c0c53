package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/client/localapi"
)

// told is what a listener has heard, as "type text".
type told struct {
	mu  sync.Mutex
	all []localapi.Event
}

func (l *told) hear(e localapi.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	return nil
}

func (l *told) types() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for _, e := range l.all {
		words = append(words, string(e.Type))
	}
	return strings.Join(words, " ")
}

// follow listens to the daemon's events until the test or the daemon ends.
func follow(t *testing.T, c *localapi.Client, since int64) *told {
	t.Helper()
	l := &told{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Events(ctx, since, l.hear); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func TestListenersHearAWholeDay(t *testing.T) {
	h := &fakeHost{end: make(chan error), later: make(chan localapi.Event)}
	c, _, _ := start(t, h, nil)
	live := follow(t, c, 0)
	for range 2 {
		if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
			t.Fatal(err)
		}
		h.later <- localapi.Event{Type: localapi.EventPath, Text: "apiserver, 20 ms"}
		if _, err := c.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Fatal(err)
	}
	h.end <- &localapi.Error{Code: localapi.CodeEnded, Message: "the peer was deleted"}
	const want = "phase ready path disconnected phase ready path disconnected phase ready ended"
	eventually(t, "the listener heard everything", func() bool { return live.types() == want })
	if s, err := c.Status(t.Context()); err != nil || s.Seq != 11 {
		t.Errorf("status is of event %d, want 11 (%v)", s.Seq, err)
	}
	late := follow(t, c, 0)
	eventually(t, "who comes late hears what was", func() bool { return late.types() == want })
	rest := follow(t, c, 8)
	eventually(t, "who was there before hears the rest", func() bool { return rest.types() == "phase ready ended" })
	for i, e := range late.all {
		if e.Seq != int64(i+1) || e.Connection != "kind" || e.Time.IsZero() {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if e := late.all[len(late.all)-1]; e.Error == nil || e.Error.Code != localapi.CodeEnded || e.Text != "the session ended: the peer was deleted" {
		t.Errorf("the end says %+v", e)
	}
	err := c.Events(t.Context(), 99, func(e localapi.Event) error { return errors.New(string(e.Type)) }) // another daemon's number
	if err == nil || err.Error() != "phase" {
		t.Errorf("a number from the future: %v", err)
	}
}

func TestEndOfTheDaemonIsHeard(t *testing.T) {
	c, _, done := start(t, &fakeHost{}, func(o *Options) { o.OnDemand, o.Idle = true, time.Hour })
	l := follow(t, c, 0)
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener is there", func() bool { return l.types() == "phase ready" })
	if _, err := c.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the goodbye", func() bool { return l.types() == "phase ready disconnected" })
}

func TestRingForgetsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents(slog.New(slog.DiscardHandler))
		for range keptEvents + 50 {
			h.publish(localapi.Event{Type: localapi.EventPath})
		}
		for since, want := range map[int64]int{0: keptEvents, 50: keptEvents, 51: keptEvents - 1, keptEvents + 49: 1} {
			got := h.after(t.Context(), since)
			if len(got) != want || got[len(got)-1].Seq != keptEvents+50 {
				t.Errorf("after %d: %d events, want %d", since, len(got), want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan []localapi.Event)
		go func() { waited <- h.after(ctx, keptEvents+50) }()
		synctest.Wait()
		cancel()
		if got := <-waited; got != nil {
			t.Errorf("nothing happened, and it is %v", got)
		}
	})
}

func TestLogTellsTheSameStory(t *testing.T) {
	var out bytes.Buffer
	h := newEvents(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	for _, e := range []localapi.Event{
		{Type: localapi.EventPhase, Phase: localapi.PhaseAuth}, // below info
		{Type: localapi.EventDone, Phase: localapi.PhaseAuth, Text: "alice at https://api"},
		{Type: localapi.EventReady, Phase: localapi.PhaseReady, Connection: "kind", ElapsedMs: 1200},
		{Type: localapi.EventPath, Connection: "kind", Text: "udp back", Path: &localapi.Path{Kind: "udp", Remote: "203.0.113.7:31820"}},
		{Type: localapi.EventCleared, Connection: "kind", Code: "lease", Text: "renewed again"},
		{Type: localapi.EventEnded, Connection: "kind", Error: &localapi.Error{Message: "it was deleted"}},
		{Type: "fireworks", Text: "of a later version"},
	} {
		h.publish(e)
	}
	const want = `level=INFO msg="phase done" phase=auth text="alice at https://api"
level=INFO msg="session ready" session=kind elapsed=1.2s
level=INFO msg="path changed" session=kind path=udp addr=203.0.113.7:31820 text="udp back"
level=INFO msg="session warning over" session=kind code=lease text="renewed again"
level=WARN msg="session ended" session=kind err="it was deleted"
level=INFO msg="session event" text="of a later version"
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
