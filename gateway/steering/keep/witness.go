package keep

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/status"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// This file is about agents that the leading gateway does not hear. An agent goes
// to every gateway, and the leader tells of it in the status of rules. But one that
// has just begun is not found by agents yet, and one that the network keeps from a
// pod never is, while requests go to the laptop through another gateway. So the
// leader waits a little, and asks, before it says that an agent is missing:
//
//	in force, generation --> in force, none --> not in force
//	          ^                 |     ^              |
//	          +- it hears it <--+     +- a witness --+
//
// A status without the generation of an agent is the question. A gateway that has
// the rule in force answers by an entry of its own, and takes it back when the
// leader tells a generation, or when it has the agent no more.
const (
	// askAfter is how long an agent is missing before the leader asks. Agents
	// find a gateway that has begun anew sooner, as a rule.
	askAfter = 2 * time.Second
	// answerAfter is how long a status may lack a generation before others speak:
	// the leader hears most agents at the same time as they do.
	answerAfter = time.Second
	// missingAfter is how long an agent is missing, and nobody has it, before the
	// leader says so.
	missingAfter = 6 * time.Second
)

// witness is the gateway that says of a rule that one of these agents has it in
// force, and runs; nil: none does.
func witness(s world.Snapshot, o *podnet.SteeringRule, agents []key.Public) *podnet.SteeringWitness {
	byName := slices.SortedFunc(slices.Values(o.Status.Witnesses), func(a, b podnet.SteeringWitness) int { return cmp.Compare(a.Pod, b.Pod) })
	for _, w := range byName {
		k, err := key.ParsePublic(w.PublicKey)
		gone := s.Gateways != nil && s.Gateways[w.Pod] != w.PodUID
		if err == nil && !gone && slices.Contains(agents, k) {
			return &w
		}
	}
	return nil
}

// asked reports whether the leader does not hear the agent of a rule.
func asked(o *podnet.SteeringRule) bool {
	return o.Status.Agent == nil || o.Status.Agent.Generation == 0
}

// heard is the view of an agent that only a witness has.
func heard(w *podnet.SteeringWitness) agentView {
	agent, _ := key.ParsePublic(w.PublicKey)
	return agentView{
		key: agent, ready: true, reason: podnet.ReasonInForce, message: "The agent has the rule in force, as " + w.Pod + " says.",
		counts: control.Counts{Matched: w.Matched, Failed: w.Failed, Passed: w.Passed}, counted: true,
	}
}

// saysReady reports whether a status says that the rule is in force.
func saysReady(o *podnet.SteeringRule) bool {
	return meta.IsStatusConditionTrue(o.Status.Conditions, podnet.ConditionAgentReady)
}

// patient is the view of an agent that has been in doubt for a while, of which the
// status says that it is ready: that stays, but for the generation once others are
// asked.
func (v agentView) patient(o *podnet.SteeringRule, doubted time.Duration) agentView {
	c := meta.FindStatusCondition(o.Status.Conditions, podnet.ConditionAgentReady)
	if doubted >= missingAfter || c == nil {
		return v
	}
	v.ready, v.reason, v.message = true, c.Reason, c.Message
	if agent := o.Status.Agent; agent != nil && v.key.IsZero() {
		v.key, _ = key.ParsePublic(agent.PublicKey)
		if doubted < askAfter {
			v.generation = agent.Generation
		}
	}
	return v
}

// witnessPatch is the apply patch for this gateway's own entry in a rule's status,
// or nil when it is there already as it should be. Counts alone are worth a write
// when they are due.
func (a author) witnessPatch(o *podnet.SteeringRule, agent agentView, speaks, due bool) *unstructured.Unstructured {
	i := slices.IndexFunc(o.Status.Witnesses, func(w podnet.SteeringWitness) bool { return w.Pod == a.pod })
	if !speaks {
		if i < 0 {
			return nil
		}
		return status.Patch("SteeringRule", o, map[string]any{}) // gives up the entry
	}
	want := podnet.SteeringWitness{
		Pod: a.pod, PodUID: a.podUID, PublicKey: agent.key.String(),
		Matched: agent.counts.Matched, Failed: agent.counts.Failed, Passed: agent.counts.Passed,
	}
	if i >= 0 {
		have := o.Status.Witnesses[i]
		if !due {
			have.Matched, have.Failed, have.Passed = want.Matched, want.Failed, want.Passed
		}
		if have == want {
			return nil
		}
	}
	return status.Patch("SteeringRule", o, map[string]any{"witnesses": []any{status.Plain(want)}})
}
