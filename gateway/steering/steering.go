// Package steering decides which steering rules act, and what the agents in the
// pods and the tunnel must know for it. Its Book is pure, as that of
// gateway/enrol: it is told of objects and of the time and answers with a Plan.
// Its Server tells agents what the Plan says. Neither knows Kubernetes or the
// tunnel.
package steering

import (
	"net/netip"
	"time"

	"podnet.dev/gateway/lease"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// Object is a SteeringRule as far as steering cares.
type Object struct {
	UID, Namespace, Name string
	Created              time.Time
	User, Peer, Rule     string
	Pod, PodUID          string
	Renew                int64
	RelayPort            uint16
	// Agent is zero while the user has not read the key of an agent.
	Agent key.Public
	// Egress: what the peer sends leaves from the pod, through the agent with the
	// key Agent. RelayPort is 0, and Steer has a name and an owner only.
	Egress bool
	// Steer and Invalid are what object.Rule makes of it.
	Steer   steer.Rule
	Invalid error
	// Refused says why what is steered cannot be; "": it can.
	Refused string
	// Ended: the status says that this very renew has expired.
	Ended bool
}

// Laptop is a peer that is admitted.
type Laptop = lease.Laptop

// World is all that is known at one moment. Objects that are being deleted are
// not in it.
type World struct {
	Rules   []Object
	Laptops []Laptop
	// PolicyHolds and Connected are as in enrol.World.
	PolicyHolds, Connected bool
	// PodAddrs tells the addresses of a pod; none: unknown. It may be nil.
	PodAddrs func(podUID string) []netip.Addr
	// Connects tells whether an agent is connected now, and in that pod. It may
	// be nil: none is.
	Connects func(agent key.Public, podUID string) bool
}

// Plan is what follows from a World. It does not depend on the order of the
// World's lists.
type Plan struct {
	// Verdicts are of the World's rules, index by index.
	Verdicts []Verdict
	// Delete are indexes of rules that expired long ago.
	Delete []int
	// Agents are sorted by key, then by PodUID. A key has an entry for each pod
	// for which somebody named it: usually one, but nothing keeps a user from
	// naming the key of an agent that is in another pod. The agent itself says
	// where it is. No key of a Laptop is among them.
	Agents []Agent
	// Ties are sorted by agent, laptop, protocol and port, each once.
	Ties []Tie
	// Egress are sorted by peer: those whose flows leave from a pod, or must not
	// leave at all.
	Egress []Egress
	// Next is when to ask again even if nothing changes; zero for never.
	Next time.Time
}

// Verdict is what to tell about a rule.
type Verdict struct {
	Accepted        bool
	Reason, Message string // one of v1alpha1.Reason...
	Renew           int64  // the one that Accepted speaks of
	Expires         time.Time
}

// Agent is an agent that may talk to the gateway.
type Agent struct {
	Key                    key.Public
	PodUID, Namespace, Pod string
	// Addrs are the pod's addresses, sorted; none: unknown.
	Addrs []netip.Addr
	// Chosen: this is the agent that the pod's rules are with, or may come to be
	// with as none is connected yet. One that is not gets no rules, which ends it
	// unless it has Egress.
	Chosen bool
	// Rules are in the order of age, their Here unset. None is of egress.
	Rules []control.Rule
	// Egress are the names of the rules of egress that name it, in the order of
	// age.
	Egress []string
}

// Egress is from where the flows of a laptop leave that has rules of egress, in
// whatever state they are: as nobody but its user is to decide that they leave as
// the gateway's.
type Egress struct {
	Peer string
	// Agent is the tunnel address of the agent of the oldest accepted rule whose
	// agent is connected, and Rule that rule's name. They are zero when there is
	// none: no flow may leave.
	Agent netip.Addr
	Rule  string
}

// Tie is a way through the gateway, from an agent's tunnel address to a port at a
// laptop's relay address, and back.
type Tie struct {
	Agent, Laptop netip.Addr
	Port          uint16
	Proto         steer.Protocol
}
