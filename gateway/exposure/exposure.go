// Package exposure decides which exposed ports lead to which laptop, and by which
// ports of the gateways' pods. Its Book is pure, as that of gateway/steering: it
// is told of objects and of the time and answers with a Plan. It knows neither
// Kubernetes nor sockets.
package exposure

import (
	"net/netip"
	"strings"
	"time"

	"podnet.dev/gateway/lease"
	"podnet.dev/internal/steer"
)

// The ports of the gateways' pods that exposures have. The pods' kernels are told
// to connect from none of them (net.ipv4.ip_local_reserved_ports).
const (
	FirstPort = 20000
	LastPort  = 29999
)

// What there may be.
const (
	MaxPerUser = 32
	MaxAll     = 256
	MaxPorts   = 8 // of an exposure
)

// Object is an Exposure as far as this package cares.
type Object struct {
	UID, Namespace, Name string
	Created              time.Time
	User, Peer           string
	Renew                int64
	Ports                []Port // whose Pod is unset
	// Ended: the status says that this very renew has expired.
	Ended bool
}

// Port is an exposed port.
type Port struct {
	Protocol steer.Protocol
	Port     uint16 // the Service's
	Relay    uint16 // at the laptop's relay address
	Pod      uint16 // of the gateways' pods; 0: none yet
}

// Service is what stands for an exposure in the gateways' namespace.
type Service struct {
	Name     string
	Exposure string // UID
	Created  time.Time
	Ports    []Port // whose Relay is unset
}

// ServiceName is the name of the Service for the Exposure with that UID.
func ServiceName(uid string) string {
	const digits = 12
	short := strings.ReplaceAll(uid, "-", "")
	return "podnet-x-" + short[:min(digits, len(short))]
}

// World is all that is known at one moment. Objects that are being deleted are
// not in it.
type World struct {
	Objects  []Object
	Services []Service
	Laptops  []lease.Laptop
	// PolicyHolds, Connected and Leader are as in enrol.World: the leader gives
	// ports, the others take them from the Services.
	PolicyHolds, Connected, Leader bool
}

// Plan is what follows from a World. It does not depend on the order of the
// World's lists.
type Plan struct {
	// Verdicts are of the World's objects, index by index.
	Verdicts []Verdict
	// Delete are indexes of objects that expired long ago.
	Delete []int
	// Live are the exposures that lead to a laptop, oldest first.
	Live []Live
	// Next is when to ask again even if nothing changes; zero for never.
	Next time.Time
}

// Verdict is what to tell about an object.
type Verdict struct {
	Ready           bool
	Reason, Message string // one of v1alpha1.Reason...
	Renew           int64  // the one that Ready speaks of
	Expires         time.Time
}

// Live is an exposure that leads to a laptop.
type Live struct {
	UID, Namespace, Name string
	Laptop               netip.Addr // its relay address
	// Service is the name of the Service in the gateways' namespace; Settled says
	// that it is there, with these ports.
	Service string
	Settled bool
	// Ports are in the order of the object's. On a gateway that does not lead
	// they may have no Pod yet.
	Ports []Port
}
