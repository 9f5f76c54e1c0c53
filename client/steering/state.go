package steering

import (
	"context"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
)

// Member is what the session is to the cluster: who gets the traffic, and which
// gateways the agents go to.
type Member struct {
	Peer     string
	Gateways []v1alpha1.Gateway
}

func (m Member) keys() []string {
	var all []string
	for _, g := range m.Gateways {
		all = append(all, g.PublicKey)
	}
	return all
}

// state is all that a Manager knows. It is pure: step says what is to be done,
// and the done functions of its actions say what came of it.
type state struct {
	user   string
	lease  time.Duration
	member Member
	rules  map[string]*rule // by name
	pods   map[seat]*pod
}

// seat is a pod in which there is to be an agent, by what that is to do: one that
// only sends cannot take anything from the pod.
type seat struct {
	uid  string
	does does
}

// does is what a rule is about.
type does int

const (
	// takes is steering by agents.
	takes does = iota
	// sends is having the laptop's traffic leave from a pod, by any agent.
	sends
	// leads is steering a Service, which stands in place of a pod. No agent of
	// ours has to do with it.
	leads
)

// rule is one `podnet steer`, in all pods of its target.
type rule struct {
	name      string
	req       localapi.SteerRequest
	does      does
	namespace string
	local     string
	protocol  steer.Protocol
	relayPort uint16
	began     time.Time
	// settled is true once the rule was ready; until then a no of anybody ends it.
	settled bool
	// known says that the target's pods have been told once, trouble what is wrong
	// with them; ports is the port's number in each that the rule is for, by UID.
	known   bool
	trouble error
	ports   map[string]uint16
	objects map[string]*object // by pod UID: those that are wanted
	old     []*object          // those that are to go
	// stopping says that the rule is to go, failed why, if nobody asked for it.
	stopping bool
	failed   error
	polling  bool
	polled   time.Time
	others   []localapi.SteerOther
	// leave ends the watch of the pods.
	leave context.CancelFunc
}

// phase is how far an object is:
//
//	planned --> creating --> there --> deleting --> (gone)
//	   ^            |          |
//	   +-- failed --+          +--> revoked: somebody else deleted it
//
// An object that is not wanted any more goes from planned or revoked at once.
type phase int

const (
	planned phase = iota
	creating
	there
	deleting
	revoked
)

// object is a SteeringRule of ours: a rule in one pod.
type object struct {
	name  string
	peer  string
	does  does
	pod   string // UID
	port  uint16
	phase phase
	// since is when it was written, renewed when its lease began, missed since
	// when the API does not have it.
	since, renewed, missed time.Time
	renew                  int64
	due                    bool // to be renewed
	busy                   bool // being renewed, or its key written
	key                    string
	status                 v1alpha1.SteeringRuleStatus
	inForce                bool // the agent says so to our own relay
	trouble                string
	err                    error
	retry                  time.Time
}

// pod is a pod that rules of ours are for. Its agent serves all of them that do the
// same.
type pod struct {
	cluster.Pod
	does does
	// allowed says that a dry run of the injection went through.
	asking, allowed bool
	injecting       bool
	injections      []time.Time
	injected        string // the last container, which the pod may not show yet
	// container is the agent whose key is known.
	container string
	key       key.Public
	greeting  string // the container that is being asked for its key
	// broken are the containers that said they cannot work, and why.
	broken map[string]error
	err    error
	retry  time.Time
}

func newState(user string, lease time.Duration) *state {
	return &state{user: user, lease: lease, rules: map[string]*rule{}, pods: map[seat]*pod{}}
}

// pod is one of a rule's.
func (s *state) pod(r *rule, uid string) *pod { return s.pods[seat{uid, r.does}] }

// follow takes over what the target's pods are.
func (s *state) follow(r *rule, set cluster.PodSet) {
	r.trouble = set.Err
	if set.Err != nil && len(set.Pods) == 0 && r.known {
		return // old news are better than none
	}
	r.known = true
	one := ""
	if r.does == sends {
		one = pick(r.ports, set.Pods)
	}
	r.ports = map[string]uint16{}
	for _, p := range set.Pods {
		have := s.pod(r, p.UID)
		if have == nil {
			have = &pod{does: r.does, broken: map[string]error{}}
			s.pods[seat{p.UID, r.does}] = have
		}
		have.Pod = p
		if n, ok := set.Port[p.UID]; ok && !p.Terminating && (r.does != sends || p.UID == one) {
			r.ports[p.UID] = n
		}
	}
}

// forget drops what nothing speaks of any more.
func (s *state) forget() {
	needed := map[seat]bool{}
	for name, r := range s.rules {
		if r.stopping && len(r.objects) == 0 && len(r.old) == 0 {
			r.leave()
			delete(s.rules, name)
			continue
		}
		for uid := range r.ports {
			needed[seat{uid, r.does}] = true
		}
		for uid := range r.objects {
			needed[seat{uid, r.does}] = true
		}
		for _, o := range r.old {
			needed[seat{o.pod, r.does}] = true
		}
	}
	for at, p := range s.pods {
		if !needed[at] && !p.injecting && !p.asking && p.greeting == "" {
			delete(s.pods, at)
		}
	}
}

// ready says that the rule acts in the pod.
func (o *object) ready() bool {
	if o.does != takes { // then it is for the gateway to say
		return o.phase == there && meta.IsStatusConditionTrue(o.status.Conditions, v1alpha1.ConditionAgentReady)
	}
	return o.phase == there && o.inForce
}

// ready says that the rule acts in one of its pods.
func (r *rule) ready() bool {
	for _, o := range r.objects {
		if o.ready() {
			return true
		}
	}
	return false
}

// agents are the tunnel addresses from which an object's traffic may come.
func (o *object) agents() []netip.Addr {
	var all []netip.Addr
	add := func(text string) {
		if k, err := key.ParsePublic(text); err == nil {
			all = append(all, k.Address6())
		}
	}
	add(o.key)
	if a := o.status.Agent; a != nil && a.PublicKey != o.key {
		add(a.PublicKey)
	}
	return all
}

// agent is the container that is to serve the pod's rules: the oldest that lives
// and knows one of our gateways, or that serves already; "" if there is none.
func (p *pod) agent(gateways []string, serving string) string {
	shown := false
	for _, a := range p.Agents {
		shown = shown || a.Name == p.injected
		switch {
		case a.NoRedirect && p.does == takes:
		case a.State == cluster.AgentEnded, p.broken[a.Name] != nil:
		case a.Knows(gateways), serving != "" && a.Name == p.container && p.key.String() == serving:
			return a.Name
		}
	}
	if p.injected != "" && !shown && p.broken[p.injected] == nil {
		return p.injected // the pod will show it
	}
	return ""
}
