// Package sandbox is a room for commands: a user, network and mount namespace of its
// own, made without any privilege. In it a session has its TUN device and its routes,
// /etc/resolv.conf is as in a pod, and nothing of it can be seen outside.
//
//	this process, outside                     the agent, inside
//	WireGuard <---- fd of podnet0 ------------ podnet0  <--- the cluster's prefixes
//	forwarder <---- fd of host0   ------------ host0    <--- everything else
//	   |  the internet, this machine's           |
//	   |  loopback, the session's DNS            starts commands, without any capability
//
// The agent is this very program once more. It keeps the namespaces, changes the
// network as it is told by a socket, starts commands, reaps them, and ends with
// everything in it when the socket does. It sees no key, no kubeconfig and no packet.
//
// The package knows no cluster: a session changes a Sandbox by helper.Session.
package sandbox

import (
	"fmt"
	"net/netip"
	"os"
)

// Addresses inside that are not the cluster's. They are from 198.18.0.0/15, which is for
// tests of network devices (RFC 2544) and in no cluster; podnet's tunnels have the lower
// half of it.
var (
	// Own is the sandbox's own on the way outside.
	Own = netip.MustParseAddr("198.19.0.1")
	// Host is where programs inside find this machine's loopback.
	Host = netip.MustParseAddr("198.19.0.2")
	// DNS is where names are asked for.
	DNS = netip.MustParseAddr("198.19.0.3")
	// own6 is Own for IPv6: the unique local prefix beside the one of the tunnels.
	own6 = netip.MustParseAddr("fd70:6f64:6e65:7401::1")
)

// HostName is Host's name inside.
const HostName = "host.podnet.internal"

// BlockedError says that this machine lets nobody have a Sandbox.
type BlockedError struct {
	// Attempt is what failed, as "make a user namespace".
	Attempt string
	Err     error
	// Advice is what the user can do about it.
	Advice string
}

func (e *BlockedError) Error() string { return fmt.Sprintf("%s: %v", e.Attempt, e.Err) }
func (e *BlockedError) Unwrap() error { return e.Err }
func (e *BlockedError) Hint() string  { return e.Advice }

// Blocked tells the error from those about what was asked for.
func (e *BlockedError) Blocked() {}

// Command is what is to run in a Sandbox.
type Command struct {
	// Path is the program, Args are its words, of which the first is its name.
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	// Foreground leaves it in its caller's process group, so that a terminal stops
	// and interrupts both. Otherwise it has a group of its own.
	Foreground bool `json:"foreground,omitempty"`
	// Files are its standard input, output and error.
	Files [3]*os.File `json:"-"`
}

// Exit is how a command ended: by itself with a code, or by a signal.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Status is the exit status that a shell would give it.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}
