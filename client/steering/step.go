package steering

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// quickly is how often the API is asked how a rule stands that is on its way,
	// slowly how often otherwise.
	quickly = 250 * time.Millisecond
	slowly  = 5 * time.Second
	// eager is how long an object is asked for quickly.
	eager = 2 * time.Minute
	// again is when what failed is tried again, muchLater what was refused.
	again     = 2 * time.Second
	muchLater = 30 * time.Second
	// missing is how long an object may be gone before somebody is held to have
	// deleted it: with a pod go its objects, and we may hear of these first.
	missing = 5 * time.Second
	// A pod gets an agent, and three more in its place, in injectTime at most.
	maxInjections = 1 + 3
	injectTime    = 5 * time.Minute
)

// verb is what is to be done.
type verb string

const (
	doPoll   verb = "poll"   // read the objects of a rule
	doDryRun verb = "dryrun" // ask whether an agent may be put into a pod
	doCreate verb = "create"
	doDelete verb = "delete"
	doRenew  verb = "renew"
	doKey    verb = "key"    // write the agent's key into an object
	doInject verb = "inject" // put an agent into a pod
	doGreet  verb = "greet"  // learn the key of an agent
)

// action is one thing to do. Until one of state's done functions is told what
// came of it, the same is not asked for again.
type action struct {
	verb      verb
	rule      *rule
	object    *object
	pod       *pod
	container string
	key       string
}

// step is what is to be done now, in an order that does not depend on chance. It
// notes what it asks for.
func (s *state) step(now time.Time) []action {
	var out []action
	for _, name := range slices.Sorted(maps.Keys(s.rules)) {
		r := s.rules[name]
		s.sort(r)
		out = append(out, s.stepOld(r, now)...)
		for _, uid := range slices.Sorted(maps.Keys(r.objects)) {
			out = append(out, s.stepObject(r, r.objects[uid], now)...)
		}
		if a, ok := s.stepPoll(r, now); ok {
			out = append(out, a)
		}
		s.judge(r)
	}
	for _, at := range slices.SortedFunc(maps.Keys(s.pods), func(a, b seat) int { return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.does, b.does)) }) {
		out = append(out, s.stepPod(s.pods[at], now)...)
	}
	s.forget()
	return out
}

// sort says which objects are wanted.
func (s *state) sort(r *rule) {
	for uid, o := range r.objects {
		if port, ok := r.ports[uid]; r.stopping || !ok || port != o.port || o.peer != s.member.Peer {
			delete(r.objects, uid)
			if o.phase != planned && o.phase != revoked {
				r.old = append(r.old, o)
			}
		}
	}
	if r.stopping || s.member.Peer == "" {
		return
	}
	for uid, port := range r.ports {
		if r.objects[uid] == nil {
			r.objects[uid] = &object{name: objectName(s.user, r.name, s.pod(r, uid).Name, uid, s.member.Peer), peer: s.member.Peer, does: r.does, pod: uid, port: port}
		}
	}
}

// stepOld deletes what is not wanted any more.
func (s *state) stepOld(r *rule, now time.Time) (out []action) {
	r.old = slices.DeleteFunc(r.old, func(o *object) bool { return o.phase == planned || o.phase == revoked })
	for _, o := range r.old {
		if r.does == sends && !r.stopping && !r.ready() {
			break // better from a pod that goes than from none
		}
		if o.phase == there && !o.busy && !now.Before(o.retry) {
			o.phase = deleting
			out = append(out, action{verb: doDelete, rule: r, object: o})
		}
	}
	return out
}

func (s *state) stepObject(r *rule, o *object, now time.Time) []action {
	p := s.pod(r, o.pod)
	switch {
	case o.phase == planned && !now.Before(o.retry):
		if r.does != leads && !p.allowed && p.agent(s.member.keys(), "") == "" {
			if p.asking || now.Before(p.retry) || len(s.member.Gateways) == 0 {
				return nil
			}
			p.asking = true
			return []action{{verb: doDryRun, rule: r, pod: p}}
		}
		o.phase = creating
		return []action{{verb: doCreate, rule: r, object: o, pod: p}}
	case o.phase != there || o.busy || now.Before(o.retry):
	case o.due:
		o.busy = true
		return []action{{verb: doRenew, rule: r, object: o}}
	case !p.key.IsZero() && p.container == p.agent(s.member.keys(), serving(o)) && o.key != p.key.String():
		o.busy = true
		return []action{{verb: doKey, rule: r, object: o, key: p.key.String()}}
	}
	return nil
}

// serving is the key of the agent that has an object in force.
func serving(o *object) string {
	if a := o.status.Agent; a != nil && o.inForce {
		return a.PublicKey
	}
	return ""
}

func (s *state) stepPoll(r *rule, now time.Time) (action, bool) {
	written, every := false, slowly
	for _, o := range r.objects {
		written = written || o.phase == there
		if o.phase == there && !o.ready() && now.Sub(o.since) < eager {
			every = quickly
		}
	}
	if !written || r.polling || now.Sub(r.polled) < every {
		return action{}, false
	}
	r.polling, r.polled = true, now
	return action{verb: doPoll, rule: r}, true
}

// judge ends a rule that somebody else has deleted in all of its pods.
func (s *state) judge(r *rule) {
	gone := 0
	for _, o := range r.objects {
		if o.phase == revoked {
			gone++
		}
	}
	if gone > 0 && gone == len(r.objects) && !r.stopping {
		s.fail(r, errRevoked)
	}
}

// fail ends a rule for a reason.
func (s *state) fail(r *rule, err error) {
	if !r.stopping {
		r.stopping, r.failed = true, err
	}
}

// stepPod sees to the pod's agent, once a gateway has accepted a rule for it.
func (s *state) stepPod(p *pod, now time.Time) []action {
	accepted, key := false, ""
	for _, r := range s.rules {
		if o := r.objects[p.UID]; o != nil && r.does == p.does && o.phase == there && !r.stopping {
			accepted = accepted || o.accepted()
			if k := serving(o); k != "" {
				key = k
			}
		}
	}
	if !accepted || p.Terminating || p.does == leads || len(s.member.Gateways) == 0 { // an agent goes to a gateway
		return nil
	}
	switch c := p.agent(s.member.keys(), key); {
	case c == "" && !p.injecting && !now.Before(p.retry) && len(p.broken) == 0:
		p.injections = slices.DeleteFunc(p.injections, func(t time.Time) bool { return now.Sub(t) >= injectTime })
		if len(p.injections) >= maxInjections {
			return nil
		}
		p.injecting = true
		p.injections = append(p.injections, now)
		return []action{{verb: doInject, pod: p}}
	case c != "" && c != p.container && p.greeting == "" && !now.Before(p.retry):
		p.greeting = c
		return []action{{verb: doGreet, pod: p, container: c}}
	}
	return nil
}

// wait is how long nothing has to be done unless something happens.
func (s *state) wait() time.Duration {
	for _, r := range s.rules {
		if !r.settled || r.stopping || len(r.old) > 0 {
			return quickly / 2
		}
		for _, o := range r.objects {
			if !o.ready() {
				return quickly / 2
			}
		}
	}
	return slowly
}
