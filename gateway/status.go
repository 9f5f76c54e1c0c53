package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/virtual"
)

// This file decides what to write into status, and when it is worth a write.
// Status is applied server-side by two managers: each gateway pod owns its own
// entry in gateways[], and the leading gateway owns the rest under one name
// that passes from leader to leader.

// sharedManager owns what the leading gateway writes.
const sharedManager = "podnet-gateway"

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
		return statusPatch("Peer", p, map[string]any{}) // gives up the entry
	case have >= 0 && sameEntry(p.Status.Gateways[have], a.entry):
		return nil
	}
	return statusPatch("Peer", p, map[string]any{"gateways": []any{plain(a.entry)}})
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
		v.Ready && (s.Address4 != addr(v.Address4) || s.Network == nil || !sameNetwork(*s.Network, a.network)),
		v.Ready && stale(s.ExpiresAt, v.Expires, time.Duration(p.Spec.LeaseSeconds)*time.Second),
		v.Reason == podnet.ReasonExpired && s.ObservedRenew != v.Renew:
	default:
		return nil
	}
	conditions := []any{plain(ready)}
	if mapped != nil {
		conditions = append(conditions, plain(*mapped))
	}
	status := map[string]any{"observedRenew": v.Renew, "conditions": conditions}
	if v.Ready {
		if pairs := a.maps[string(p.UID)].Told(); pairs != nil {
			status["virtual"] = plainList(pairs)
		}
		if v.Address4.IsValid() {
			status["address4"] = addr(v.Address4)
		}
		status["address6"] = address6(p)
		status["network"] = plain(a.network)
		status["expiresAt"] = v.Expires.UTC().Format(time.RFC3339)
	} else if s.ExpiresAt != nil {
		status["expiresAt"] = s.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return statusPatch("Peer", p, status)
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
	c, same := condition(s.Conditions, podnet.ConditionVirtual, m.Refused == "", reason, message, a.now)
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
	return statusPatch("Access", o, map[string]any{"observedRenew": v.Renew, "conditions": []any{plain(ready)}})
}

// stale reports whether a published expiry lags behind the true one by half a
// lease: a client renews every third, so every other renewal is written.
func stale(published *metav1.Time, deadline time.Time, length time.Duration) bool {
	return published == nil || deadline.Sub(published.Time) > length/2
}

// readiness is the Ready condition for a verdict, and whether it is there
// already.
func readiness(have []metav1.Condition, v enrol.Verdict, now time.Time) (metav1.Condition, bool) {
	return condition(have, podnet.ConditionReady, v.Ready, v.Reason, v.Message, now)
}

// condition is a condition of that type, and whether it is there already.
func condition(have []metav1.Condition, kind string, holds bool, reason, message string, now time.Time) (metav1.Condition, bool) {
	want := metav1.Condition{
		Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now.UTC().Truncate(time.Second)),
	}
	if holds {
		want.Status = metav1.ConditionTrue
	}
	old := meta.FindStatusCondition(have, kind)
	if old == nil || old.Status != want.Status {
		return want, false
	}
	want.LastTransitionTime = old.LastTransitionTime
	return want, old.Reason == want.Reason && old.Message == want.Message
}

// statusPatch is an apply patch. With the UID in it the API server refuses to
// write into another object of the same name.
func statusPatch(kind string, o metav1.Object, status map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": podnet.GroupVersion.String(), "kind": kind,
		"metadata": map[string]any{"name": o.GetName(), "namespace": o.GetNamespace(), "uid": string(o.GetUID())},
		"status":   status,
	}}
}

// plain makes of an API struct what an unstructured object holds.
func plain(v any) map[string]any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(ptrTo(v))
	if err != nil {
		panic(fmt.Sprintf("convert %T: %v", v, err)) // our own types, all plain fields
	}
	return m
}

func plainList(pairs []podnet.VirtualPrefix) []any {
	all := make([]any, len(pairs))
	for i, p := range pairs {
		all[i] = plain(p)
	}
	return all
}

func ptrTo(v any) any {
	switch v := v.(type) {
	case podnet.Gateway:
		return &v
	case podnet.Network:
		return &v
	case podnet.VirtualPrefix:
		return &v
	case metav1.Condition:
		return &v
	case podnet.SteeringWitness:
		return &v
	}
	return v
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func address6(p *podnet.Peer) string { return peerOf(p).Key.Address6().String() }
