package keep

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/fronts"
	"podnet.dev/gateway/status"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

// agentView is what there is to tell about the agent of an accepted rule.
type agentView struct {
	key             key.Public // zero: none is connected
	generation      int64      // zero: it has told us none
	ready           bool
	reason, message string
	counts          control.Counts
	counted         bool // the agent has told counts
	doubted         bool // the rule may be in force: it is not connected to us, or has yet to say so
	// selector is what the Service that is steered selected before.
	selector map[string]string
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
		v.message, v.doubted = "No agent of the pod is connected to the gateway.", true
		return v
	}
	v.key, v.generation = agent.Key, report.Generation
	v.counts, v.counted = report.Counts[rule.Name]
	switch {
	case report.Error != "" && !rule.Egress: // it is about what it takes of the pod's traffic
		v.reason, v.message = podnet.ReasonAgentTrouble, "The agent says: "+report.Error
	case !report.InForce[rule.Name]:
		v.message, v.doubted = "The agent does not have the rule in force yet.", true
	default:
		v.ready, v.reason, v.message = true, podnet.ReasonInForce, "The agent has the rule in force."
	}
	return v
}

// atFront is what there is to tell about the agent of an accepted rule for a Service when
// that is a front of this gateway's: v is of the agent as such.
func (v agentView) atFront(s fronts.Standing) agentView {
	v.key, v.selector = s.Key, s.Selector
	switch {
	case s.Trouble != "":
		v.ready, v.reason, v.message = false, podnet.ReasonAgentTrouble, s.Trouble
	case v.reason == podnet.ReasonAgentTrouble:
	case !v.ready:
		v.message = "The laptop is not connected to the gateway that steers the Service yet."
	case !s.Led:
		v.ready, v.reason, v.message = false, podnet.ReasonAgentMissing, "The Service's clients are being led to the gateway."
	default:
		v.message = "The Service leads to the gateway, which has the rule in force."
	}
	return v
}

// author is a gateway that writes into status.
type author struct {
	pod, podUID string
	leads       bool
	now         time.Time
}

// rulePatch is the apply patch for a SteeringRule's status, or nil when nothing
// is worth a write or another gateway leads. Counts and generation alone are worth
// one when they are due.
func (a author) rulePatch(o *podnet.SteeringRule, v steering.Verdict, agent agentView, lease time.Duration, due bool) *unstructured.Unstructured {
	if !a.leads {
		return nil
	}
	s := o.Status
	accepted, same := status.Condition(s.Conditions, podnet.ConditionAccepted, v.Accepted, v.Reason, v.Message, a.now)
	fields := map[string]any{"observedRenew": v.Renew}
	conditions := []any{status.Plain(accepted)}
	worth := !same || v.Reason == podnet.ReasonExpired && s.ObservedRenew != v.Renew
	if v.Accepted {
		ready, same := status.Condition(s.Conditions, podnet.ConditionAgentReady, agent.ready, agent.reason, agent.message, a.now)
		conditions = append(conditions, status.Plain(ready))
		worth = worth || !same || status.Stale(s.ExpiresAt, v.Expires, lease)
		fields["expiresAt"] = v.Expires.UTC().Format(time.RFC3339)
	} else {
		worth = worth || meta.FindStatusCondition(s.Conditions, podnet.ConditionAgentReady) != nil
		if s.ExpiresAt != nil {
			fields["expiresAt"] = s.ExpiresAt.UTC().Format(time.RFC3339)
		}
	}
	var want podnet.SteeringAgent
	if v.Accepted && !agent.key.IsZero() {
		want = podnet.SteeringAgent{PublicKey: agent.key.String(), Generation: agent.generation}
		fields["agent"] = map[string]any{"publicKey": want.PublicKey, "generation": want.Generation}
	}
	var have podnet.SteeringAgent
	if s.Agent != nil {
		have = *s.Agent
	}
	if len(agent.selector) > 0 {
		fields["selector"] = agent.selector
	}
	old := control.Counts{Matched: s.Matched, Failed: s.Failed, Passed: s.Passed}
	counts := old
	if agent.counted {
		counts = agent.counts
	}
	for name, n := range map[string]int64{"matched": counts.Matched, "failed": counts.Failed, "passed": counts.Passed} {
		if n != 0 {
			fields[name] = n
		}
	}
	worth = worth || have.PublicKey != want.PublicKey || !maps.Equal(s.Selector, agent.selector) || asked(o) != (want.Generation == 0) || due && (have != want || counts != old)
	if !worth {
		return nil
	}
	fields["conditions"] = conditions
	return status.Patch("SteeringRule", o, fields)
}

