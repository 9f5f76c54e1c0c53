package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/internal/paths"
)

// ErrNotAnswered is the LastError of a path on which nothing has ever come back.
var ErrNotAnswered = errors.New("not answered")

var errNotUp = errors.New("no stream")

// PathStatus is how one path to a gateway does.
type PathStatus struct {
	Kind   Kind
	Remote string // address at the other end, as far as known
	Live   bool   // it has lately proved to work, in both directions
	// Suspect says that a live one is silent where it should not be.
	Suspect bool
	RTT     time.Duration
	Since   time.Time // since when it is live; zero: it is not
	// Datagram is the largest datagram, in bytes, that is known to pass; 0: no
	// limit (a stream), or not known.
	Datagram  int
	RxBytes   uint64 // ciphertext from the gateway
	TxBytes   uint64
	Redials   int    // streams that had to be dialled anew
	Why       string // why it became the active one; empty: it is not
	LastError error  // why it is not live, or ended last; nil: never
}

// GatewayStatus is what a Gateway knows of its paths.
type GatewayStatus struct {
	Active   PathStatus   // carries the datagrams; Kind "": none is live
	Paths    []PathStatus // all: the active one first, then live ones, UDP before streams
	Draining bool         // the gateway asks to be left for another one
	// Observed is how the gateway sees our UDP; not valid: it has not said.
	Observed netip.AddrPort
}

// Status tells of the paths.
func (g *Gateway) Status() GatewayStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := GatewayStatus{Draining: g.draining, Observed: g.observed}
	active := g.active.Load()
	ids := make([]paths.ID, 0, len(g.paths))
	for id := range g.paths {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		p, s := g.paths[id], g.set.State(id)
		one := p.status()
		one.Live, one.Suspect, one.RTT, one.Since, one.Datagram = s.Live, s.Suspect, s.RTT, s.Since, s.Datagram
		if one.LastError == nil && !s.Live && s.Unanswered > 0 {
			one.LastError = ErrNotAnswered
		}
		if active != nil && active.id == id {
			one.Why = g.why
			st.Active = one
		}
		st.Paths = append(st.Paths, one)
	}
	slices.SortStableFunc(st.Paths, func(a, b PathStatus) int { return rank(a) - rank(b) })
	return st
}

func rank(p PathStatus) int {
	switch {
	case p.Why != "":
		return 0
	case p.Live && p.Kind == UDP:
		return 1
	case p.Live:
		return 2
	case p.Kind == UDP:
		return 3
	}
	return 4
}

// told is what a session cares about in a Status.
type told struct {
	active   paths.ID // 0: none
	datagram int
	live     []paths.ID // UDP paths in the order of their making
	stream   bool
	ended    int // how often the stream has, or could not be dialled
	draining bool
	observed netip.AddrPort
}

func (t told) equal(u told) bool {
	return t.active == u.active && t.datagram == u.datagram && slices.Equal(t.live, u.live) && t.stream == u.stream &&
		t.ended == u.ended && t.draining == u.draining && t.observed == u.observed
}

func (g *Gateway) tellLocked() told {
	t := told{draining: g.draining, observed: g.observed}
	if a := g.active.Load(); a != nil {
		t.active, t.datagram = a.id, g.set.State(a.id).Datagram
	}
	for _, p := range g.udp {
		if g.set.State(p.id).Live {
			t.live = append(t.live, p.id)
		}
	}
	slices.Sort(t.live)
	if g.stream != nil {
		t.stream, t.ended = g.set.State(g.stream.id).Live, g.stream.failures()
	}
	return t
}

// Changed has something in it when something in Status has changed that a
// session cares about: the active path and what it carries, which paths are
// live, why the stream is not, what the gateway says. Round trips and counters
// change all the time.
func (g *Gateway) Changed() <-chan struct{} { return g.changed }

// NoPathError says that no path to a gateway was found.
type NoPathError struct {
	Paths []PathStatus // what was tried
	Cause error        // why the search ended
}

func (e *NoPathError) Error() string {
	if len(e.Paths) == 0 {
		return "no path to the gateway: none is known"
	}
	var tried []string
	for i, p := range e.Paths {
		if i == 4 {
			tried = append(tried, fmt.Sprintf("%d more", len(e.Paths)-i))
			break
		}
		why := ErrNotAnswered
		if p.LastError != nil {
			why = p.LastError
		}
		name := string(p.Kind)
		if p.Remote != "" {
			name += " " + p.Remote
		}
		tried = append(tried, fmt.Sprintf("%s: %v", name, why))
	}
	return "no path to the gateway: " + strings.Join(tried, "; ")
}

// Unwrap gives what the paths failed with, and the Cause.
func (e *NoPathError) Unwrap() []error {
	errs := []error{e.Cause}
	for _, p := range e.Paths {
		if p.LastError != nil {
			errs = append(errs, p.LastError)
		}
	}
	return errs
}

// Wait waits until a path is live. Its error is net.ErrClosed after Close, else a
// *NoPathError.
func (g *Gateway) Wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		closed, moves := g.closed, g.moves
		g.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case g.active.Load() != nil:
			return nil
		}
		select {
		case <-moves:
		case <-ctx.Done():
			st := g.Status()
			slices.SortStableFunc(st.Paths, func(a, b PathStatus) int { return rank(b) - rank(a) }) // the stream first
			return &NoPathError{Paths: st.Paths, Cause: context.Cause(ctx)}
		case <-g.ctx.Done():
			return net.ErrClosed
		}
	}
}
