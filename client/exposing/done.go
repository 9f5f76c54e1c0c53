package exposing

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/upkeep"
)

var errRevoked = &localapi.Error{Code: localapi.CodeEnded, Message: "somebody has deleted the exposure in the cluster",
	Hint: "podnet expose list --all-owners shows who exposes what"}

// troubled notes that something did not work. A no ends an exposure that was never
// ready.
func (e *exposure) troubled(now time.Time, err error) {
	e.err, e.retry = err, now.Add(again)
	if upkeep.IsNo(err) {
		e.retry = now.Add(muchLater)
		if !e.settled {
			e.fail(err)
		}
	}
}

// fail ends an exposure for a reason.
func (e *exposure) fail(err error) {
	if !e.stopping {
		e.failed = err
	}
	e.stop()
}

// stop ends an exposure, whatever it was waiting for.
func (e *exposure) stop() {
	if !e.stopping {
		e.stopping, e.retry = true, time.Time{}
	}
}

func (e *exposure) well() { e.err, e.retry = nil, time.Time{} }

// created takes over what came of writing the object at the time begun.
func (e *exposure) created(o *v1alpha1.Exposure, begun, now time.Time, err error) {
	if err != nil {
		e.troubled(now, err)
		return
	}
	e.well()
	e.object, e.since, e.renewed, e.renew, e.polled, e.due, e.led = o, now, begun, o.Spec.Renew, now, false, ""
}

// polled takes over what was read.
func (s *state) polled(e *exposure, o *v1alpha1.Exposure, now time.Time, err error) {
	e.polled = now
	switch {
	case errors.Is(err, cluster.ErrGone):
		s.lost(e, now)
	case err != nil:
		e.troubled(now, err)
	case o.UID != e.object.UID:
		s.lost(e, now)
	default:
		e.well()
		e.object, e.renew = o, max(e.renew, o.Spec.Renew)
		if err := refusal(o); err != nil && !e.settled {
			e.fail(err)
		}
	}
}

// lost decides what it means that the API does not have the object: its lease was
// over, or somebody deleted it.
func (s *state) lost(e *exposure, now time.Time) {
	e.object, e.led, e.due = nil, "", false
	if !upkeep.Over(s.lease, e.renewed, now) {
		e.fail(errRevoked)
	}
}

// pointedTo takes over what came of having the Service lead to host.
func (e *exposure) pointedTo(host string, now time.Time, err error) {
	if err != nil {
		e.led = ""
		e.troubled(now, err)
		return
	}
	e.well()
	e.led, e.pointed = host, now
}

// renewed takes over a renewal that was begun at a time.
func (s *state) renewed(e *exposure, begun, now time.Time, err error) {
	switch {
	case err == nil:
		e.well()
		e.due, e.renewed = false, begun
	case errors.Is(err, cluster.ErrGone):
		s.lost(e, now)
	default:
		e.troubled(now, err)
	}
}

// deleted takes over what came of deleting the object. Who may not delete it waits
// for its lease to end.
func (e *exposure) deleted(now time.Time, err error) {
	if err != nil && !upkeep.IsNo(err) {
		e.err, e.retry = err, now.Add(again)
		return
	}
	e.well()
	e.object, e.led = nil, ""
}

var refusals = upkeep.Refusals{
	v1alpha1.ReasonLimitReached:  {Code: localapi.CodeForbidden, Hint: "podnet expose list shows yours; podnet expose stop ends one"},
	v1alpha1.ReasonInvalid:       {Code: localapi.CodeUsage, Hint: "podnet expose --help"},
	v1alpha1.ReasonPolicyMissing: {Code: localapi.CodeForbidden, Hint: "an administrator puts the admission policies back with podnet install"},
}

// refusal is the gateway's no.
func refusal(o *v1alpha1.Exposure) error {
	return refusals.Of(o.Status.Conditions, v1alpha1.ConditionReady, "the gateway does not admit the exposure")
}

// inTheWay judges an exposure that has the name already: nil says that it is a
// leftover of ours, which nobody renews any more.
func inTheWay(o *v1alpha1.Exposure, user string) error {
	e := &localapi.Error{Code: localapi.CodeConflict, Status: http.StatusConflict,
		Message: fmt.Sprintf("%s exposes %s in namespace %s already", o.Spec.User, o.Name, o.Namespace), Hint: "agree with them, or choose another name by --as"}
	if o.Spec.User != user {
		return e
	}
	ready := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
	if ready != nil && (ready.Reason == v1alpha1.ReasonExpired || ready.Reason == v1alpha1.ReasonPeerMissing) {
		return nil
	}
	e.Message = fmt.Sprintf("another session of yours exposes %s in namespace %s already", o.Name, o.Namespace)
	e.Hint = fmt.Sprintf("podnet expose stop %s there, or kubectl -n %s delete exposure %s", o.Name, o.Namespace, o.Name)
	return e
}
