package status

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
)

// A condition keeps the time of its last change, whatever it says of the reason.
func TestConditionKeepsItsTime(t *testing.T) {
	then := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	said, same := Condition(nil, podnet.ConditionReady, true, "Admitted", "The peer may connect.", then)
	if same || said.Status != metav1.ConditionTrue || !said.LastTransitionTime.Time.Equal(then) {
		t.Errorf("%+v, there already: %v", said, same)
	}
	have := []metav1.Condition{said}
	if again, same := Condition(have, podnet.ConditionReady, true, "Admitted", "The peer may connect.", then.Add(time.Hour)); !same || again != said {
		t.Errorf("%+v, there already: %v", again, same)
	}
	if other, same := Condition(have, podnet.ConditionReady, true, "Admitted", "Over IPv6 only.", then.Add(time.Hour)); same || !other.LastTransitionTime.Equal(&said.LastTransitionTime) {
		t.Errorf("%+v, there already: %v", other, same)
	}
	if over, same := Condition(have, podnet.ConditionReady, false, "Expired", "Over.", then.Add(time.Hour)); same || !over.LastTransitionTime.Time.Equal(then.Add(time.Hour)) {
		t.Errorf("%+v, there already: %v", over, same)
	}
}

// Every other renewal of a client that renews each third of its lease is written.
func TestStale(t *testing.T) {
	const lease = 300 * time.Second
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	published := metav1.NewTime(now)
	for after, want := range map[time.Duration]bool{0: false, lease / 3: false, 2 * lease / 3: true} {
		if got := Stale(&published, now.Add(after), lease); got != want {
			t.Errorf("%v later: %v", after, got)
		}
	}
	if !Stale(nil, now, lease) {
		t.Error("nothing is published, and it is not written")
	}
}
