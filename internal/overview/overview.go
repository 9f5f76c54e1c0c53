// Package overview is what a gateway tells an administrator of its peers. It is one
// line of JSON for each time it is asked.
package overview

import "time"

// Command is what is run in the gateway's container to ask: the only command that
// the admission policy podnet-exec lets anybody run there. It answers once when it
// begins, and once more for each line on its standard input.
var Command = []string{"/podnet-gateway", "top"}

// Gateway is one gateway pod and who is there.
type Gateway struct {
	Pod     string    `json:"pod"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"` // by the gateway's clock
	Leader  bool      `json:"leader"`
	// Frozen: the API server is away, and leases do not run out.
	Frozen bool `json:"frozen,omitempty"`
	// PoliciesHold is false when the admission policies do not refuse what they must.
	PoliciesHold bool `json:"policiesHold"`
	// MemoryUsed may come to MemoryBudget, in bytes; 0 is no limit.
	MemoryUsed   uint64 `json:"memoryUsed"`
	MemoryBudget uint64 `json:"memoryBudget"`
	// Agents are those of steered pods that are connected here.
	Agents int    `json:"agents"`
	Peers  []Peer `json:"peers"` // by name
}

// Peer is one device.
type Peer struct {
	Name       string   `json:"name"`
	User       string   `json:"user"`
	Device     string   `json:"device"`
	Addresses  []string `json:"addresses"`
	Namespaces []string `json:"namespaces"`
	// Cluster: every namespace is open.
	Cluster bool `json:"cluster,omitempty"`
	// Rules are steering rules that are accepted, as NAMESPACE/NAME, each pod's
	// under the name that its user has given them.
	Rules []string `json:"rules,omitempty"`
	// Limits are those that the user is at, by their names.
	Limits []string `json:"limits,omitempty"`
	// Path is udp or apiserver, empty where nothing was heard of the device here.
	Path string `json:"path,omitempty"`
	// From is the address behind the path udp.
	From string `json:"from,omitempty"`
	// LastHandshake is WireGuard's; one that is older than 3 minutes says that the
	// device is not here now.
	LastHandshake *time.Time `json:"lastHandshake,omitempty"`
	// BytesUp and BytesDown are encrypted bytes from and to the device since it was
	// admitted here.
	BytesUp   uint64 `json:"bytesUp"`
	BytesDown uint64 `json:"bytesDown"`
	// Connections are open TCP connections, Datagrams flows of UDP and pings.
	Connections int `json:"connections"`
	Datagrams   int `json:"datagrams"`

	// Key finds the device in the tunnel. It is not told.
	Key [32]byte `json:"-"`
}

// Here reports whether the device is with this gateway at a time by its clock.
func (p Peer) Here(now time.Time) bool {
	return p.LastHandshake != nil && now.Sub(*p.LastHandshake) < 3*time.Minute
}
