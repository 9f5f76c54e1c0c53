package gateway

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// agentView is what there is to tell about the agent of an accepted rule.
type agentView struct {
	key             key.Public // zero: none is connected
	generation      int64
	ready           bool
	reason, message string
	counts          control.Counts
	counted         bool // the agent has told counts
}

// viewOf judges the agent of a rule: the one that is chosen for its pod, or that a
// rule of egress names. strange says where it sends from when that is not the pod.
func viewOf(rule steering.Object, agent *steering.Agent, strange string, report steering.Report, connected bool) agentView {
	v := agentView{reason: podnet.ReasonAgentMissing}
	switch {
	case agent == nil:
		v.message = "The rule does not name an agent of its pod yet."
		return v
	case strange != "":
		v.reason = podnet.ReasonAgentTrouble
		v.message = fmt.Sprintf("The agent with the key %s sends from %s, which is not an address of the pod.", agent.Key, strange)
		return v
	case !connected || report.PodUID != agent.PodUID:
		v.message = "No agent of the pod is connected to the gateway."
		return v
	}
	v.key, v.generation = agent.Key, report.Generation
	v.counts, v.counted = report.Counts[rule.Name]
	switch {
	case report.Error != "" && !rule.Egress: // it is about what it takes of the pod's traffic
		v.reason, v.message = podnet.ReasonAgentTrouble, "The agent says: "+report.Error
	case !report.InForce[rule.Name]:
		v.message = "The agent does not have the rule in force yet."
	default:
		v.ready, v.reason, v.message = true, podnet.ReasonInForce, "The agent has the rule in force."
	}
	return v
}

// rulePatch is the apply patch for a SteeringRule's status, or nil when nothing
// is worth a write or another gateway leads. Counts and generation alone are worth
// one when they are due.
func (a author) rulePatch(o *podnet.SteeringRule, v steering.Verdict, agent agentView, lease time.Duration, due bool) *unstructured.Unstructured {
	if !a.leads {
		return nil
	}
	s := o.Status
	accepted, same := condition(s.Conditions, podnet.ConditionAccepted, v.Accepted, v.Reason, v.Message, a.now)
	status := map[string]any{"observedRenew": v.Renew}
	conditions := []any{plain(accepted)}
	write := !same || v.Reason == podnet.ReasonExpired && s.ObservedRenew != v.Renew
	if v.Accepted {
		ready, same := condition(s.Conditions, podnet.ConditionAgentReady, agent.ready, agent.reason, agent.message, a.now)
		conditions = append(conditions, plain(ready))
		write = write || !same || stale(s.ExpiresAt, v.Expires, lease)
		status["expiresAt"] = v.Expires.UTC().Format(time.RFC3339)
	} else {
		write = write || meta.FindStatusCondition(s.Conditions, podnet.ConditionAgentReady) != nil
		if s.ExpiresAt != nil {
			status["expiresAt"] = s.ExpiresAt.UTC().Format(time.RFC3339)
		}
	}
	var want podnet.SteeringAgent
	if v.Accepted && !agent.key.IsZero() {
		want = podnet.SteeringAgent{PublicKey: agent.key.String(), Generation: agent.generation}
		status["agent"] = map[string]any{"publicKey": want.PublicKey, "generation": want.Generation}
	}
	var have podnet.SteeringAgent
	if s.Agent != nil {
		have = *s.Agent
	}
	old := control.Counts{Matched: s.Matched, Failed: s.Failed, Passed: s.Passed}
	counts := old
	if agent.counted {
		counts = agent.counts
	}
	for name, n := range map[string]int64{"matched": counts.Matched, "failed": counts.Failed, "passed": counts.Passed} {
		if n != 0 {
			status[name] = n
		}
	}
	write = write || have.PublicKey != want.PublicKey || due && (have != want || counts != old)
	if !write {
		return nil
	}
	status["conditions"] = conditions
	return statusPatch("SteeringRule", o, status)
}

// report writes what became of the rules, and removes those that expired long
// ago.
func (s *steerer) report(a author, p steered, rules []ruleObject, write func(uid string, patch *unstructured.Unstructured), remove func(*podnet.SteeringRule)) {
	if !a.leads {
		return
	}
	s.mu.Lock()
	chosen, named := map[string]*steering.Agent{}, map[agentOfPod]*steering.Agent{}
	for i, agent := range s.plan.Agents {
		named[agentOfPod{agent.Key, agent.PodUID}] = &s.plan.Agents[i]
		if agent.Chosen {
			chosen[agent.PodUID] = &s.plan.Agents[i]
		}
	}
	places, strange := s.places, s.strange
	s.mu.Unlock()

	present := make(map[string]bool, len(rules))
	for i, r := range rules {
		present[r.rule.UID] = true
		var view agentView
		if p.plan.Verdicts[i].Accepted {
			agent := chosen[r.rule.PodUID]
			if r.rule.Egress {
				agent = named[agentOfPod{r.rule.Agent, r.rule.PodUID}]
			}
			place, report, connected := "", steering.Report{}, false
			if agent != nil {
				if strange[agentOfPod{agent.Key, agent.PodUID}] {
					place = places[agent.Key.Address6()]
				}
				report, connected = s.server.Report(agent.Key)
			}
			view = viewOf(r.rule, agent, place, report, connected)
		}
		due := a.now.Sub(s.counted[r.rule.UID]) >= countsEvery
		if patch := a.rulePatch(r.object, p.plan.Verdicts[i], view, p.leases[r.rule.Peer], due); patch != nil {
			s.counted[r.rule.UID] = a.now
			write(r.rule.UID, patch)
		}
	}
	for uid := range s.counted {
		if !present[uid] {
			delete(s.counted, uid)
		}
	}
	for _, i := range p.plan.Delete {
		remove(rules[i].object)
	}
}

// connected counts the agents that speak with us.
func (s *steerer) connected() int {
	s.mu.Lock()
	agents := s.plan.Agents
	s.mu.Unlock()
	n := 0
	for i, a := range agents {
		if i > 0 && agents[i-1].Key == a.Key {
			continue
		}
		if _, ok := s.server.Report(a.Key); ok {
			n++
		}
	}
	return n
}
