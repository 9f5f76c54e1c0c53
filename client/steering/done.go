package steering

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/upkeep"
	"podnet.dev/internal/steer/control"
)

var errRevoked = &localapi.Error{Code: localapi.CodeEnded, Message: "somebody has deleted the rule in the cluster",
	Hint: "podnet steer list --all-owners shows who steers"}

func pause(err error) time.Duration {
	if upkeep.IsNo(err) {
		return muchLater
	}
	return again
}

// refuse ends the rules that are not ready yet and cannot be in this pod.
func (s *state) refuse(p *pod, err error) {
	if !upkeep.IsNo(err) {
		return
	}
	for _, r := range s.rules {
		if r.does == p.does && r.objects[p.UID] != nil && !r.settled {
			s.fail(r, err)
		}
	}
}

// dryRun takes over whether an agent may be put into a pod.
func (s *state) dryRun(p *pod, now time.Time, err error) {
	p.asking = false
	switch {
	case err == nil:
		p.allowed, p.err = true, nil
	case errors.Is(err, cluster.ErrGone):
		p.retry = now.Add(again) // the pod's watch will say so
	default:
		p.err, p.retry = err, now.Add(pause(err))
		s.refuse(p, err)
	}
}

// created takes over what came of writing an object.
func (s *state) created(r *rule, o *object, now time.Time, err error) {
	if err == nil || errors.Is(err, cluster.ErrExists) { // an answer of ours was lost
		o.phase, o.since, o.renewed, o.renew, o.err = there, now, now, 1, nil
		return
	}
	o.phase, o.err, o.retry = planned, err, now.Add(pause(err))
	if upkeep.IsNo(err) && !r.settled {
		s.fail(r, err)
	}
}

func (s *state) deleted(r *rule, o *object, now time.Time, err error) {
	if err != nil && !upkeep.IsNo(err) {
		o.phase, o.err, o.retry = there, err, now.Add(again)
		return
	}
	for i, have := range r.old { // who may not delete it waits for its lease to end
		if have == o {
			r.old = append(r.old[:i], r.old[i+1:]...)
			return
		}
	}
}

// renewed takes over a renewal that was begun at a time.
func (s *state) renewed(o *object, begun, now time.Time, err error) {
	o.busy = false
	switch {
	case err == nil:
		o.due, o.renewed, o.missed, o.err = false, begun, time.Time{}, nil
	case errors.Is(err, cluster.ErrGone):
		o.due = false
		s.lost(o, now)
	default:
		o.err, o.retry = err, now.Add(pause(err))
	}
}

func (s *state) keyed(o *object, key string, now time.Time, err error) {
	o.busy = false
	switch {
	case err == nil:
		o.key, o.err, o.since = key, nil, now // a new beginning
	case errors.Is(err, cluster.ErrGone):
		s.lost(o, now)
		o.retry = now.Add(again)
	default:
		o.err, o.retry = err, now.Add(pause(err))
	}
}

// lost decides what it means that the API does not have an object: its lease was
// over, or somebody deleted it.
func (s *state) lost(o *object, now time.Time) {
	switch {
	case o.phase != there:
	case upkeep.Over(s.lease, o.renewed, now):
		o.phase, o.key, o.status, o.inForce, o.missed = planned, "", v1alpha1.SteeringRuleStatus{}, false, time.Time{}
	case o.missed.IsZero():
		o.missed = now
	case now.Sub(o.missed) >= missing:
		o.phase = revoked
	}
}

