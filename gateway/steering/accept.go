package steering

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// What the accepted rules may be. All the rules of a pod go into one line of
// package control, beside the list of the gateways.
const (
	maxRule      = 16 << 10                // bytes
	maxPod       = control.MaxLine * 7 / 8 // bytes of the rules of a pod
	maxUser      = 256 << 10               // bytes of the rules of a user in a pod
	maxUserRules = 64                      // of a user in a pod
	maxPods      = 1024                    // with rules
)

// podID is a pod. A UID alone would do, but that a name and a UID belong together
// is known only once Kubernetes has deleted the rules whose owner does not exist.
type podID struct{ namespace, name, uid string }

// pod is a pod with accepted rules.
type pod struct {
	id    podID
	rules []int // indexes into the World's, in the order of age
	all   share
	users map[string]*share
}

// share is how much of a pod's rules somebody has.
type share struct{ rules, bytes int }

func (s *share) add(bytes int) { s.rules, s.bytes = s.rules+1, s.bytes+bytes }

// byAge are the indexes of the rules, the oldest first.
func (w World) byAge() []int {
	order := make([]int, len(w.Rules))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(w.Rules[i].Created.Compare(w.Rules[j].Created), cmp.Compare(w.Rules[i].UID, w.Rules[j].UID))
	})
	return order
}

// accept decides on every rule, oldest first, so that who was there first stays.
// It returns the pods in the order of their oldest rules.
func (b *Book) accept(w World, order []int, p *Plan) []*pod {
	var pods []*pod
	byUID := map[string]*pod{}
	for _, i := range order {
		o, r := w.Rules[i], b.rules[w.Rules[i].UID]
		at, known := byUID[o.PodUID]
		if !known {
			at = &pod{id: podID{o.Namespace, o.Pod, o.PodUID}, users: map[string]*share{}}
		}
		v := b.judge(w, o, r, at, len(pods))
		p.Verdicts[i] = v
		if !v.Accepted {
			continue
		}
		if !known {
			byUID[o.PodUID] = at
			pods = append(pods, at)
		}
		if at.users[o.User] == nil {
			at.users[o.User] = new(share)
		}
		at.rules = append(at.rules, i)
		at.all.add(r.size)
		at.users[o.User].add(r.size)
	}
	return pods
}

// judge decides on one rule beside the older ones of its pod.
func (b *Book) judge(w World, o Object, r *record, at *pod, pods int) Verdict {
	v := r.refuse()
	if v.Reason != "" {
		return v
	}
	v.Renew = r.Honoured()
	if err := valid(o, r); err != nil {
		v.Reason, v.Message = podnet.ReasonInvalid, fmt.Sprintf("The rule cannot be. %s.", err)
		return v
	}
	if o.Refused != "" {
		v.Reason, v.Message = podnet.ReasonServiceRefused, o.Refused
		return v
	}
	if !r.Live {
		v.Reason, v.Message = podnet.ReasonPeerMissing, fmt.Sprintf("No Peer %s of %s is admitted.", o.Peer, o.User)
		return v
	}
	if id := (podID{o.Namespace, o.Pod, o.PodUID}); at.id != id {
		v.Reason, v.Message = podnet.ReasonInvalid, fmt.Sprintf("The rule cannot be. podUID: an older rule says that it is the pod %s/%s.", at.id.namespace, at.id.name)
		return v
	}
	if text := at.full(o.User, r.size, pods); text != "" {
		v.Reason, v.Message = podnet.ReasonLimitReached, text
		return v
	}
	for _, i := range at.rules {
		if w.Rules[i].Name == o.Name {
			v.Reason, v.Message = podnet.ReasonInvalid, "The rule cannot be. name: an older rule of the pod has it."
			return v
		}
		if err := r.clash(b.rules[w.Rules[i].UID]); err != nil {
			v.Reason, v.Message = clashed(err)
			return v
		}
	}
	v.Accepted, v.Reason, v.Message, v.Expires = true, podnet.ReasonAccepted, "The rule may act.", r.Deadline()
	if !w.PolicyHolds {
		v.Message = "The rule may act until its lease ends. It cannot be renewed: the admission policies are missing (podnet install puts them back)."
	}
	return v
}

// full says, if so, that a pod has no room for another rule of a user.
func (p *pod) full(user string, bytes, pods int) string {
	var own share
	if p.users[user] != nil {
		own = *p.users[user]
	}
	switch {
	case len(p.rules) == 0 && pods >= maxPods:
		return fmt.Sprintf("%d pods are steered already, and the gateway takes no more.", pods)
	case own.rules >= maxUserRules:
		return fmt.Sprintf("%s has %d rules in this pod already, and may have no more.", user, own.rules)
	case own.bytes+bytes > maxUser:
		return fmt.Sprintf("The rules of %s in this pod would be longer than %d bytes.", user, maxUser)
	case p.all.rules >= control.MaxRules:
		return fmt.Sprintf("The pod has %d rules already, and may have no more.", p.all.rules)
	case p.all.bytes+bytes > maxPod:
		return fmt.Sprintf("The rules of this pod would be longer than %d bytes.", maxPod)
	}
	return ""
}

func clashed(err error) (reason, message string) {
	if c, ok := errors.AsType[*steer.ClashError](err); ok {
		return podnet.ReasonClash, fmt.Sprintf("The older rule %s of %s takes the same requests of %s port %d.", c.Rule, c.Owner, c.Protocol, c.Port)
	}
	return podnet.ReasonInvalid, fmt.Sprintf("The rule cannot be. %s.", err)
}
