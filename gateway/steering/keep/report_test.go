package keep

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

func TestViewOfAnAgent(t *testing.T) {
	rule := steering.Object{Name: "r"}
	agent := &steering.Agent{Key: key.Public{7}, PodUID: "u", Chosen: true}
	good := steering.Report{PodUID: "u", Generation: 3, Sent: 3, InForce: map[string]bool{"r": true}, Counts: map[string]control.Counts{"r": {Matched: 1}}}
	late, other, troubled := good, good, good
	late.InForce, other.PodUID, troubled.Error = map[string]bool{"r": false}, "v", "nft: operation not permitted"
	for _, c := range []struct {
		what      string
		agent     *steering.Agent
		strange   string
		report    steering.Report
		connected bool
		reason    string
		known     bool // that there is an agent
	}{
		{"no key yet", nil, "", steering.Report{}, false, podnet.ReasonAgentMissing, false},
		{"not connected", agent, "", steering.Report{}, false, podnet.ReasonAgentMissing, false},
		{"in another pod", agent, "", other, true, podnet.ReasonAgentMissing, false},
		{"from elsewhere", agent, "192.0.2.1:5", good, true, podnet.ReasonAgentTrouble, false},
		{"in trouble", agent, "", troubled, true, podnet.ReasonAgentTrouble, true},
		{"not yet in force", agent, "", late, true, podnet.ReasonAgentMissing, true},
		{"in force", agent, "", good, true, podnet.ReasonInForce, true},
	} {
		v := viewOf(rule, c.agent, c.strange, c.report, c.connected)
		if v.reason != c.reason || v.ready != (c.reason == podnet.ReasonInForce) || v.key.IsZero() == c.known || v.message == "" {
			t.Errorf("%s: %+v", c.what, v)
		}
	}
}

// TestViewOfEgress: what an agent says of its troubles is about what it takes of
// the pod's traffic.
func TestViewOfEgress(t *testing.T) {
	agent := &steering.Agent{Key: key.Public{7}, PodUID: "u", Egress: []string{"r"}}
	report := steering.Report{PodUID: "u", Generation: 3, Sent: 3, InForce: map[string]bool{"r": true}, Error: "this agent redirects nothing"}
	if v := viewOf(steering.Object{Name: "r", Egress: true}, agent, "", report, true); !v.ready {
		t.Errorf("%+v", v)
	}
	report.InForce = nil
	if v := viewOf(steering.Object{Name: "r", Egress: true}, agent, "", report, true); v.ready {
		t.Errorf("%+v", v)
	}
}

// told is a rule whose status says what the patch says, and nothing else.
func told(t *testing.T, r *podnet.SteeringRule, u *unstructured.Unstructured) {
	t.Helper()
	if u == nil {
		t.Fatal("nothing to write")
	}
	text, err := json.Marshal(u.Object["status"])
	if err != nil {
		t.Fatal(err)
	}
	r.Status = podnet.SteeringRuleStatus{}
	if err := json.Unmarshal(text, &r.Status); err != nil {
		t.Fatal(err)
	}
}

var (
	then   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	leader = author{pod: "podnet-gateway-0", podUID: "u", leads: true, now: then}
)

func TestRuleStatusIsWrittenSparingly(t *testing.T) {
	const lease = 300 * time.Second
	r := &podnet.SteeringRule{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "shop", UID: "1"}, Spec: podnet.SteeringRuleSpec{Renew: 1}}
	v := steering.Verdict{Accepted: true, Reason: podnet.ReasonAccepted, Message: "It acts.", Renew: 1, Expires: then.Add(lease)}
	missing := agentView{reason: podnet.ReasonAgentMissing, message: "There is none."}
	other := leader
	if other.leads = false; other.rulePatch(r, v, missing, lease, true) != nil {
		t.Error("who does not lead writes")
	}
	told(t, r, leader.rulePatch(r, v, missing, lease, false))
	if s := r.Status; s.Agent != nil || len(s.Conditions) != 2 || !s.ExpiresAt.Time.Equal(v.Expires) {
		t.Errorf("status %+v", s)
	}
	if leader.rulePatch(r, v, missing, lease, true) != nil {
		t.Error("what is there is written again")
	}

	there := agentView{key: key.Public{7}, generation: 3, ready: true, reason: podnet.ReasonInForce, message: "It has it."}
	told(t, r, leader.rulePatch(r, v, there, lease, false))
	there.counts, there.counted, there.generation = control.Counts{Matched: 5, Passed: 9}, true, 4
	if leader.rulePatch(r, v, there, lease, false) != nil {
		t.Error("counts are written before they are due")
	}
	told(t, r, leader.rulePatch(r, v, there, lease, true))
	if s := r.Status; s.Matched != 5 || s.Passed != 9 || s.Agent.Generation != 4 {
		t.Errorf("status %+v", s)
	}
	told(t, r, leader.rulePatch(r, v, missing, lease, false))
	if s := r.Status; s.Agent != nil || s.Matched != 5 || s.Passed != 9 {
		t.Errorf("without its agent: status %+v", s)
	}

	v.Renew, v.Expires = 2, v.Expires.Add(100*time.Second)
	if leader.rulePatch(r, v, missing, lease, true) != nil {
		t.Error("each renewal is written")
	}
	v.Renew, v.Expires = 3, v.Expires.Add(100*time.Second)
	told(t, r, leader.rulePatch(r, v, missing, lease, true))
	if s := r.Status; s.ObservedRenew != 3 || !s.ExpiresAt.Time.Equal(v.Expires) {
		t.Errorf("status %+v", s)
	}
	told(t, r, leader.rulePatch(r, steering.Verdict{Reason: podnet.ReasonExpired, Message: "Over.", Renew: 3}, agentView{}, lease, false))
	r.Spec.Renew = 3
	if s := r.Status; len(s.Conditions) != 1 || s.ExpiresAt == nil || !world.RuleOf(r).Ended {
		t.Errorf("after the end: status %+v", s)
	}
	if leader.rulePatch(r, steering.Verdict{Reason: podnet.ReasonExpired, Message: "Over.", Renew: 3}, agentView{}, lease, true) != nil {
		t.Error("the end is written again")
	}
}
