package steering

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/upkeep"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/steer"
)

// relayAgents are the pods from which a rule's traffic may come.
func relayAgents(s *state, r *rule) map[netip.Addr]relay.Pod {
	out := map[netip.Addr]relay.Pod{}
	for uid, o := range r.objects {
		p := s.pod(r, uid)
		if o.phase != there || p == nil {
			continue
		}
		at := relay.Pod{Namespace: p.Namespace, Name: p.Name, UID: uid, Object: o.name}
		if r.does == leads {
			at.UID = "" // whoever serves the Service is in none of its pods
		}
		for _, a := range o.agents() {
			out[a] = at
		}
	}
	return out
}

// describe is how a rule stands.
func (s *state) describe(r *rule) localapi.SteerRule {
	want := r.req.Rule()
	began := r.began
	out := localapi.SteerRule{
		Name: r.name, Namespace: r.namespace, Owner: s.user, Target: r.req.Words(), Via: r.req.Via, Port: r.req.Port, Protocol: string(r.protocol), Mode: string(want.Mode),
		Matches: append([]steer.Match{}, want.Matches...), Local: r.local, OnError: cmp.Or(r.req.OnError, localapi.OnErrorFail), ClientAddress: r.req.ClientAddress,
		Inspect: r.req.Inspect, Held: r.req.Hold, Since: &began, Pods: []localapi.SteerPod{}, Others: r.others,
	}
	if r.does == sends {
		out.Mode = localapi.ModeEgress
	}
	same := true
	for uid, o := range r.objects {
		pod := s.describePod(o, s.pod(r, uid))
		out.Pods = append(out.Pods, pod)
		if pod.State == localapi.SteerPodReady {
			out.Ready++
		}
		same = same && (out.Number == 0 || out.Number == o.port)
		out.Number = o.port
		out.Matched, out.Failed, out.Passed = out.Matched+o.status.Matched, out.Failed+o.status.Failed, out.Passed+o.status.Passed
		if e := o.status.ExpiresAt; e != nil && (out.ExpiresAt == nil || e.Time.Before(*out.ExpiresAt)) {
			t := e.Time
			out.ExpiresAt = &t
		}
	}
	if !same {
		out.Number = 0
	}
	slices.SortFunc(out.Pods, func(a, b localapi.SteerPod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// describePod says how far an object is, and what it waits for.
func (s *state) describePod(o *object, p *pod) localapi.SteerPod {
	out := localapi.SteerPod{Name: p.Name, Object: o.name, Port: o.port, State: localapi.SteerPodWaiting}
	if len(p.IPs) > 0 {
		out.Address = p.IPs[0].String()
	}
	fail := func(err error) localapi.SteerPod {
		e := httpjson.FromError(err)
		out.State, out.Text, out.Hint = localapi.SteerPodTrouble, e.Message, e.Hint
		if upkeep.IsNo(err) {
			out.State = localapi.SteerPodRefused
		}
		return out
	}
	say := func(text string) localapi.SteerPod { out.Text = text; return out }
	switch {
	case o.phase == revoked:
		return fail(errRevoked)
	case o.ready():
		out.State, out.Text = localapi.SteerPodReady, o.trouble
		return out
	case o.err != nil:
		return fail(o.err)
	case o.phase != there && p.err != nil:
		return fail(p.err)
	case o.phase != there:
		return say("the rule is being written")
	case o.refusal() != nil:
		return fail(o.refusal())
	case !o.accepted():
		if c := meta.FindStatusCondition(o.status.Conditions, v1alpha1.ConditionAccepted); c != nil {
			return say("the gateway does not accept the rule yet: " + c.Message)
		}
		return say("the gateway has not seen the rule yet")
	}
	if o.does == leads {
		if c := meta.FindStatusCondition(o.status.Conditions, v1alpha1.ConditionAgentReady); c != nil {
			return say(c.Message)
		}
		return say("the gateway has not begun to lead the Service here")
	}
	return s.describeAgent(out, o, p, fail)
}

// describeAgent is describePod from where the agent is what is missing.
func (s *state) describeAgent(out localapi.SteerPod, o *object, p *pod, fail func(error) localapi.SteerPod) localapi.SteerPod {
	for _, err := range p.broken {
		return fail(err)
	}
	c := p.agent(s.member.keys(), "")
	ready := meta.FindStatusCondition(o.status.Conditions, v1alpha1.ConditionAgentReady)
	switch {
	case c == "" && p.err != nil:
		return fail(p.err)
	case c == "" && len(p.injections) >= maxInjections:
		out.State, out.Text = localapi.SteerPodTrouble, fmt.Sprintf("%d agents ended within %v", len(p.injections), injectTime)
		out.Hint = "kubectl -n " + p.Namespace + " logs " + p.Name + " -c " + p.injected
	case c == "":
		out.Text = "an agent is being put into the pod"
	case c != p.container:
		out.Text = "the agent starts"
		if i := slices.IndexFunc(p.Agents, func(a cluster.AgentContainer) bool { return a.Name == c }); i >= 0 && p.Agents[i].Why != "" {
			out.Text = "the agent has not started: " + p.Agents[i].Why
		}
		if p.err != nil {
			return fail(p.err)
		}
	case o.key != p.key.String():
		out.Text = "the agent's key is being written"
	case ready != nil && ready.Reason != v1alpha1.ReasonInForce:
		out.Text = ready.Message
	case ready != nil:
		out.Text = "the agent has not come to this machine yet"
	default:
		out.Text = "the agent has not come to the gateway yet"
	}
	return out
}
