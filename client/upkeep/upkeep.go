// Package upkeep is what the keepers of a session's objects have in common: the
// loop that drives their pure states, and what it means that they do not go on: a no, a
// failure, or the end of a lease.
package upkeep

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// Refusals are a gateway's reasons, in conditions, for which waiting for another word of
// it is in vain, and what to say to a user then.
type Refusals map[string]struct{ Code, Hint string }

// Of gives the error that begins with text where the condition of a kind is a no for one
// of the reasons, else nil.
func (r Refusals) Of(conditions []metav1.Condition, kind, text string) error {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil || c.Status != metav1.ConditionFalse {
		return nil
	}
	why, is := r[c.Reason]
	if !is {
		return nil
	}
	return &localapi.Error{Code: why.Code, Message: text + ": " + c.Message, Hint: why.Hint}
}

// Over reports whether a lease is over that was renewed last at a time. Leases go on while
// the laptop sleeps, when the monotonic clock stands still: the wall clock says how long it
// has been.
func Over(lease time.Duration, renewed, now time.Time) bool {
	return now.Round(0).Sub(renewed.Round(0)) >= lease
}

// IsNo tells a no, which will not change by itself, from a failure to ask.
func IsNo(err error) bool {
	switch httpjson.FromError(err).Code {
	case localapi.CodeForbidden, localapi.CodeCredentials, localapi.CodeUsage, localapi.CodeConflict, localapi.CodeNotInstalled, localapi.CodeTooOld, localapi.CodeDeploy:
		return true
	}
	return false
}
