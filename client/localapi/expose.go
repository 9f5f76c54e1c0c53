package localapi

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"podnet.dev/internal/steer"
)

// ExposeRequest asks for a Service in the cluster whose traffic comes to a port of
// this machine. The zero value of a field is its default.
type ExposeRequest struct {
	// Kube is which cluster the caller means; it must be the session's.
	Kube Kube `json:"kube"`
	// Namespace of the Service; empty means the session's own.
	Namespace string `json:"namespace,omitempty"`
	// Name of the Service.
	Name string `json:"name"`
	// Local is where its traffic goes: 3000, app.test:3000, [::1]:3000, 5353/udp.
	Local string `json:"local"`
	// Ports are the Service's. None means, by TCP, 80 and the local number; by UDP
	// the local number.
	Ports []uint16 `json:"ports,omitempty"`
	// Hold ends the exposure when this call's caller hangs up. Without it the
	// exposure lives as long as the session.
	Hold bool `json:"hold,omitempty"`
}

// MaxExposedPorts is how many ports one Service of an ExposeRequest may have.
const MaxExposedPorts = 8

// serviceName is a DNS label that begins with a letter (RFC 1035).
var serviceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Check finds what can be known to be wrong without a cluster.
func (r ExposeRequest) Check() error {
	if r.Name == "" {
		return usage("the exposure has no name", "podnet expose 3000 --as my-api")
	}
	if !serviceName.MatchString(r.Name) {
		return usage(fmt.Sprintf("name %q: want a Service's, at most 63 of a-z, 0-9 and -, a letter first", r.Name), "podnet expose 3000 --as my-api")
	}
	if slices.Contains(r.Ports, 0) {
		return usage("port 0: want a number from 1 to 65535", "--port 8080")
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(r.Ports)))); n > MaxExposedPorts {
		return usage(fmt.Sprintf("%d ports are more than %d", n, MaxExposedPorts), "expose some of them by another name")
	}
	_, _, _, err := r.Place()
	return err
}

// Place is where the traffic goes on this machine, by which protocol, and the ports
// of the Service, sorted.
func (r ExposeRequest) Place() (local string, protocol steer.Protocol, ports []uint16, err error) {
	local, suffix, cut := strings.Cut(r.Local, "/")
	protocol = steer.TCP
	switch {
	case !cut || suffix == "tcp":
	case suffix == "udp":
		protocol = steer.UDP
	default:
		return "", "", nil, usage(fmt.Sprintf("local %q: want tcp or udp behind the slash", r.Local), "5353/udp")
	}
	number, err := localPort(local)
	if err != nil {
		return "", "", nil, err
	}
	ports = slices.Clone(r.Ports)
	switch {
	case len(ports) > 0:
	case protocol == steer.UDP:
		ports = []uint16{number}
	default:
		ports = []uint16{80, number}
	}
	slices.Sort(ports)
	return local, protocol, slices.Compact(ports), nil
}

// SameAs reports whether an exposure made for r is what o asks for.
func (r ExposeRequest) SameAs(o ExposeRequest) bool {
	local, protocol, ports, _ := r.Place()
	local2, protocol2, ports2, _ := o.Place()
	return r.Namespace == o.Namespace && r.Name == o.Name && local == local2 && protocol == protocol2 && slices.Equal(ports, ports2)
}

// ExposeEvent is one line of the answer to an ExposeRequest.
type ExposeEvent struct {
	Time time.Time       `json:"time"`
	Type ExposeEventType `json:"type"`
	// Text says it in a sentence for people.
	Text string `json:"text,omitempty"`
	// Exposure is how it stands, in ready and changed.
	Exposure   *Exposure          `json:"exposure,omitempty"`
	Connection *ExposedConnection `json:"connection,omitempty"`
	Error      *Error             `json:"error,omitempty"`
}

// ExposeEventType is what an ExposeEvent tells.
type ExposeEventType string

// In this order, up to ready or error. Only an exposure that is held has changed and
// connection after it, and it may have an error as its last.
const (
	ExposeAdmitted   ExposeEventType = "admitted"   // the gateway leads to this machine
	ExposeReady      ExposeEventType = "ready"      // and the Service to the gateway
	ExposeChanged    ExposeEventType = "changed"    // it is not ready any more, or again
	ExposeConnection ExposeEventType = "connection" // a connection is over
	ExposeFailed     ExposeEventType = "error"      // there is no exposure, and why
)

// ExposeList answers for the exposures that there are.
type ExposeList struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Exposures  []Exposure `json:"exposures"`
}

// NewExposeList is a list of exposures.
func NewExposeList(all []Exposure) ExposeList {
	return ExposeList{APIVersion: APIVersion, Kind: "ExposeList", Exposures: append([]Exposure{}, all...)}
}

// Exposure is a port of a machine that has a Service's name in the cluster.
type Exposure struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Owner     string   `json:"owner"`
	Local     string   `json:"local"`
	Protocol  string   `json:"protocol"`
	Ports     []uint16 `json:"ports"`
	// Host is the name of the gateway's Service, to which the other one leads.
	Host string `json:"host,omitempty"`
	// State is one of the Expose constants below, Text why it is not ready, or what
	// is wrong at this machine.
	State ExposeState `json:"state"`
	Text  string      `json:"text,omitempty"`
	Hint  string      `json:"hint,omitempty"`
	// Held: the exposure ends with the command that made it.
	Held  bool       `json:"held,omitempty"`
	Since *time.Time `json:"since,omitempty"`
	// ExpiresAt is when it ends unless it is renewed.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// Connections are those that are over, Failed those of them that nobody took
	// on this machine. They are known of this machine's exposures alone.
	Connections int64 `json:"connections"`
	Failed      int64 `json:"failed"`
}

// ExposeState is how far an exposure has come.
type ExposeState string

const (
	ExposeStateWaiting ExposeState = "waiting" // on its way
	ExposeStateReady   ExposeState = "ready"
	ExposeStateTrouble ExposeState = "trouble" // it does not work, and is tried again
)

// ExposedConnection is a connection to an exposure, of UDP a flow, that is over. Who
// made it is not known on this side of the gateway.
type ExposedConnection struct {
	Time      time.Time `json:"time"` // when it began
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	// TookMs is in milliseconds; In and Out count bytes from and to the client.
	TookMs float64 `json:"tookMs"`
	In     int64   `json:"in"`
	Out    int64   `json:"out"`
	// Error is why nobody on this machine took it.
	Error string `json:"error,omitempty"`
}

// ExposeStopped answers a stop: the exposures that are no more, as NAMESPACE/NAME.
type ExposeStopped struct {
	Exposures []string `json:"exposures"`
}

func usage(message, hint string) error {
	return &Error{Code: CodeUsage, Message: message, Hint: hint, Status: http.StatusBadRequest}
}
