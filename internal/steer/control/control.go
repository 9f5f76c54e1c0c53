// Package control is what the agent in a pod says to the gateways and to the
// laptops, and they to it: JSON values, one a line, inside the tunnel.
//
//	agent -> its log        Hello        once, so that its user learns its key
//	agent -> gateway        FromAgent    every Beat, and when something changed
//	gateway -> agent        ToAgent      in answer, and with each new rule set
//	agent -> laptop         FromPod      every Beat, and for each request
//	laptop -> agent         ToPod        in answer
//
// The agent dials all of them. A rule is in force while its laptop beats: who is
// silent for Silence has lost the pod's traffic to the pod's own program.
//
// What a laptop sends as the pod goes the other way: a gateway dials the agent, at
// EgressPort, once for each flow.
//
//	gateway -> agent        Open         what to connect to
//	agent -> gateway        Opened       what came of it
//
// After that the connection is the flow's: TCP as it is, UDP as Datagrams.
package control

import (
	"net/netip"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
)

const (
	// Port is the TCP port of a gateway, at its key's tunnel address.
	Port = 7410
	// LivePort is the TCP port of a laptop, at its relay address. The ports of
	// rules there are all above 1023, and never this one.
	LivePort = 7411
	// EgressPort is the TCP port of an agent, at its key's tunnel address, where
	// gateways open the flows of those who send as the pod.
	EgressPort = 7412

	// Beat is how often the agent says something at least.
	Beat = time.Second
	// Alone is after how long the others do so by themselves. As a rule they answer the
	// agent's beat: then two beats and the word that they have come are three packets
	// and not four, and who is on the way wakes for them once and not twice.
	Alone = Beat + Beat/4
	// Hasty is how soon after its own last line a side does not answer another one.
	Hasty = Beat / 2
	// Silence is how long a side may say nothing before it counts as gone.
	Silence = 3 * Beat

	// MaxLine is the longest line in bytes. 256 rules of the usual size fit.
	MaxLine = 1 << 20
	// MaxRules is how many rules a pod has at most.
	MaxRules = 256
)

// Version is the protocol's. A side that finds another one ends the connection.
const Version = "agent/v1"

// Hello is the one line that the agent prints to its standard output.
type Hello struct {
	// Podnet is Version.
	Podnet string `json:"podnet"`
	// Version is the agent program's.
	Version   string     `json:"version,omitempty"`
	PodUID    string     `json:"podUID,omitempty"`
	PublicKey key.Public `json:"publicKey"`
	// Error and Hint say why there will be no agent.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// ToAgent is a line of a gateway. Without a Set it is a beat.
type ToAgent struct {
	Set *Set `json:"set,omitempty"`
}

// Set is all the rules that are accepted for a pod, as one gateway sees it. A
// Set without rules and without Egress tells the agent to undo everything and to
// end.
type Set struct {
	// Generation grows with each Set of this gateway.
	Generation int64  `json:"generation"`
	Rules      []Rule `json:"rules"`
	// Egress are the names of the rules by which flows leave through this agent.
	// While there are any, the gateway may dial EgressPort.
	Egress []string `json:"egress,omitempty"`
	// Gateways are all there are, this one included: the agent goes to each.
	Gateways []Gateway `json:"gateways"`
}

// Rule is a rule and the way to its laptop.
type Rule struct {
	steer.Rule
	// Laptop is its owner's relay address; several rules may share it.
	Laptop netip.Addr `json:"laptop"`
	// RelayPort is the rule's own there, for TCP or for UDP.
	RelayPort uint16 `json:"relayPort"`
	// Here says that the laptop is with this gateway: it had a handshake with it
	// since it was last with another one, as far as this gateway knows.
	Here bool `json:"here,omitempty"`
}

// Gateway is a gateway as agents reach it.
type Gateway struct {
	PublicKey key.Public       `json:"publicKey"`
	Endpoints []netip.AddrPort `json:"endpoints"` // UDP
}

// FromAgent is a line of an agent to a gateway.
type FromAgent struct {
	// Podnet is Version, in the first line.
	Podnet string `json:"podnet,omitempty"`
	PodUID string `json:"podUID,omitempty"` // in the first line
	// Generation is of the last Set of this gateway that is in force.
	Generation int64 `json:"generation,omitempty"`
	// Error is what keeps the agent from it.
	Error string `json:"error,omitempty"`
	// Counts are by the rule's name, since the agent began; only those that
	// changed since the last line.
	Counts map[string]Counts `json:"counts,omitempty"`
}

// Counts are of one rule.
type Counts struct {
	Matched int64 `json:"matched"` // requests or connections that the rule took; flows that left by one of egress
	Failed  int64 `json:"failed"`  // those of them that the laptop did not answer; flows that could not be opened
	Passed  int64 `json:"passed"`  // requests of its port that no rule took
}

// ToPod is a line of a laptop: a beat.
type ToPod struct {
	// Podnet is Version, in the first line.
	Podnet string `json:"podnet,omitempty"`
}

// FromPod is a line of an agent to a laptop. Without an Event it is a beat.
type FromPod struct {
	// Podnet is Version, PodUID the pod's, in the first line.
	Podnet string `json:"podnet,omitempty"`
	PodUID string `json:"podUID,omitempty"`
	// Rules are the names of the laptop's rules that are in force, when they
	// have changed.
	Rules *[]string `json:"rules,omitempty"`
	Event *Event    `json:"event,omitempty"`
	// Lost counts events that were not sent because too many waited.
	Lost int64 `json:"lost,omitempty"`
	// Counts are as in FromAgent, of the laptop's rules only.
	Counts map[string]Counts `json:"counts,omitempty"`
}

// Event is a request, or a connection of a whole port, that is over.
type Event struct {
	Rule   string    `json:"rule"`
	Began  time.Time `json:"began"`
	Mirror bool      `json:"mirror,omitempty"`
	// ByApp says that the pod's own program answered, as the laptop could not.
	ByApp  bool   `json:"byApp,omitempty"`
	Method string `json:"method,omitempty"`
	Target string `json:"target,omitempty"`
	Host   string `json:"host,omitempty"`
	Status int    `json:"status,omitempty"`
	// Took is in nanoseconds.
	Took time.Duration `json:"took"`
	// In and Out count bytes from and to the client.
	In    int64  `json:"in"`
	Out   int64  `json:"out"`
	Error string `json:"error,omitempty"`
}
