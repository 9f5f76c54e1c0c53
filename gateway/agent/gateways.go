package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

const (
	// dialTime is how long a gateway or a laptop may take to answer.
	dialTime = control.Silence
	// redialAfter is how long the agent waits before it dials again.
	redialAfter = 250 * time.Millisecond
)

// gateway is the agent's connection to one gateway.
type gateway struct {
	key    key.Public
	cancel context.CancelFunc
	notify chan struct{} // something is to be said, at each pulse at least

	// Guarded by worker.mu.
	beats   bool
	set     *control.Set // its newest on this connection
	setAt   time.Time    // since when
	since   map[netip.Addr]time.Time
	inForce int64 // generation
	trouble string
}

// keepGateway keeps a connection to g until ctx ends.
func (w *worker) keepGateway(ctx context.Context, g *gateway) {
	log := w.log.With("gateway", g.key)
	fresh := false // the last handshake leads nowhere any more
	for wait := redialAfter; ctx.Err() == nil; pause(ctx, wait) {
		if err := w.wire.greet(ctx, g.key, fresh); err != nil {
			log.Debug("no handshake", "err", err)
			continue
		}
		c, err := w.wire.dial(ctx, netip.AddrPortFrom(g.key.Address6(), control.Port), dialTime)
		if err != nil {
			log.Debug("gateway does not answer", "err", err)
			fresh = true
			continue
		}
		began := time.Now()
		log.Info("gateway connected")
		err = converse(ctx, c, func(ctx context.Context) error { return w.report(ctx, g, c) }, func() error { return w.hear(g, c) })
		w.mu.Lock()
		g.beats, g.set, g.inForce = false, nil, 0
		w.mu.Unlock()
		w.poke()
		if ctx.Err() == nil {
			log.Warn("gateway lost", "err", err)
		}
		fresh = errors.Is(err, os.ErrDeadlineExceeded)
		wait = redialAfter
		if time.Since(began) < control.Beat { // it wants nothing of us
			wait = control.Beat
		}
	}
}

// converse says and hears on c until one of both ends, as they do where the other
// side is silent, or ctx does. Then it closes c.
func converse(ctx context.Context, c net.Conn, say func(context.Context) error, hear func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	said := make(chan struct{})
	go func() {
		defer close(said)
		cancel(say(ctx))
	}()
	err := hear()
	cancel(err)
	c.Close()
	<-said
	return context.Cause(ctx)
}

func (w *worker) hear(g *gateway, c net.Conn) error {
	for r := control.NewReader(c); ; {
		if err := c.SetReadDeadline(time.Now().Add(control.Silence)); err != nil {
			return err
		}
		var line control.ToAgent
		if err := r.Read(&line); err != nil {
			return err
		}
		w.mu.Lock()
		g.beats = true
		if line.Set != nil {
			g.setAt = time.Now()
			g.set, g.since = line.Set, turned(g.since, line.Set, g.setAt)
		}
		w.mu.Unlock()
		if line.Set != nil {
			w.poke()
		}
	}
}

// report tells a gateway how the agent is, at each pulse and when it changes.
func (w *worker) report(ctx context.Context, g *gateway, c net.Conn) error {
	line := control.FromAgent{Podnet: control.Version, PodUID: w.o.PodUID}
	told := map[string]control.Counts{}
	for {
		w.mu.Lock()
		line.Generation, line.Error = g.inForce, g.trouble
		w.mu.Unlock()
		line.Counts = w.seen.changed(told, nil)
		if err := say(c, line); err != nil {
			return err
		}
		line = control.FromAgent{}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-g.notify:
		}
	}
}

// say writes a line, which may take no longer than a silence.
func say(c net.Conn, line any) error {
	if err := c.SetWriteDeadline(time.Now().Add(control.Silence)); err != nil {
		return err
	}
	return control.Write(c, line)
}

// wake wakes who waits on c, which has room for one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d, or for ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// versionError says that the other side speaks another protocol.
func versionError(theirs string) error {
	if theirs == control.Version {
		return nil
	}
	return fmt.Errorf("it speaks %q, this agent %q: %w", theirs, control.Version, errors.ErrUnsupported)
}
