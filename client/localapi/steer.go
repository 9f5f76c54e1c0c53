package localapi

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"podnet.dev/internal/steer"
)

// SteerRequest asks for a rule: what reaches a port of the target's pods and
// matches goes to a port of this machine, or is copied there. The zero value of
// a field is its default.
type SteerRequest struct {
	// Kube is which cluster the caller means; it must be the session's.
	Kube Kube `json:"kube"`
	// Namespace of the target; empty means the session's own.
	Namespace string `json:"namespace,omitempty"`
	// Name of the rule; empty means one made of target and port.
	Name string `json:"name,omitempty"`
	// Target is what to steer, as deploy/web. Selector is a label selector in
	// its place, as app=web.
	Target   string `json:"target,omitempty"`
	Selector string `json:"selector,omitempty"`
	// Via is service to steer the target's Service where no agent may be put into
	// its pods: a gateway takes what reaches the Service. Empty: by agents.
	Via string `json:"via,omitempty"`
	// Port is the pods', or with Via the Service's: 8080, http or 9000/udp.
	Port string `json:"port"`
	// Local is where it goes: 3000, app.test:3000 or [::1]:3000. Empty means the
	// same number.
	Local string `json:"local,omitempty"`
	// Mirror asks for a copy; the pods answer.
	Mirror bool `json:"mirror,omitempty"`
	// Matches: a request must match any of them. None means the whole port.
	Matches []steer.Match `json:"matches,omitempty"`
	// OnError is fail or app: what becomes of a request that this machine does
	// not take. Empty means fail.
	OnError string `json:"onError,omitempty"`
	// ClientAddress is proxy or header: how the local program learns a client's
	// address. Empty means not at all.
	ClientAddress string `json:"clientAddress,omitempty"`
	// Inspect has the daemon keep what the last connections carry, see Inspections.
	// TCP only.
	Inspect bool `json:"inspect,omitempty"`
	// Hold ends the rule when this call's caller hangs up. Without it the rule
	// lives as long as the session.
	Hold bool `json:"hold,omitempty"`
}

// Values of SteerRequest.OnError.
const (
	OnErrorFail = "fail"
	OnErrorApp  = "app"
)

// ViaService is the value of SteerRequest.Via.
const ViaService = "service"

// SameAs reports whether a rule made for r is what o asks for.
func (r SteerRequest) SameAs(o SteerRequest) bool {
	bare := func(r SteerRequest) SteerRequest {
		r.Kube, r.Name, r.Hold = Kube{}, "", false
		r.Local, _ = r.LocalAddress()
		if r.OnError == "" {
			r.OnError = OnErrorFail
		}
		if len(r.Matches) == 0 {
			r.Matches = nil
		}
		return r
	}
	return reflect.DeepEqual(bare(r), bare(o))
}

// Words are the target as one reads it.
func (r SteerRequest) Words() string {
	if r.Target == "" {
		return "pods with " + r.Selector
	}
	return r.Target
}

