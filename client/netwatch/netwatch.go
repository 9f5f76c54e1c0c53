// Package netwatch tells when the machine's network has become another one and
// when the machine, or this process, was asleep, so that nobody has to wait for
// a time-out to notice. What counts as a change is decided by pure functions;
// only the thin files per OS ask the system. It knows nothing of tunnels, but
// for the names of our own interfaces, whose changes are nobody's news.
package netwatch

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Kind is what an Event tells.
type Kind string

const (
	// Changed says that addresses, or the ways out, are not what they were.
	Changed Kind = "changed"
	// Woke says that time has passed without us: the machine slept, or this
	// process was stopped or starved.
	Woke Kind = "woke"
)

// Event is one thing that happened.
type Event struct {
	Kind Kind
	// Text says what, for people: "new: wlan0 192.0.2.7/24; gone: eth0 10.0.0.5/24".
	Text string
	// Away is how long nothing ran, for Woke; zero for Changed.
	Away time.Duration
}

const (
	// debounce is how long further news are waited for: a new network comes
	// with a burst of them.
	debounce = 100 * time.Millisecond
	// tickEvery is how often the clocks are read.
	tickEvery = time.Second
	// lateMin is how late a tick must come to count as a time of standing
	// still. A busy machine makes ticks late by fractions of a second.
	lateMin = 5 * time.Second
	// sleptMin is how much of the gap between two ticks the machine must have
	// slept for. The clocks are not read at the same instant.
	sleptMin = time.Second
)

// Watch reports until ctx is done; then it closes the channel. What the reader
// has not fetched yet is merged into one Event of each Kind.
func Watch(ctx context.Context, log *slog.Logger) <-chan Event {
	w := watcher{look: look, clocks: clocks, log: log}
	out := make(chan Event)
	go func() {
		defer close(out)
		signals, stop := signals(log)
		defer stop()
		w.run(ctx, signals, out)
	}()
	return out
}

// watcher turns signals, "something may have changed", into Events.
type watcher struct {
	look   func() (facts, error)
	clocks func() reading
	log    *slog.Logger
}

func (w *watcher) run(ctx context.Context, signals <-chan struct{}, out chan<- Event) {
	before, err := w.look()
	if err != nil {
		w.log.Info("cannot look at the network", "err", err)
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	last := w.clocks()
	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()
	waiting := false
	var p pending
	for {
		event, to := p.first(out)
		select {
		case <-ctx.Done():
			return
		case <-signals:
			if !waiting {
				waiting = true
				settled.Reset(debounce)
			}
		case <-settled.C:
			waiting = false
			now, err := w.look()
			if err != nil {
				w.log.Info("cannot look at the network", "err", err)
				continue
			}
			if text := diff(before, now); text != "" {
				p.add(Event{Kind: Changed, Text: text})
			}
			before = now
		case <-tick.C:
			now := w.clocks()
			if e, ok := gap(last, now); ok {
				p.add(e)
			}
			last = now
		case to <- event:
			p.sent(event.Kind)
		}
	}
}

// reading is two clocks: awake stands still while the machine sleeps, all does
// not. Neither has a meaning but by differences.
type reading struct{ awake, all time.Duration }

// gap says whether too much time has passed between two ticks.
func gap(last, now reading) (Event, bool) {
	all := now.all - last.all
	if slept := all - (now.awake - last.awake); slept >= sleptMin {
		return Event{Kind: Woke, Away: all, Text: fmt.Sprintf("the machine slept for %v", all.Round(time.Second))}, true
	}
	if all-tickEvery >= lateMin {
		return Event{Kind: Woke, Away: all, Text: fmt.Sprintf("podnet stood still for %v", all.Round(time.Second))}, true
	}
	return Event{}, false
}

// pending are the events that nobody has fetched yet: at most one of a kind.
type pending []Event

func (p *pending) add(e Event) {
	for i, old := range *p {
		if old.Kind == e.Kind {
			e.Away += old.Away
			(*p)[i] = e
			return
		}
	}
	*p = append(*p, e)
}

// first is the next event and where to; a nil channel when there is none.
func (p *pending) first(out chan<- Event) (Event, chan<- Event) {
	if len(*p) == 0 {
		return Event{}, nil
	}
	return (*p)[0], out
}

func (p *pending) sent(k Kind) {
	for i, e := range *p {
		if e.Kind == k {
			*p = append((*p)[:i], (*p)[i+1:]...)
			return
		}
	}
}
