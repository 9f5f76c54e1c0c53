package keep

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
)

// TestPatience is what a leader says of an agent that is missing.
func TestPatience(t *testing.T) {
	o := &podnet.SteeringRule{}
	missing := agentView{reason: podnet.ReasonAgentMissing, message: "gone", doubted: true}
	if v := missing.patient(o, 0); !reflect.DeepEqual(v, missing) {
		t.Errorf("it was never there: %+v", v)
	}
	agent := key.Public{7}
	o.Status.Agent = &podnet.SteeringAgent{PublicKey: agent.String(), Generation: 3}
	o.Status.Conditions = []metav1.Condition{{Type: podnet.ConditionAgentReady, Status: metav1.ConditionTrue, Reason: podnet.ReasonInForce, Message: "here"}}
	for after, want := range map[time.Duration]struct {
		ready      bool
		generation int64
	}{
		0: {true, 3}, askAfter - 1: {true, 3}, askAfter: {true, 0}, missingAfter - 1: {true, 0}, missingAfter: {false, 0},
	} {
		v := missing.patient(o, after)
		if v.ready != want.ready || v.key.IsZero() == want.ready || v.generation != want.generation || want.ready && v.message != "here" {
			t.Errorf("after %v: %+v", after, v)
		}
	}
	missing.key, missing.generation = key.Public{8}, 4 // one that is connected, and has yet to say what is in force
	if v := missing.patient(o, askAfter); !v.ready || v.key != missing.key || v.generation != 4 {
		t.Errorf("one that has come: %+v", v)
	}
}

// TestWhoIsAWitness: a gateway that runs, about an agent of the pod.
func TestWhoIsAWitness(t *testing.T) {
	agent := key.Public{7}
	o := &podnet.SteeringRule{}
	o.Status.Witnesses = []podnet.SteeringWitness{{Pod: "g-2", PodUID: "u2", PublicKey: agent.String()}, {Pod: "g-1", PodUID: "u1", PublicKey: agent.String()}}
	for _, c := range []struct {
		what   string
		runs   map[string]string
		agents []key.Public
		want   string
	}{
		{"both run", map[string]string{"g-0": "u0", "g-1": "u1", "g-2": "u2"}, []key.Public{agent}, "g-1"},
		{"one has gone", map[string]string{"g-0": "u0", "g-2": "u2"}, []key.Public{agent}, "g-2"},
		{"one is another pod now", map[string]string{"g-1": "new", "g-2": "u2"}, []key.Public{{9}, agent}, "g-2"},
		{"nobody knows who runs", nil, []key.Public{agent}, "g-1"},
		{"both have gone", map[string]string{"g-0": "u0"}, []key.Public{agent}, ""},
		{"another agent", nil, []key.Public{{9}}, ""},
	} {
		got := ""
		if w := witness(world.Snapshot{Gateways: c.runs}, o, c.agents); w != nil {
			got = w.Pod
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