var (
	ruleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	portName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// Check finds what can be known to be wrong without a cluster.
func (r SteerRequest) Check() error {
	if (r.Target == "") == (r.Selector == "") {
		return usage("a target or a selector says what to steer, one of the two", "podnet steer deploy/web 8080:3000")
	}
	if r.Target != "" {
		if kind, name, ok := strings.Cut(r.Target, "/"); !ok || kind == "" || name == "" || strings.Contains(name, "/") {
			return usage(fmt.Sprintf("target %q: want KIND/NAME", r.Target), "as in deploy/web, pod/web-7c9f-x2 or svc/web")
		}
	}
	if r.Name != "" && !ruleName.MatchString(r.Name) {
		return usage(fmt.Sprintf("name %q: want at most 63 of a-z, 0-9 and -", r.Name), "--name web")
	}
	_, protocol, err := r.PodPort()
	if err != nil {
		return err
	}
	if r.Inspect && protocol == steer.UDP {
		return usage("what comes by UDP is not inspected", "--inspect is for ports of TCP")
	}
	if _, err := r.LocalAddress(); err != nil {
		return err
	}
	if r.OnError != "" && r.OnError != OnErrorFail && r.OnError != OnErrorApp {
		return usage(fmt.Sprintf("on-error %q: want fail or app", r.OnError), "--on-error=app gives the pod what this machine does not take")
	}
	if r.Via != "" && r.Via != ViaService {
		return usage(fmt.Sprintf("via %q: want service", r.Via), "--via service steers a Service where no agent may be put into its pods")
	}
	rule := r.Rule()
	if r.Via != "" && rule.Protocol != steer.TCP {
		return usage("a Service is steered by TCP only", "without --via service agents in the pods take UDP, too")
	}
	rule.Name, rule.Owner = "rule", "me"
	if rule.Port == 0 {
		rule.Port = 1 // of a named one
	}
	if err := rule.Validate(); err != nil {
		return usage("the rule cannot be: "+err.Error(), "podnet steer --help")
	}
	return nil
}

// Rule is what r asks for, without name and owner; its port is 0 if named.
func (r SteerRequest) Rule() steer.Rule {
	mode := steer.Steal
	if r.Mirror {
		mode = steer.Mirror
	}
	port, protocol, _ := r.PodPort()
	return steer.Rule{Protocol: protocol, Port: port, Mode: mode, Matches: r.Matches,
		ToApp: r.OnError == OnErrorApp, ClientAddress: steer.ClientAddress(r.ClientAddress)}
}

// PodPort reads Port: its number, 0 if it is a name, and its protocol.
func (r SteerRequest) PodPort() (uint16, steer.Protocol, error) {
	text, suffix, cut := strings.Cut(r.Port, "/")
	protocol := steer.TCP
	switch {
	case !cut || suffix == "tcp":
	case suffix == "udp":
		protocol = steer.UDP
	default:
		return 0, "", usage(fmt.Sprintf("port %q: want tcp or udp behind the slash", r.Port), "9000/udp:9000")
	}
	n, err := parsePort(text)
	if err != nil && !(portName.MatchString(text) && strings.ContainsFunc(text, func(c rune) bool { return c >= 'a' })) {
		return 0, "", usage(fmt.Sprintf("port %q: want a number from 1 to 65535 or the name of a port", r.Port), "PORT[:LOCAL], as in 8080:3000, http:3000 or 9000/udp:9000")
	}
	return n, protocol, nil
}

// LocalAddress is Local with its default in place.
func (r SteerRequest) LocalAddress() (string, error) {
	local := r.Local
	if local == "" {
		n, _, err := r.PodPort()
		if err != nil {
			return "", err
		}
		if n == 0 {
			return "", usage(fmt.Sprintf("port %s has a name: say which port of this machine it goes to", r.Port), r.Port+":3000")
		}
		return strconv.Itoa(int(n)), nil
	}
	if _, err := localPort(local); err != nil {
		return "", err
	}
	return local, nil
}

// localPort is the number in a place of this machine: a port, or host:port.
func localPort(local string) (uint16, error) {
	port := local
	if strings.Contains(local, ":") {
		host, p, err := net.SplitHostPort(local)
		if err != nil || host == "" {
			return 0, usage(fmt.Sprintf("local %q: want a port, or host:port", local), "3000, app.test:3000 or [::1]:3000")
		}
		port = p
	}
	n, err := parsePort(port)
	if err != nil {
		return 0, usage(fmt.Sprintf("local port %q: want a number from 1 to 65535", port), "3000, app.test:3000 or [::1]:3000")
	}
	return n, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("no port")
	}
	return uint16(n), nil
}

// SteerEvent is one line of the answer to a SteerRequest.
type SteerEvent struct {
	Time time.Time      `json:"time"`
	Type SteerEventType `json:"type"`
	// Text says it in a sentence for people.
	Text string `json:"text,omitempty"`
	// Rule is how the rule stands, in ready and changed.
	Rule *SteerRule `json:"rule,omitempty"`
	// Service is, in instead, the one that may be steered.
	Service string `json:"service,omitempty"`
	Error   *Error `json:"error,omitempty"`
}

// SteerEventType is what a SteerEvent tells.
type SteerEventType string

