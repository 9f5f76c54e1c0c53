package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

// enrolment is the state of enrolling again.
type enrolment struct {
	why   string        // "": there is no need
	pause time.Duration // until the next attempt
	// last is when one succeeded, on the clock of uptime.
	last time.Duration
}

// again enrols with a new key. The host keeps its routes meanwhile: what is for
// the cluster must not leave by the default route.
func (k *keeper) again(why string) {
	if k.enrol.why != "" || k.enrol.last > 0 && k.uptime()-k.enrol.last < enrolMax {
		return
	}
	k.enrol.why, k.enrol.pause = why, enrolMin
	k.tell(localapi.Event{Type: localapi.EventLease, Text: why + ": enrolling again with a new key"})
	k.startEnrol()
}

func (k *keeper) startEnrol() {
	old, chosen := k.member.grant, k.chosen
	begun := k.uptime()
	k.tried = begun
	k.jobs.start("enrol", func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, admitTime)
		defer cancel()
		// The old objects count against the user's limit.
		if err := k.objects.leave(ctx, old); err != nil {
			k.Log.Info("leftover stays until its lease ends", "peer", old.Peer, "err", err)
		}
		m, refused, err := k.objects.apply(ctx, old.Accesses)
		if err == nil {
			err = k.objects.await(ctx, m)
		}
		if err == nil {
			m, err = k.distinct(ctx, m)
		}
		if err == nil {
			err = k.objects.mapFor(ctx, m, chosen)
		}
		if err != nil && m != nil && !errors.Is(ctx.Err(), context.Canceled) {
			_ = k.objects.leave(context.WithoutCancel(ctx), m.grant) // else the undoing does
		}
		return outcome{apply: func() error { return k.enrolled(m, begun, refused, err) }}
	})
}

// enrolled is what an attempt to enrol again came to.
func (k *keeper) enrolled(m *member, begun time.Duration, refused map[string]error, err error) error {
	var forbidden *cluster.ForbiddenError
	switch {
	case errors.As(err, &forbidden) && !k.believes(true):
		return nil
	case errors.As(err, &forbidden):
		return &EndedError{k.enrol.why + ", and a new one was refused", err}
	case err != nil:
		var away *cluster.UnreachableError
		if errors.As(err, &away) {
			k.cluster.Redial()
		}
		k.set(func(c *localapi.Connection) { c.Lease.Error = err.Error() })
		k.warn(localapi.Warning{Code: "lease", Severity: "high", Text: fmt.Sprintf("%s, and enrolling again failed: %v", k.enrol.why, err), Hint: hint(err)})
		k.retry(begun, k.enrol.pause)
		k.enrol.pause = min(2*k.enrol.pause, enrolMax)
		return nil
	}
	why := k.enrol.why
	k.enrol = enrolment{last: k.uptime()}
	k.renewal, k.failing, k.refused, k.meant = 1, time.Time{}, time.Time{}, false
	k.joined(m, begun)
	k.renew.Reset(jitter(k.leaseTime() / 3))
	k.jobs.stop("find")
	k.jobs.stop("look")
	k.doubt = nil // look begins a new one: the gateway knows an old key
	k.set(func(c *localapi.Connection) { c.Reenrolled++ })
	k.clear("lease", "the lease is held again")
	for ns, err := range refused {
		k.lost(ns, err)
	}
	k.tell(localapi.Event{Type: localapi.EventReenrolled, Text: fmt.Sprintf("enrolled again as %s: %s; flows that were open end", m.Peer, why)})
	k.lookAround(false)
	return nil
}
