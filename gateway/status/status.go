// Package status is how gateways put into status what they have to say: conditions that
// keep the time of their last change, and patches, when they are worth a write. What is
// said is for others.
package status

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	podnet "podnet.dev/api/v1alpha1"
)

// Stale reports whether a published expiry lags behind the true one by half a
// lease: a client renews every third, so every other renewal is written.
func Stale(published *metav1.Time, deadline time.Time, length time.Duration) bool {
	return published == nil || deadline.Sub(published.Time) > length/2
}

// Condition is a condition of that type, and whether it is there already.
func Condition(have []metav1.Condition, kind string, holds bool, reason, message string, now time.Time) (metav1.Condition, bool) {
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

// Patch is an apply patch for an object's status. With the UID in it the API server refuses to
// write into another object of the same name.
func Patch(kind string, o metav1.Object, fields map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": podnet.GroupVersion.String(), "kind": kind,
		"metadata": map[string]any{"name": o.GetName(), "namespace": o.GetNamespace(), "uid": string(o.GetUID())},
		"status":   fields,
	}}
}

// Plain makes of an API struct what an unstructured object holds.
func Plain[T any](v T) map[string]any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v)
	if err != nil {
		panic(fmt.Sprintf("convert %T: %v", v, err)) // our own types, all plain fields
	}
	return m
}

// List makes a list of such.
func List[T any](all []T) []any {
	list := make([]any, len(all))
	for i, v := range all {
		list[i] = Plain(v)
	}
	return list
}
