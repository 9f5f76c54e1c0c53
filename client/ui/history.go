package ui

import (
	"context"
	"slices"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

const (
	// sampleEvery is how often the sessions are looked at, keptSamples how often that
	// is remembered: three minutes.
	sampleEvery = time.Second
	keptSamples = 180
	// keptEvents is how many things that happened are shown.
	keptEvents = 30
)

// sample is how a session did at a moment.
type sample struct {
	at     time.Time
	rtt    float64 // milliseconds; 0: no path
	rx, tx int64   // bytes since the session began
}

// history is what was seen of each session while the port was open.
type history struct {
	mu  sync.Mutex
	all map[string][]sample // by name, oldest first
}

func newHistory() *history { return &history{all: map[string][]sample{}} }

// follow looks at the sessions until ctx is done.
func (h *history) follow(ctx context.Context, c *localapi.Client) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if s, err := c.Status(ctx); err == nil {
			h.add(s, time.Now())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// add notes how the sessions are, and forgets those that are no more.
func (h *history) add(s localapi.Status, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.all
	h.all = map[string][]sample{}
	for _, c := range s.Connections {
		list := append(was[c.Name], sample{now, c.Path.RTTMs, c.Tunnel.Rx, c.Tunnel.Tx})
		h.all[c.Name] = list[max(0, len(list)-keptSamples):]
	}
}

func (h *history) of(session string) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all[session])
}

// news is what happens to the sessions, and a bell that rings when it does.
type news struct {
	mu     sync.Mutex
	events []localapi.Event // oldest first
	rung   chan struct{}    // closed at the next one
}

func newNews() *news { return &news{rung: make(chan struct{})} }

// follow listens until ctx is done.
func (n *news) follow(ctx context.Context, c *localapi.Client) {
	_ = c.Events(ctx, 0, func(e localapi.Event) error { // it ends with the daemon, as we do
		n.mu.Lock()
		defer n.mu.Unlock()
		n.events = append(n.events, e)
		n.events = n.events[max(0, len(n.events)-keptEvents):]
		close(n.rung)
		n.rung = make(chan struct{})
		return nil
	})
}

// bell is closed at the next event.
func (n *news) bell() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rung
}

// last are the events, newest first.
func (n *news) last() []localapi.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := slices.Clone(n.events)
	slices.Reverse(all)
	return all
}
