package gateway

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
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
