// Package redirect sends a pod's ports to the steering agent, and takes that
// back by itself: the table goes with the agent's process, and what redirects
// lives for Timeout in the kernel. However the agent ends, the pod serves itself
// again.
//
// It works in the network namespace of the calling thread, the pod's, in one
// nftables table of its own, and touches no other table and no sysctl. What is
// done with a redirected connection is the caller's matter.
//
// A TCP connection is redirected when it begins, and then stays where it is.
// UDP has no beginning: each datagram goes where its port leads at that moment,
// so that a client that never changes its own port is not left with an agent
// that died.
//
// TCP is handed over to the agent's socket as it is (ADR 0023): the agent listens with
// ControlListener, and what it accepts is at the address and port of the pod. Where the
// kernel cannot do that, and always for UDP, the destination's port is translated,
// and its address kept. The kernel tells the agent's own connections from all others
// by ControlDialer, and its datagrams by the agent's group. In testdata the table is
// as nft would list it.
package redirect

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

const (
	// Timeout is how long a redirection outlives the last Set.
	Timeout = 5 * time.Second
	// RefreshEvery is how often to call Set: four calls may be late or lost.
	RefreshEvery = time.Second
	// MaxPorts is the largest number of ports in one Set.
	MaxPorts = 256
)

// The protocols of a Port, by their IANA numbers.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// Port is a port of the pod and the port of the agent that gets its traffic.
type Port struct {
	Protocol uint8  // TCP or UDP
	From     uint16 // the pod's, 1 to 65535
	To       uint16 // the agent's, 1 to 65535, on the wildcard address of IPv4 and IPv6
}

func (p Port) String() string {
	return fmt.Sprintf("%s %d to %d", protocolName(p.Protocol), p.From, p.To)
}

// PermissionError says that the kernel refused a change of the ruleset.
type PermissionError struct{ Err error }

func (e *PermissionError) Error() string { return "nftables: not permitted: " + e.Err.Error() }
func (e *PermissionError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *PermissionError) Hint() string {
	return "the agent needs the capability NET_ADMIN and user 0 in the pod; a seccomp or AppArmor profile may forbid netlink"
}

// UnsupportedError says that this kernel cannot do what the table needs.
type UnsupportedError struct{ Err error }

func (e *UnsupportedError) Error() string { return "nftables: not supported here: " + e.Err.Error() }
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *UnsupportedError) Hint() string {
	return "the node needs Linux 5.10 or later with nf_tables, and tproxy or NAT, for UDP NAT with conntrack zones; sandboxes such as gVisor have none of it"
}

var validID = regexp.MustCompile(`^[a-z0-9]{1,16}$`)

// tableName is that of the table of the agent id.
func tableName(id string) (string, error) {
	if !validID.MatchString(id) {
		return "", fmt.Errorf("agent id %q: want 1 to 16 of a-z and 0-9", id)
	}
	return "podnet_" + id, nil
}

// checkGroup refuses the group that most containers run in: their connections
// would count as the agent's and never be redirected.
func checkGroup(gid uint32) error {
	if gid == 0 {
		return errors.New("the agent needs a group of its own, not group 0")
	}
	return nil
}

func checkPorts(ports []Port) error {
	if len(ports) > MaxPorts {
		return fmt.Errorf("%d ports, at most %d can be redirected", len(ports), MaxPorts)
	}
	type end struct {
		protocol uint8
		port     uint16
	}
	from := make(map[end]bool, len(ports))
	for _, p := range ports {
		switch {
		case p.Protocol != TCP && p.Protocol != UDP:
			return fmt.Errorf("redirect %v: neither TCP nor UDP", p)
		case p.From == 0 || p.To == 0:
			return fmt.Errorf("redirect %v: port 0", p)
		case from[end{p.Protocol, p.From}]:
			return fmt.Errorf("redirect %v: the port is named twice", p)
		}
		from[end{p.Protocol, p.From}] = true
	}
	for _, p := range ports {
		if from[end{p.Protocol, p.To}] {
			return fmt.Errorf("redirect %v: the agent's own port is to be redirected", p)
		}
	}
	return nil
}

func protocolName(p uint8) string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", p)
}