// In this order, up to ready or error. Only a rule that is held has changed after
// it, and it may have an error as its last. Instead comes before an error: no agent
// may be put into the pods, and they have just one Service, which Via would steer.
const (
	SteerTarget  SteerEventType = "target"  // the target's pods are known
	SteerRules   SteerEventType = "rules"   // the objects are written
	SteerAgents  SteerEventType = "agents"  // so many agents are ready
	SteerReady   SteerEventType = "ready"   // everything is
	SteerChanged SteerEventType = "changed" // pods came or went, agents too
	SteerInstead SteerEventType = "instead" // their Service could be steered
	SteerFailed  SteerEventType = "error"   // there is no rule, and why
)

// SteerList answers for the rules that there are.
type SteerList struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Rules      []SteerRule `json:"rules"`
}

// NewSteerList is a list of rules.
func NewSteerList(rules []SteerRule) SteerList {
	return SteerList{APIVersion: APIVersion, Kind: "SteerList", Rules: append([]SteerRule{}, rules...)}
}

// SteerRule is one rule with all of its pods.
type SteerRule struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Owner     string `json:"owner"`
	Target    string `json:"target"`
	// Via is service when a gateway takes what reaches the target's Service, which
	// stands in Pods then.
	Via string `json:"via,omitempty"`
	// Port as it was asked for, and Number; 0: it differs between the pods.
	Port          string        `json:"port"`
	Number        uint16        `json:"number,omitempty"`
	Protocol      string        `json:"protocol"`
	Mode          string        `json:"mode"`
	Matches       []steer.Match `json:"matches"`
	Local         string        `json:"local"`
	OnError       string        `json:"onError"`
	ClientAddress string        `json:"clientAddress,omitempty"`
	// Inspect: the daemon keeps what the last connections carry.
	Inspect bool `json:"inspect,omitempty"`
	// Held: the rule ends with the command that made it.
	Held  bool       `json:"held,omitempty"`
	Since *time.Time `json:"since,omitempty"`
	// ExpiresAt is when the first of its objects ends unless it is renewed.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	Ready     int        `json:"ready"`
	Pods      []SteerPod `json:"pods"`
	Matched   int64      `json:"matched"`
	Failed    int64      `json:"failed"`
	Passed    int64      `json:"passed"`
	// Others are the rules of others on the same port of the same pods.
	Others []SteerOther `json:"others,omitempty"`
}

// SteerPod is a pod of a rule, or its Service.
type SteerPod struct {
	Name   string `json:"name"`
	Object string `json:"object,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	// Address is the pod's own, or the Service's.
	Address string `json:"address,omitempty"`
	// State is one of the Steer constants below, Text why it is not ready.
	State SteerState `json:"state"`
	Text  string     `json:"text,omitempty"`
	Hint  string     `json:"hint,omitempty"`
}

// SteerState is how far a pod has come.
type SteerState string

const (
	SteerPodWaiting SteerState = "waiting" // on its way
	SteerPodReady   SteerState = "ready"   // the agent, or the gateway, has the rule in force
	SteerPodRefused SteerState = "refused" // somebody said no
	SteerPodTrouble SteerState = "trouble" // it does not work, and is tried again
)

// SteerOther is somebody else's rule.
type SteerOther struct {
	Owner string `json:"owner"`
	Name  string `json:"name"`
}

// SteeredRequest is a request, or a connection of a whole port, that a rule took
// and that is over.
type SteeredRequest struct {
	Time time.Time `json:"time"` // when it began
	Rule string    `json:"rule"`
	Pod  string    `json:"pod"`
	// By is laptop or app: who answered.
	By     string `json:"by"`
	Mirror bool   `json:"mirror,omitempty"`
	Method string `json:"method,omitempty"`
	Target string `json:"target,omitempty"`
	Host   string `json:"host,omitempty"`
	Status int    `json:"status,omitempty"`
	// TookMs is in milliseconds; In and Out count bytes from and to the client.
	TookMs float64 `json:"tookMs"`
	In     int64   `json:"in"`
	Out    int64   `json:"out"`
	Error  string  `json:"error,omitempty"`
}

// SteerStopped answers a stop and a revocation: the names of the rules that are
// no more.
type SteerStopped struct {
	Rules []string `json:"rules"`
}

// RevokeRequest asks to delete somebody's rule.
type RevokeRequest struct {
	Kube      Kube   `json:"kube"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}
