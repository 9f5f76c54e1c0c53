package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/transport"
)

// The keeper's half that keeps the lease; the right column of its drawing.

const (
	// sureTime is how long a no has to stand before it ends a session, sureEvery
	// how often it is asked for meanwhile. An API server that has just started
	// says no to everybody, and knows no Peer, until it has read its own rules.
	// The gateway cuts whoever has to go without asking us.
	sureTime  = 8 * time.Second
	sureEvery = 2 * time.Second
	// frozenMax is how long gateways keep peers while the API server is away
	// (gateway/enrol.FrozenLimit).
	frozenMax = 60 * time.Minute
)

// leaseOver says whether the gateway may have forgotten us, by our own clock.
func (k *keeper) leaseOver() bool { return k.uptime()-k.renewed >= k.leaseTime() }

// startRenew renews the lease, or goes on with enrolling again.
func (k *keeper) startRenew() {
	if k.enrol.why != "" {
		k.startEnrol()
		return
	}
	k.renewal++
	m, g, n := k.member, k.member.grant, k.renewal
	begun, over, doubt := k.uptime(), k.leaseOver(), k.doubt != nil
	k.tried = begun
	k.jobs.start("renew", func(ctx context.Context) outcome {
		was := false
		if over || doubt { // frozen, or cut? The gateway knows
			before, err := k.cluster.Peer(ctx, g.Namespace, g.Peer)
			was = err == nil && expired(before)
		}
		lost, err := k.objects.renew(ctx, g, n)
		var p *v1alpha1.Peer
		if err == nil {
			p, _ = k.cluster.Peer(ctx, g.Namespace, g.Peer) // else the next time
		}
		return outcome{apply: func() error {
			if m != k.member {
				return nil
			}
			return k.answered(renewal{begun, over, was, lost, p}, err)
		}}
	})
}

// renewal is what came of an attempt to renew.
type renewal struct {
	begun   time.Duration
	over    bool // the lease was, by our clock
	expired bool // and the gateway had cut us
	lost    map[string]error
	peer    *v1alpha1.Peer // nil: it could not be read
}

// answered takes over what came of a renewal.
func (k *keeper) answered(r renewal, err error) error {
	gone := errors.Is(err, cluster.ErrGone)
	for _, why := range r.lost {
		gone = gone || errors.Is(why, cluster.ErrGone)
	}
	no := err != nil && isOver(err) || len(r.lost) > 0
	if !no {
		k.refused, k.meant = time.Time{}, false
	}
	switch {
	case no && !(gone && r.over && !k.meant && k.failing.IsZero()) && !k.believes(r.over):
		return nil
	case gone && r.over && !k.meant:
		k.again("the lease is over")
		return nil
	case err != nil && isOver(err):
		return &EndedError{"the session was ended", err}
	}
	for _, ns := range slices.Clone(k.member.Accesses) {
		if why := r.lost[ns]; why != nil {
			k.member.Accesses = slices.DeleteFunc(slices.Clone(k.member.Accesses), func(o string) bool { return o == ns })
			if len(k.member.Accesses) == 0 {
				return &EndedError{"access to " + k.opened(ns) + " ended", why}
			}
			k.lost(ns, why)
		}
	}
	if err != nil {
		k.trouble(err, r.begun)
		return nil
	}
	k.renewed, k.failing = r.begun, time.Time{}
	k.leaseHeld(time.Now())
	if k.steering != nil {
		k.steering.Renew()
	}
	if k.exposing != nil {
		k.exposing.Renew()
	}
	k.clear("lease", "the lease is renewed again")
	k.renew.Reset(jitter(k.leaseTime() / 3))
	if r.expired { // no path, no handshake and no flow is good any more
		k.stale = true
		k.link.remote().Rouse()
		k.reset(k.hosted.own)
		k.tell(localapi.Event{Type: localapi.EventLease, Text: "the lease was over and is held again; flows that were open end"})
	}
	if r.peer != nil {
		k.fresh(r.peer)
	}
	k.mu.Lock()
	unknown := k.outlook.refused != nil // where we are
	k.mu.Unlock()
	if unknown {
		k.lookAround(true)
	}
	return nil
}

// believes reports whether a no of the API server is to be believed. If it is
// not yet, it will be asked again. over says that the lease was.
func (k *keeper) believes(over bool) bool {
	if k.refused.IsZero() {
		k.refused, k.meant = time.Now(), !over
	}
	if time.Since(k.refused) >= sureTime {
		return true
	}
	k.renew.Reset(sureEvery)
	return false
}

func (k *keeper) opened(ns string) string {
	if k.Request.AllNamespaces {
		return "the cluster"
	}
	return "namespace " + ns
}

// lost takes a namespace out of the session.
func (k *keeper) lost(ns string, why error) {
	k.set(func(c *localapi.Connection) {
		c.Namespaces = slices.DeleteFunc(slices.Clone(c.Namespaces), func(o string) bool { return o == ns })
		if c.Namespace == ns && len(c.Namespaces) > 0 {
			c.Namespace = c.Namespaces[0]
		}
		k.names.current, k.names.namespaces = c.Namespace, slices.Clone(c.Namespaces)
	})
	k.warn(localapi.Warning{Code: "access-" + ns, Severity: "high", Text: "access to namespace " + ns + " ended: " + why.Error()})
	if err := k.setNames(k.jobs.ctx, k.hosted); err != nil {
		k.warnDNS("the host's resolver keeps names of namespace " + ns + ": " + err.Error())
	}
}

// trouble notes that the lease could not be renewed when that was begun.
func (k *keeper) trouble(err error, begun time.Duration) {
	if k.failing.IsZero() {
		k.failing = time.Now()
	}
	k.why = err
	var away *cluster.UnreachableError
	if errors.As(err, &away) {
		k.cluster.Redial()
	}
	k.retry(begun, retryEvery)
	k.tellTrouble(k.link.remote().Status())
}

// tellTrouble says what follows from a lease that cannot be renewed.
func (k *keeper) tellTrouble(st transport.GatewayStatus) {
	if k.failing.IsZero() || k.enrol.why != "" {
		return
	}
	held := time.Now().Add(k.renewed - k.uptime()) // when it was renewed, by today's clock
	end, last, since := held.Add(k.leaseTime()), held.Add(frozenMax), clockTime(k.failing)
	live, over := st.Active.Kind != "", k.leaseOver()
	w := localapi.Warning{Code: "lease", Severity: "medium", Text: "the lease could not be renewed: " + k.why.Error(), Hint: hint(k.why)}
	var away *cluster.UnreachableError
	unreachable := errors.As(k.why, &away)
	frozen := unreachable && live && over // a gateway that did not keep us would not answer
	switch {
	case frozen:
		end = last
		w.Text = fmt.Sprintf("%v, since %s: the gateway keeps the session until %s at the latest", k.why, since, clockTime(last))
	case unreachable:
		w.Text = fmt.Sprintf("%v, since %s: the session goes on until %s, or until %s if the gateway cannot reach it either", k.why, since, clockTime(end), clockTime(last))
	}
	if !live || over && !frozen {
		w.Severity = "high"
	}
	k.warn(w)
	k.set(func(c *localapi.Connection) {
		c.Lease.Error, c.Lease.ExpiresAt, c.Lease.Frozen = k.why.Error(), &end, frozen
	})
}

func clockTime(t time.Time) string { return t.Format("15:04:05") }