// polled takes over a list of a rule's objects, which was begun at a time.
func (s *state) polled(r *rule, list []v1alpha1.SteeringRule, begun, now time.Time, err error) {
	r.polling = false
	if err != nil {
		if upkeep.IsNo(err) && !r.settled {
			s.fail(r, err)
		}
		return
	}
	have := map[string]*v1alpha1.SteeringRule{}
	for i := range list {
		have[list[i].Name] = &list[i]
	}
	for _, o := range r.objects {
		is := have[o.name]
		switch {
		case o.phase != there || !o.since.Before(begun):
		case is == nil:
			s.lost(o, now)
		default:
			o.status, o.missed = is.Status, time.Time{}
			if !o.busy {
				o.key, o.renew = is.Spec.AgentKey, max(o.renew, is.Spec.Renew)
			}
			if err := o.refusal(); err != nil && !r.settled {
				s.fail(r, err)
			}
		}
	}
}

// accepted says that a gateway lets the object act.
func (o *object) accepted() bool {
	return meta.IsStatusConditionTrue(o.status.Conditions, v1alpha1.ConditionAccepted)
}

var refusals = upkeep.Refusals{
	v1alpha1.ReasonClash:          {Code: localapi.CodeConflict, Hint: "agree with them, or steer other requests: --header, --path and others narrow a rule"},
	v1alpha1.ReasonServiceRefused: {Code: localapi.CodeForbidden, Hint: "docs/permissions.md says what steering a Service takes"},
	v1alpha1.ReasonInvalid:        {Code: localapi.CodeUsage, Hint: "podnet steer --help"},
	v1alpha1.ReasonPolicyMissing:  {Code: localapi.CodeForbidden, Hint: "an administrator puts the admission policies back with podnet install"},
}

// refusal is the gateway's no.
func (o *object) refusal() error {
	return refusals.Of(o.status.Conditions, v1alpha1.ConditionAccepted, "the gateway does not accept the rule")
}

// injected takes over what came of putting an agent into a pod.
func (s *state) injected(p *pod, container string, now time.Time, err error) {
	p.injecting = false
	switch {
	case err == nil:
		p.injected, p.err = container, nil
	case errors.Is(err, cluster.ErrGone):
		p.retry = now.Add(again)
	default:
		p.injections = p.injections[:len(p.injections)-1] // there is no agent more
		p.err, p.retry = err, now.Add(pause(err))
		s.refuse(p, err)
	}
}

// greeted takes over what an agent said of itself.
func (s *state) greeted(p *pod, container string, hello control.Hello, now time.Time, err error) {
	p.greeting = ""
	switch {
	case hello.Error != "":
		p.broken[container] = &localapi.Error{Code: localapi.CodeDeploy, Message: "the agent cannot work in pod " + p.Name + ": " + hello.Error, Hint: hello.Hint}
		s.refuse(p, p.broken[container])
	case err != nil:
		p.err, p.retry = err, now.Add(again)
		s.refuse(p, err)
	default:
		p.container, p.key, p.err = container, hello.PublicKey, nil
	}
}

// live takes over what the agents say to our own relay.
func (s *state) live(all []relay.Live) {
	rules := map[string]relay.LiveRule{}
	for _, l := range all {
		for _, r := range l.Rules {
			if have, ok := rules[r.Object]; !ok || !have.InForce {
				r.InForce = r.InForce && l.Connected
				rules[r.Object] = r
			}
		}
	}
	for _, r := range s.rules {
		for _, o := range r.objects {
			l := rules[o.name]
			o.inForce, o.trouble = l.InForce, l.Trouble
			if o.inForce { // newer than what the API says
				o.status.Matched, o.status.Failed, o.status.Passed = max(o.status.Matched, l.Counts.Matched), max(o.status.Failed, l.Counts.Failed), max(o.status.Passed, l.Counts.Passed)
			}
		}
	}
}

// relayed is what the relay is to let in.
func (s *state) relayed() []relay.Rule {
	var out []relay.Rule
	for _, r := range s.rules {
		if r.does == sends {
			continue
		}
		to := relay.Rule{Name: r.name, Port: r.relayPort, Protocol: r.protocol, Local: r.local, Agents: relayAgents(s, r), Inspect: r.req.Inspect}
		if len(to.Agents) > 0 {
			out = append(out, to)
		}
	}
	return out
}
