package relay

import (
	"net/netip"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// Rule is one steering rule of this machine, in all its pods.
type Rule struct {
	// Name is the rule's common name.
	Name string
	// Port is the rule's own at our relay address, above 1023, not
	// control.LivePort. Two rules never share one.
	Port     uint16
	Protocol steer.Protocol
	// Local is where the traffic goes: 3000 (this machine, whichever family
	// answers), app.test:3000, [::1]:3000.
	Local string
	// Agents are the pods that may send here, by their agents' tunnel addresses.
	Agents map[netip.Addr]Pod
	// Inspect keeps what the last connections carried, see Inspected. TCP only.
	Inspect bool

	// gateways may send here, no agents; nil: it is no Exposure.
	gateways []netip.Addr
}

// Exposure is a port of this machine that gateways bring connections to, from
// whoever it is that reaches them.
type Exposure struct {
	// Name is NAMESPACE/NAME; no Rule has one like it.
	Name string
	// Port is at our relay address, as a Rule's.
	Port     uint16
	Protocol steer.Protocol
	// Local is where the traffic goes, as a Rule's.
	Local string
	// Gateways are those that may send here, by their tunnel addresses.
	Gateways []netip.Addr
}

// Served counts what an Exposure took.
type Served struct {
	// Connections are those that are over, of UDP the flows; Failed those of them
	// for which the local program was not there.
	Connections, Failed int64
	// Trouble is why the local program could not be reached the last time, ""
	// when it was.
	Trouble string
}

// Pod is a pod that a rule steers, or the Service in its place.
type Pod struct {
	Namespace, Name string
	// UID is where the agent has to be. That of a Service is in no pod of it: empty.
	UID string
	// Object is the name of the rule's SteeringRule for this pod.
	Object string
}

// Live is what is known of the agent in a pod.
type Live struct {
	Namespace, Pod, PodUID string
	Agent                  netip.Addr
	// Connected is true while the agent beats, Since when that began.
	Connected bool
	Since     time.Time
	// LastBeat is when the agent last said something; zero: never.
	LastBeat time.Time
	// Lost counts events that the agent could not send.
	Lost int64
	// Trouble is why the agent was sent away, "" if it was not.
	Trouble string
	// Rules are those of this machine in the pod, by Object.
	Rules []LiveRule
}

// LiveRule is a rule in one pod.
type LiveRule struct {
	Rule, Object string
	// InForce says that the agent redirects for this rule now.
	InForce bool
	// Counts are since the agent began.
	Counts control.Counts
	// Trouble is why the local program could not be reached the last time, as
	// in "connection refused at 127.0.0.1:3000"; "" when it was.
	Trouble string
}

// Request is a request, or a connection of a whole port, that is over.
type Request struct {
	// Rule is the rule's common name, or the Exposure's, whose pod is not known.
	Rule           string
	Namespace, Pod string
	// By is who answered: ByLaptop or ByApp.
	By     string
	Mirror bool
	// Began is by the pod's clock.
	Began time.Time
	Took  time.Duration
	// Method, Target, Host and Status are of HTTP only.
	Method, Target, Host string
	Status               int
	// In and Out count bytes from and to the client.
	In, Out int64
	// Error is what went wrong, in the laptop's words where it knows.
	Error string
}

// Who answered a Request.
const (
	ByLaptop = "laptop"
	ByApp    = "app"
)

// Inspection is a connection of a rule that is inspected, as far as it is kept.
type Inspection struct {
	Namespace, Pod string
	Began          time.Time
	// Exchanges are the last of the connection, newest last; Forgotten counts
	// those before them.
	Exchanges []Exchange
	Forgotten int64
	Over      bool
	// Replay is when that connection began whose request this one had once more;
	// zero: it is no replay. Its pod is not known.
	Replay time.Time
}

// Exchange is what a pod sent, and what the local program answered before the pod
// went on: of HTTP/1 a request and its response, unless requests are pipelined.
type Exchange struct {
	Began time.Time
	// In is what the pod sent first, Out what the local program answered first;
	// InMore and OutMore count the bytes after those.
	In, Out         []byte
	InMore, OutMore int64
}

const (
	// InspectBytes is how much of each direction of a connection is kept, in how
	// many exchanges at most; InspectConns is of how many connections of a rule.
	InspectBytes     = 64 << 10
	InspectExchanges = 100
	InspectConns     = 20
	// MaxRequests is how many requests of a rule are kept.
	MaxRequests = 200
)
