// Package upkeep is what the keepers of a session's objects have in common: the
// loop that drives their pure states, and telling a no from a failure.
package upkeep

import (
	"context"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// LeaveTime is for deleting what there is.
const LeaveTime = 4 * time.Second

// Loop drives a state. Make one by NewLoop.
type Loop struct{ wake chan struct{} }

// NewLoop makes a Loop; it does nothing before Run.
func NewLoop() Loop { return Loop{make(chan struct{}, 1)} }

// Kick has the state looked at soon.
func (l Loop) Kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run steps when kicked, when news come (nil: they never do) and when the time has
// come that the last step gave. Once ctx is done it ends everything, by end, and
// steps on until nothing is left, or until LeaveTime is over: what is left then ends
// with its lease.
func (l Loop) Run(ctx context.Context, step func() (wait time.Duration, left int), end func(), news func() <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	done, deadline := ctx.Done(), (<-chan time.Time)(nil)
	for {
		wait, left := step()
		if done == nil && left == 0 {
			return
		}
		timer.Reset(wait)
		var told <-chan struct{}
		if news != nil {
			told = news()
		}
		select {
		case <-done:
			done = nil
			deadline = time.After(LeaveTime)
			end()
		case <-deadline:
			return
		case <-l.wake:
		case <-told:
		case <-timer.C:
		}
	}
}

// IsNo tells a no, which will not change by itself, from a failure to ask.
func IsNo(err error) bool {
	switch httpjson.FromError(err).Code {
	case localapi.CodeForbidden, localapi.CodeCredentials, localapi.CodeUsage, localapi.CodeConflict, localapi.CodeNotInstalled, localapi.CodeTooOld, localapi.CodeDeploy:
		return true
	}
	return false
}
