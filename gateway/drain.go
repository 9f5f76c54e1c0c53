package gateway

import (
	"context"
	"time"

	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/wake"
)

const (
	// drainLimit is how long a stopping gateway waits for its laptops to leave
	// when there is another gateway for them, drainAlone when there is none:
	// then only the word has to get out. Whatever changes here must fit into the
	// pod's terminationGracePeriodSeconds, with retireLimit.
	drainLimit = 8 * time.Second
	drainAlone = time.Second
	// quietTime is how long no laptop has probed us when all have left: they
	// probe the path they use every second.
	quietTime = 2500 * time.Millisecond
	drainPoll = 100 * time.Millisecond
)

// leaveLimit is how long a stopping gateway waits for the Services that it steers
// to lead to their pods again.
const leaveLimit = 5 * time.Second

// leave has Services that are steered lead to their pods, while this gateway leads
// yet. Another one may take them over then; it may also be about to stop, as all are
// at an uninstall.
func (a *admitter) leave(ctx context.Context) {
	if !a.leader.leads.Load() {
		return
	}
	began := time.Now()
	a.fronts.Leave()
	a.world.LookAgain()
	for a.fronts.Busy() && time.Since(began) < leaveLimit && wake.After(ctx, drainPoll) {
	}
}

// paths is where peers are asked to go, and where it shows that they have.
type paths interface {
	// LastProbe tells when, and by what, a peer last probed us; zero: never.
	LastProbe(probe.ID) (time.Time, transport.Kind)
	// Drain asks all who probe us to go to another gateway.
	Drain()
}

// drain asks the peers to go to other gateways, and waits until they have, or
// until it is time to stop. Peers are admitted and cut meanwhile as ever.
func (a *admitter) drain(ctx context.Context) {
	began := time.Now()
	a.draining.Store(true)
	a.paths.Drain()
	a.world.LookAgain()
	quiet := a.quiet(began)
	for !quiet && time.Since(began) < a.patience() && wake.After(ctx, drainPoll) {
		quiet = a.quiet(time.Now())
	}
	a.log.Info("drained", "elapsed", time.Since(began).Round(time.Millisecond), "quiet", quiet)
}

func (a *admitter) patience() time.Duration {
	if a.elsewhere.Load() {
		return drainLimit
	}
	return drainAlone
}

// quiet reports whether no admitted peer has probed us lately.
func (a *admitter) quiet(now time.Time) bool {
	ids := a.ids.Load()
	if ids == nil {
		return true
	}
	for _, id := range *ids {
		if at, _ := a.paths.LastProbe(id); now.Sub(at) < quietTime {
			return false
		}
	}
	return true
}
