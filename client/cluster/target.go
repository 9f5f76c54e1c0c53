package cluster

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"podnet.dev/client/localapi"
)

// Target is what to steer: one object, or the pods that a label selector finds.
type Target struct {
	// Kind is pod, deploy, rs, sts, ds, job or svc; empty with a Selector.
	Kind, Name string
	// Selector is a label selector as kubectl takes it.
	Selector string
}

// String is deploy/web, or -l app=web.
func (t Target) String() string {
	if t.Selector != "" {
		return "-l " + t.Selector
	}
	return t.Kind + "/" + t.Name
}

// kind is a sort of object that leads to pods.
type kind struct {
	short string
	names []string // lower case, as kubectl takes them
	group string   // "" for the core
	plural,
	object string // as Kind in an object
}

var kinds = []kind{
	{"pod", []string{"po", "pod", "pods"}, "", "pods", "Pod"},
	{"deploy", []string{"deploy", "deployment", "deployments"}, "apps", "deployments", "Deployment"},
	{"rs", []string{"rs", "replicaset", "replicasets"}, "apps", "replicasets", "ReplicaSet"},
	{"sts", []string{"sts", "statefulset", "statefulsets"}, "apps", "statefulsets", "StatefulSet"},
	{"ds", []string{"ds", "daemonset", "daemonsets"}, "apps", "daemonsets", "DaemonSet"},
	{"job", []string{"job", "jobs"}, "batch", "jobs", "Job"},
	{"svc", []string{"svc", "service", "services"}, "", "services", "Service"},
}

// kindOf finds a kind by one of kubectl's names, with or without its group:
// deploy, Deployments, deployment.apps, deployments.v1.apps.
func kindOf(name string) (kind, bool) {
	name, group, qualified := strings.Cut(strings.ToLower(name), ".")
	group = strings.TrimPrefix(group, "v1.")
	for _, k := range kinds {
		for _, n := range k.names {
			if n == name && (!qualified || group == k.group) {
				return k, true
			}
		}
	}
	return kind{}, false
}

// path is where the objects of the kind are.
func (k kind) path(namespace string) string {
	at := "/api/v1"
	if k.group != "" {
		at = "/apis/" + k.group + "/v1"
	}
	return at + "/namespaces/" + namespace + "/" + k.plural
}

// isName says whether an object can be called so. Names that somebody else has chosen,
// a gateway or whoever writes workloads, become parts of paths that are called with the
// user's rights: one like ../../x would lead elsewhere.
func isName(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }

func badTarget(format string, a ...any) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf(format, a...), Status: http.StatusBadRequest,
		Hint: "name what to steer as deploy/web, pod/web-0, svc/web, sts/db, ds/agent, rs/web-5d4 or job/load, or give a label selector by -l"}
}

// ParseTarget reads KIND/NAME, in kubectl's names of either length, or a label
// selector: one of the two must be given.
func ParseTarget(text, selector string) (Target, error) {
	switch {
	case text != "" && selector != "":
		return Target{}, badTarget("both %s and the selector %s name what to steer", text, selector)
	case text == "" && selector == "":
		return Target{}, badTarget("nothing to steer was named")
	case selector != "":
		s, err := labels.Parse(selector)
		if err != nil || s.Empty() {
			return Target{}, badTarget("%q is no label selector", selector)
		}
		return Target{Selector: selector}, nil
	}
	name, object, ok := strings.Cut(text, "/")
	if !ok {
		return Target{}, badTarget("%q does not say its kind", text)
	}
	k, known := kindOf(name)
	if !known {
		return Target{}, badTarget("%q is no kind that can be steered", name)
	}
	if !isName(object) {
		return Target{}, badTarget("%q is no name of an object", object)
	}
	return Target{Kind: k.short, Name: object}, nil
}

// PortName is a port as users write it: 8080, http, 9000/udp. One of Number
// and Name is set.
type PortName struct {
	Number   uint16
	Name     string
	Protocol corev1.Protocol // TCP or UDP
}

func (p PortName) String() string {
	s := p.Name
	if p.Number != 0 {
		s = strconv.Itoa(int(p.Number))
	}
	if p.Protocol == corev1.ProtocolUDP {
		s += "/udp"
	}
	return s
}

// ParsePort reads a number from 1 to 65535 or the name of a port, with /tcp or
// /udp after it or nothing, which means TCP.
func ParsePort(text string) (PortName, error) {
	bad := &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%q is no port", text), Status: http.StatusBadRequest,
		Hint: "a port is a number from 1 to 65535 or the name of a port, with /udp after it for UDP"}
	name, protocol, qualified := strings.Cut(text, "/")
	p := PortName{Protocol: corev1.ProtocolTCP}
	switch {
	case strings.EqualFold(protocol, "udp"):
		p.Protocol = corev1.ProtocolUDP
	case qualified && !strings.EqualFold(protocol, "tcp"):
		return PortName{}, bad
	}
	if strings.Trim(name, "0123456789") == "" {
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil || n == 0 {
			return PortName{}, bad
		}
		p.Number = uint16(n)
		return p, nil
	}
	// Services allow longer names than containers do.
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return PortName{}, bad
	}
	p.Name = name
	return p, nil
}
