package steering

import (
	"context"
	"net/netip"
	"time"

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
	pods   map[string]*pod  // by UID
}

// rule is one `podnet steer`, in all pods of its target.
type rule struct {
	name      string
	req       localapi.SteerRequest
	namespace string
	local     string
	protocol  steer.Protocol
	relayPort uint16
	began     time.Time
	// settled is true once the rule was ready; until then a no of anybody ends it.
	settled bool
	// known says that the target's pods have been told once, trouble what is wrong
	// with them; ports is the port's number in each, by UID.
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

// pod is a pod that rules of ours steer. Its agent serves all of them.
type pod struct {
	cluster.Pod
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
	return &state{user: user, lease: lease, rules: map[string]*rule{}, pods: map[string]*pod{}}
}

// follow takes over what the target's pods are.
func (s *state) follow(r *rule, set cluster.PodSet) {
	r.trouble = set.Err
	if set.Err != nil && len(set.Pods) == 0 && r.known {
		return // old news are better than none
	}
	r.known = true
	r.ports = map[string]uint16{}
	for _, p := range set.Pods {
		have := s.pods[p.UID]
		if have == nil {
			have = &pod{broken: map[string]error{}}
			s.pods[p.UID] = have
		}
		have.Pod = p
		if n := set.Port[p.UID]; n != 0 && !p.Terminating {
			r.ports[p.UID] = n
		}
	}
}

// forget drops what nothing speaks of any more.
func (s *state) forget() {
	needed := map[string]bool{}
	for name, r := range s.rules {
		if r.stopping && len(r.objects) == 0 && len(r.old) == 0 {
			r.leave()
			delete(s.rules, name)
			continue
		}
		for uid := range r.ports {
			needed[uid] = true
		}
		for uid := range r.objects {
			needed[uid] = true
		}
		for _, o := range r.old {
			needed[o.pod] = true
		}
	}
	for uid, p := range s.pods {
		if !needed[uid] && !p.injecting && !p.asking && p.greeting == "" {
			delete(s.pods, uid)
		}
	}
}

// ready says that the rule acts in the pod.
func (o *object) ready() bool { return o.phase == there && o.inForce }

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
