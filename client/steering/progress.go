package steering

import (
	"cmp"
	"fmt"
	"slices"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

// progress is how far a new rule has come.
type progress struct {
	known           bool
	does            does
	pods            int
	accepted, ready int
	target          string
	// settled says that it is there; none that there are no pods for it.
	settled, none bool
}

func (s *state) progress(r *rule) progress {
	p := progress{known: r.known, does: r.does, pods: len(r.ports), target: r.req.Words() + " in namespace " + r.namespace}
	p.none = r.known && len(r.ports) == 0
	some, all := false, true // of the pods that are ready to serve
	for uid, o := range r.objects {
		if o.ready() || o.phase == there && o.accepted() {
			p.accepted++
		}
		if o.ready() {
			p.ready++
		}
		if s.pod(r, uid).Ready {
			some, all = true, all && o.ready()
		}
	}
	p.settled = r.known && p.ready > 0 && (some && all || p.ready == p.pods)
	return p
}

// since are the events that tell how p came of before.
func (p progress) since(before progress) (out []localapi.SteerEvent) {
	add := func(t localapi.SteerEventType, format string, a ...any) {
		out = append(out, localapi.SteerEvent{Type: t, Text: fmt.Sprintf(format, a...)})
	}
	if p.known && !p.none && !before.known {
		add(localapi.SteerTarget, "%s: %s", p.target, p.words())
	}
	if p.pods > 0 && p.accepted == p.pods && (before.accepted != before.pods || before.pods == 0) {
		add(localapi.SteerRules, "%s written, and the gateway accepts them", count(p.pods, "rule"))
	}
	if p.ready > before.ready && p.accepted == p.pods && !p.settled { // some of several pods
		add(localapi.SteerAgents, "%d/%d agents ready", p.ready, p.pods)
	}
	return out
}

// words are what the rule is for.
func (p progress) words() string {
	if p.does == leads {
		return "the Service itself"
	}
	return count(p.pods, "pod")
}

// nobody is why there is no pod to steer.
func (s *state) nobody(r *rule) error {
	if r.trouble != nil {
		return r.trouble
	}
	if r.does == sends {
		return &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("%s has no pod that is ready in namespace %s", r.req.Words(), r.namespace),
			Hint: "kubectl -n " + r.namespace + " get pods"}
	}
	return &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("%s has no pod in namespace %s", r.req.Words(), r.namespace),
		Hint: "kubectl -n " + r.namespace + " get pods; -n names another namespace"}
}

// beside are the rules of others on the port of a rule, in its pods.
func (s *state) beside(r *rule, list []v1alpha1.SteeringRule) []localapi.SteerOther {
	var out []localapi.SteerOther
	for _, o := range list {
		ours := r.objects[cmp.Or(o.Spec.PodUID, o.Spec.ServiceUID)]
		other := localapi.SteerOther{Owner: o.Spec.User, Name: o.Spec.Rule}
		if ours != nil && o.Spec.User != s.user && uint16(o.Spec.Port) == ours.port && string(o.Spec.Protocol) == string(r.protocol) && !slices.Contains(out, other) {
			out = append(out, other)
		}
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
