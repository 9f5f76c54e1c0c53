package agent

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// firstTimes are how long the first attempts to reach a laptop may take: the
// gateway may let the agent through only a moment after it has told it of the
// laptop, and TCP by itself would repeat itself after a second.
var firstTimes = [...]time.Duration{300 * time.Millisecond, 600 * time.Millisecond, time.Second}

// gatherTime is how long events wait for others that go with them to a laptop: at
// a line in a packet of its own they cost more than the requests that they tell of.
const gatherTime = 20 * time.Millisecond

// laptop is the agent's connection to one laptop. While it beats, the laptop's
// rules are in force.
type laptop struct {
	addr   netip.Addr
	cancel context.CancelFunc
	notify chan struct{} // something is to be said, at each pulse at least

	// Guarded by worker.mu.
	ways  []key.Public  // gateways, the best first
	at    int           // of ways, the one that is used
	moved chan struct{} // closed when ways change
	tried bool          // it was dialled once, with or without success
	up    bool
	rules []string // names of those in force
}

// wayLocked is the gateway through which the laptop is reached.
func (l *laptop) wayLocked() (key.Public, bool) {
	if len(l.ways) == 0 {
		return key.Public{}, false
	}
	return l.ways[l.at%len(l.ways)], true
}

// goLocked says by which gateways the laptop may be reached from now on.
func (l *laptop) goLocked(ways []key.Public) {
	if slices.Equal(l.ways, ways) {
		return
	}
	l.ways, l.at = ways, 0
	close(l.moved)
	l.moved = make(chan struct{})
}

// keepLaptop keeps a connection to l until ctx ends.
func (w *worker) keepLaptop(ctx context.Context, l *laptop) {
	log := w.log.With("addr", l.addr)
	for failures := 0; ctx.Err() == nil; {
		w.mu.Lock()
		_, reachable := l.wayLocked()
		moved := l.moved
		w.mu.Unlock()
		if !reachable {
			select {
			case <-ctx.Done():
			case <-moved:
			}
			continue
		}
		limit := dialTime
		if failures < len(firstTimes) {
			limit = firstTimes[failures]
		}
		c, err := w.wire.dial(ctx, netip.AddrPortFrom(l.addr, control.LivePort), limit)
		if err == nil {
			err = converse(ctx, c, func(ctx context.Context) error { return w.tell(ctx, l, c) }, func() error { return w.listen(l, c) })
		}
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		if l.up { // it was there, so the best way is to be tried again
			l.at, failures = 0, 0
		} else {
			l.at++
			failures++
		}
		l.tried, l.up = true, false
		w.mu.Unlock()
		w.poke()
		level := slog.LevelDebug
		if failures <= 1 {
			level = slog.LevelInfo
		}
		log.Log(ctx, level, "laptop does not answer", "err", err)
		wait := redialAfter
		if failures > len(firstTimes) {
			wait = time.Second
		}
		pause(ctx, wait)
	}
}

func (w *worker) listen(l *laptop, c net.Conn) error {
	r := control.NewReader(c)
	for first := true; ; first = false {
		if err := c.SetReadDeadline(time.Now().Add(control.Silence)); err != nil {
			return err
		}
		var line control.ToPod
		if err := r.Read(&line); err != nil {
			return err
		}
		if !first {
			continue
		}
		err := versionError(line.Podnet)
		w.mu.Lock()
		l.tried, l.up = true, err == nil
		w.mu.Unlock()
		w.poke()
		if err != nil {
			return err
		}
		w.log.Info("laptop connected", "addr", l.addr)
	}
}

// tell says which of the laptop's rules are in force, at each pulse and when they
// change, and what came of each request, as soon as it is known.
func (w *worker) tell(ctx context.Context, l *laptop, c net.Conn) error {
	events := w.seen.queue(l.addr)
	line := control.FromPod{Podnet: control.Version, PodUID: w.o.PodUID}
	told := map[string]control.Counts{}
	var rules []string
	unsaid := true // no rules have been told yet
	for {
		w.mu.Lock()
		now := l.rules
		w.mu.Unlock()
		if unsaid || !slices.Equal(rules, now) {
			rules, unsaid = now, false
			list := slices.Concat([]string{}, now)
			line.Rules = &list
		}
		line.Lost = events.takeLost()
		line.Counts = w.seen.changed(told, &l.addr)
		if err := say(c, line); err != nil {
			return err
		}
		line = control.FromPod{}
	wait:
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case e := <-events.waiting:
				pause(ctx, gatherTime)
				if err := sayEvents(c, e, events.waiting); err != nil {
					return err
				}
			case <-l.notify:
				break wait
			}
		}
	}
}

// sayEvents writes an event and those that wait behind it, in large pieces.
func sayEvents(c net.Conn, e control.Event, waiting <-chan control.Event) error {
	if err := c.SetWriteDeadline(time.Now().Add(control.Silence)); err != nil {
		return err
	}
	pieces := bufio.NewWriterSize(c, 16<<10)
	for left := len(waiting); ; left-- {
		if _, err := pieces.Write(control.AppendEvent(pieces.AvailableBuffer(), &e)); err != nil {
			return err
		}
		if left == 0 {
			return pieces.Flush()
		}
		e = <-waiting
	}
}