// Report writes what became of the rules, or what the gateway that leads does not know
// of them, and removes those that expired long ago. The function front tells of the front
// of the Service that a rule is about, if this gateway has one. It returns when to look
// again; zero for never.
func (s *Keeper) Report(ctx context.Context, now time.Time, leads bool, p Steered, w world.Snapshot, front func(world.Rule) (fronts.Standing, bool)) (next time.Time) {
	a := author{s.o.Pod, s.o.PodUID, leads, now}
	s.mu.Lock()
	agents, places, strange := s.plan.Agents, s.places, s.strange
	s.mu.Unlock()
	chosen, named := map[string][]*steering.Agent{}, map[agentOfPod]*steering.Agent{}
	for i, agent := range agents {
		named[agentOfPod{agent.Key, agent.PodUID}] = &agents[i]
		if agent.Chosen {
			chosen[agent.PodUID] = append(chosen[agent.PodUID], &agents[i])
		}
	}

	present := make(map[string]bool, len(w.Rules))
	for i, r := range w.Rules {
		uid, accepted := r.Rule.UID, p.Plan.Verdicts[i].Accepted
		present[uid] = true
		var view agentView
		may := chosen[r.Rule.PodUID]
		if r.Rule.Egress {
			may = nil
			if agent := named[agentOfPod{r.Rule.Agent, r.Rule.PodUID}]; agent != nil {
				may = append(may, agent)
			}
		}
		if accepted {
			view = s.view(r.Rule, may, places, strange)
		}
		due := a.now.Sub(s.counted[uid]) >= countsEvery
		var entry, shared *unstructured.Unstructured
		switch {
		case a.leads && r.Via():
			if standing, here := front(r); accepted && here {
				view = view.atFront(standing)
			}
			shared = a.rulePatch(r.Object, p.Plan.Verdicts[i], view, p.leases[r.Rule.Peer], due)
		case r.Via():
		case a.leads:
			view = s.believe(a.now, w, r.Object, view, may)
			entry = a.witnessPatch(r.Object, view, false, false)
			shared = a.rulePatch(r.Object, p.Plan.Verdicts[i], view, p.leases[r.Rule.Peer], due)
		default:
			unsaid := s.lasts(a.now, uid, view.ready && asked(r.Object))
			entry = a.witnessPatch(r.Object, view, unsaid >= answerAfter, due)
		}
		if entry != nil || shared != nil {
			s.counted[uid] = a.now
			s.o.Write.Status(ctx, "rule/"+uid, write.Patch{Manager: s.o.Pod, Object: entry}, write.Patch{Manager: write.Shared, Object: shared})
		}
	}
	maps.DeleteFunc(s.counted, func(uid string, _ time.Time) bool { return !present[uid] })
	maps.DeleteFunc(s.since, func(uid string, _ time.Time) bool { return !present[uid] })
	if !a.leads {
		for _, since := range s.since {
			next = upcoming(next, a.now, since.Add(answerAfter))
		}
		return next
	}
	for _, since := range s.since {
		next = upcoming(upcoming(next, a.now, since.Add(askAfter)), a.now, since.Add(missingAfter))
	}
	for _, i := range p.Plan.Delete {
		s.o.Write.Remove(ctx, w.Rules[i].Object)
	}
	return next
}

// upcoming is the earlier of next and t, which counts if it is to come.
func upcoming(next, now, t time.Time) time.Time {
	if t.After(now) {
		return wake.Earlier(next, t)
	}
	return next
}

// view is what this gateway knows of a rule's agent: of those that may be it, the
// one that is connected.
func (s *Keeper) view(rule steering.Object, agents []*steering.Agent, places map[netip.Addr]string, strange map[agentOfPod]bool) agentView {
	var agent *steering.Agent
	place, report, connected := "", steering.Report{}, false
	for _, one := range agents {
		agent, place = one, ""
		if strange[agentOfPod{one.Key, one.PodUID}] {
			place = places[one.Key.Address6()]
		}
		if report, connected = s.server.Report(one.Key); connected {
			break
		}
	}
	return viewOf(rule, agent, place, report, connected)
}

// believe is what the leader makes of a view that is in doubt.
func (s *Keeper) believe(now time.Time, w world.Snapshot, o *podnet.SteeringRule, v agentView, agents []*steering.Agent) agentView {
	if v.doubted && v.key.IsZero() {
		keys := make([]key.Public, len(agents))
		for i, agent := range agents {
			keys[i] = agent.Key
		}
		if one := witness(w, o, keys); one != nil {
			v = heard(one)
		}
	}
	doubted := s.lasts(now, string(o.UID), v.doubted && saysReady(o))
	if !v.doubted || !saysReady(o) {
		return v
	}
	return v.patient(o, doubted)
}

// lasts is for how long something has been so about a rule.
func (s *Keeper) lasts(now time.Time, uid string, so bool) time.Duration {
	if !so {
		delete(s.since, uid)
		return 0
	}
	since, known := s.since[uid]
	if !known {
		s.since[uid] = now
		return 0
	}
	return now.Sub(since)
}

// Connected counts the agents that speak with us.
func (s *Keeper) Connected() int {
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
