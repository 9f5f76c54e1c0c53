package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"podnet.dev/client/cluster"
)

// due are the exports that are to be renewed.
func (x *Exports) due(now time.Time) []*exported {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(x.held), func(e *exported) bool { return e.cluster == nil || now.Before(e.next) })
}

// renew prolongs an export with live credentials, or ends it when these do not do
// any more. A no counts when it was said twice: an API server that starts says no to
// everybody for a moment.
func (x *Exports) renew(ctx context.Context, e *exported) {
	ctx, cancel := context.WithTimeout(ctx, exportTime)
	defer cancel()
	x.mu.Lock()
	objects, g := e.objects(x.Log), e.grant
	x.mu.Unlock()
	begun := time.Now()
	p, err := objects.cluster.Peer(ctx, g.Namespace, g.Peer)
	var lost map[string]error
	if err == nil {
		lost, err = objects.renew(ctx, g, p.Spec.Renew+1)
	}
	var away *cluster.UnreachableError
	switch {
	case errors.Is(err, cluster.ErrGone):
		x.drop(e, "it was deleted")
		return
	case errors.As(err, &away):
		objects.cluster.Redial()
	}
	left := slices.DeleteFunc(slices.Clone(g.Accesses), func(ns string) bool { return lost[ns] != nil })
	no := err
	for _, ns := range g.Accesses {
		if no == nil {
			no = lost[ns]
		}
	}
	believed := x.believe(e, no)
	switch {
	case believed && (err != nil || len(left) == 0):
		if err := objects.leave(ctx, g); err != nil {
			x.Log.Info("an export stays until its lease ends", "peer", g.Peer, "err", err)
		}
		x.drop(e, no.Error())
	case no != nil && !believed:
		x.mu.Lock()
		e.text, e.hint, e.next = "it could not be renewed: "+no.Error(), hint(no), begun.Add(exportRetry)
		x.mu.Unlock()
		x.Log.Info("export not renewed", "peer", g.Peer, "err", no)
	default:
		for ns := range lost { // else it would count until its long lease ends
			if err := objects.cluster.DeleteAccess(ctx, ns, g.Peer); err != nil {
				x.Log.Info("an access stays until its lease ends", "peer", g.Peer, "namespaces", ns, "err", err)
			}
		}
		x.mu.Lock()
		e.Accesses, e.Renewed, e.next = left, begun, begun.Add(exportRenewal(e.lease()))
		x.noteLocked()
		x.mu.Unlock()
		x.look(ctx, e)
	}
}

// believe notes an answer, and reports whether it is the second no in a row.
func (x *Exports) believe(e *exported, answer error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	no := answer != nil && isOver(answer)
	was := e.refused
	e.refused = no
	return no && was
}

// look reads how the gateway sees an export.
func (x *Exports) look(ctx context.Context, e *exported) {
	x.mu.Lock()
	c := e.cluster
	x.mu.Unlock()
	p, err := c.Peer(ctx, e.Namespace, e.Peer)
	if errors.Is(err, cluster.ErrGone) {
		x.drop(e, "it was deleted")
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		e.text, e.hint = err.Error(), hint(err)
		return
	}
	e.text, e.hint = exportTrouble(p, e.Peer, e.Gateway, e.GatewayKey)
}
