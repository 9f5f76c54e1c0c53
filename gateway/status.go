package gateway

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/status"
	"podnet.dev/gateway/virtual"
	"podnet.dev/gateway/world"
)

// This file decides what to write into status, and when it is worth a write.
// Status is applied server-side by two managers: each gateway pod owns its own
// entry in gateways[], and the leading gateway owns the rest as write.Shared.

// author knows what a gateway says about itself.
type author struct {
	entry   podnet.Gateway
	network podnet.Network
	maps    map[string]virtual.Mapping // by the Peers' UIDs, see mappings
	leads   bool
	now     time.Time
}

// entryPatch is the apply patch for this gateway's own entry in a Peer's
// status, or nil when it is there already as it should be.
func (a author) entryPatch(p *podnet.Peer, admitted bool) *unstructured.Unstructured {
	have := slices.IndexFunc(p.Status.Gateways, func(g podnet.Gateway) bool { return g.Pod == a.entry.Pod })
	switch {
	case have < 0 && (!admitted || a.entry.Draining): // nobody new is sent to a gateway that stops
		return nil
	case !admitted:
		return status.Patch("Peer", p, map[string]any{}) // gives up the entry
	case have >= 0 && sameEntry(p.Status.Gateways[have], a.entry):
		return nil
	}
	return status.Patch("Peer", p, map[string]any{"gateways": []any{status.Plain(a.entry)}})
}

func sameEntry(a, b podnet.Gateway) bool {
	return a.Pod == b.Pod && a.PodUID == b.PodUID && a.PublicKey == b.PublicKey && a.StreamPort == b.StreamPort && a.Version == b.Version &&
		a.NAT == b.NAT && a.Draining == b.Draining && slices.Equal(a.Endpoints, b.Endpoints) && slices.Equal(a.Candidates, b.Candidates) &&
		slices.Equal(a.ClusterEndpoints, b.ClusterEndpoints) && slices.Equal(a.Limits, b.Limits)
}

// elsewhere reports whether a Peer knows a gateway to go to when this one stops.
func (a author) elsewhere(p *podnet.Peer) bool {
	return slices.ContainsFunc(p.Status.Gateways, func(g podnet.Gateway) bool { return g.Pod != a.entry.Pod && !g.Draining })
}

// sharedPatch is the apply patch for the rest of a Peer's status, or nil when
// nothing is worth a write or another gateway leads.
func (a author) sharedPatch(p *podnet.Peer, v enrol.Verdict) *unstructured.Unstructured {
	if !a.leads || v.Pending {
		return nil
	}
	s := p.Status
	ready, same := readiness(s.Conditions, v, a.now)
	mapped, asMapped := a.virtual(p, v)
	switch {
	case !same, !asMapped,
		v.Ready && (s.Address4 != addr(v.Address4) || s.Network == nil || !world.SameNetwork(*s.Network, a.network)),
		v.Ready && status.Stale(s.ExpiresAt, v.Expires, time.Duration(p.Spec.LeaseSeconds)*time.Second),
		v.Reason == podnet.ReasonExpired && s.ObservedRenew != v.Renew:
	default:
		return nil
	}
	conditions := []any{status.Plain(ready)}
	if mapped != nil {
		conditions = append(conditions, status.Plain(*mapped))
	}
	fields := map[string]any{"observedRenew": v.Renew, "conditions": conditions}
	if v.Ready {
		if pairs := a.maps[string(p.UID)].Told(); pairs != nil {
			fields["virtual"] = status.List(pairs)
		}
		if v.Address4.IsValid() {
			fields["address4"] = addr(v.Address4)
		}
		fields["address6"] = address6(p)
		fields["network"] = status.Plain(a.network)
		fields["expiresAt"] = v.Expires.UTC().Format(time.RFC3339)
	} else if s.ExpiresAt != nil {
		fields["expiresAt"] = s.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return status.Patch("Peer", p, fields)
}

// virtual is the condition that tells what became of spec.virtual, nil when there
// is nothing to tell, and whether status says so already. One that is true says
// nothing of a generation, and so need not be written again with each renewal.
func (a author) virtual(p *podnet.Peer, v enrol.Verdict) (_ *metav1.Condition, same bool) {
	s := p.Status
	if !v.Ready || len(p.Spec.Virtual) == 0 {
		return nil, len(s.Virtual) == 0 && meta.FindStatusCondition(s.Conditions, podnet.ConditionVirtual) == nil
	}
	m := a.maps[string(p.UID)]
	reason, message, of := podnet.ReasonMapped, "Real and virtual addresses lead to the same.", int64(0)
	if m.Refused != "" {
		reason, message, of = podnet.ReasonNotMapped, m.Refused, p.Generation
	}
	c, same := status.Condition(s.Conditions, podnet.ConditionVirtual, m.Refused == "", reason, message, a.now)
	c.ObservedGeneration = of
	if old := meta.FindStatusCondition(s.Conditions, podnet.ConditionVirtual); old != nil {
		same = same && old.ObservedGeneration == of
	}
	return &c, same && slices.Equal(s.Virtual, m.Told())
}

// accessPatch is the same for an Access.
func (a author) accessPatch(o *podnet.Access, v enrol.Verdict) *unstructured.Unstructured {
	if !a.leads || v.Pending {
		return nil
	}
	ready, same := readiness(o.Status.Conditions, v, a.now)
	if same && (v.Reason != podnet.ReasonExpired || o.Status.ObservedRenew == v.Renew) {
		return nil
	}
	return status.Patch("Access", o, map[string]any{"observedRenew": v.Renew, "conditions": []any{status.Plain(ready)}})
}

// readiness is the Ready condition for a verdict, and whether it is there
// already.
func readiness(have []metav1.Condition, v enrol.Verdict, now time.Time) (metav1.Condition, bool) {
	return status.Condition(have, podnet.ConditionReady, v.Ready, v.Reason, v.Message, now)
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func address6(p *podnet.Peer) string { return world.PeerOf(p).Key.Address6().String() }
