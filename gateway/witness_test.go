package gateway

import (
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// TestAWitnessSpeaks: an agent that only the other gateway hears, one that both
// hear, and a leader that goes: what the status says of it stays true.
func TestAWitnessSpeaks(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	s.mayWork()
	first, stopFirst := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	second, _ := s.start("podnet-gateway-1")
	l.await("knows both", func(p *podnet.Peer) bool { return len(p.Status.Gateways) == 2 })

	far := s.agent(second)
	own := far.secret.Public()
	s.steer(steerRule("web-tcp", "web-0", "laptop", "tcp", 20000, own))
	s.awaitRule("web-tcp", "waits for its agent", ready(podnet.ReasonAgentMissing))
	if err := far.attend(second, "uid-web-0"); err != nil {
		t.Fatal(err)
	}
	far.counts.Store(&control.Counts{Matched: 7})
	var since metav1.Time
	s.awaitRule("web-tcp", "is in force, as the second gateway says", func(st podnet.SteeringRuleStatus) bool {
		if !ready(podnet.ReasonInForce)(st) {
			return false
		}
		since = meta.FindStatusCondition(st.Conditions, podnet.ConditionAgentReady).LastTransitionTime
		return st.Agent != nil && st.Agent.PublicKey == own.String() && st.Agent.Generation == 0 && len(st.Witnesses) == 1 && st.Witnesses[0].Pod == "podnet-gateway-1" && st.Witnesses[0].PublicKey == own.String()
	})
	s.awaitRule("web-tcp", "has the counts of the second gateway", func(st podnet.SteeringRuleStatus) bool { return st.Matched == 7 })

	near := s.agentOf(far.secret, first)
	if err := near.attend(first, "uid-web-0"); err != nil {
		t.Fatal(err)
	}
	stays := func(st podnet.SteeringRuleStatus) bool {
		c := meta.FindStatusCondition(st.Conditions, podnet.ConditionAgentReady)
		return ready(podnet.ReasonInForce)(st) && c.LastTransitionTime.Equal(&since)
	}
	s.awaitRule("web-tcp", "is the leader's own knowledge", func(st podnet.SteeringRuleStatus) bool {
		return stays(st) && st.Agent != nil && st.Agent.PublicKey == own.String() && st.Agent.Generation > 0 && len(st.Witnesses) == 0
	})
	before := s.ruleStatus("web-tcp").Agent.Generation
	stopFirst()
	s.awaitRule("web-tcp", "is in force, as the new leader knows", func(st podnet.SteeringRuleStatus) bool {
		return stays(st) && st.Agent != nil && st.Agent.Generation > 0 && st.Agent.Generation != before
	})
}

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
