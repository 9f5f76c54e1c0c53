package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

// owner is the object that a target names, if it is no pod: a workload or a
// Service, as far as steering goes.
type owner struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector json.RawMessage // a LabelSelector, or a Service's plain map
		// Ports and addresses are a Service's.
		Ports      []corev1.ServicePort
		ClusterIP  string
		ClusterIPs []string
	}
}

func readOwner(raw []byte) (metav1.ObjectMeta, owner, error) {
	var o owner
	err := json.Unmarshal(raw, &o)
	return o.ObjectMeta, o, err
}

// selector finds the owner's pods.
func (o *owner) selector(t Target) (string, error) {
	var s labels.Selector
	var err error
	if t.Kind == "svc" {
		s, err = o.serviceSelector()
	} else {
		var set metav1.LabelSelector
		if len(o.Spec.Selector) > 0 {
			err = json.Unmarshal(o.Spec.Selector, &set)
		}
		if err == nil {
			s, err = metav1.LabelSelectorAsSelector(&set)
		}
	}
	if err != nil {
		return "", fmt.Errorf("read the selector of %s: %w", t, err)
	}
	if s.Empty() {
		return "", &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%s has no selector that says which pods are its own", t),
			Hint: "name the pods themselves, as pod/NAME or by -l", Status: http.StatusBadRequest}
	}
	return s.String(), nil
}

// serviceSelector finds a Service's pods. While a gateway takes what reaches it, its
// own selector finds none, and an annotation has the one before.
func (o *owner) serviceSelector() (labels.Selector, error) {
	raw := []byte(o.Annotations[v1alpha1.AnnotationSelector])
	if len(raw) == 0 {
		raw = o.Spec.Selector
	}
	var set map[string]string
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &set); err != nil {
			return nil, err
		}
	}
	return labels.SelectorFromSet(set), nil
}

// owns says whether a pod that the selector finds is the owner's: selectors of
// two workloads may overlap.
func (o *owner) owns(t Target, p candidate) bool {
	switch t.Kind {
	case "svc":
		return true
	case "deploy":
		// The ReplicaSet between them is named by both.
		return p.controller.Kind == "ReplicaSet" && p.hash != "" && p.controller.Name == o.Name+"-"+p.hash
	}
	return p.controller.UID == o.UID
}

// candidate is a pod that a selector found.
type candidate struct {
	Pod
	controller metav1.OwnerReference
	hash       string
	finished   bool
}

func readCandidate(raw []byte) (metav1.ObjectMeta, candidate, error) {
	var p corev1.Pod
	if err := json.Unmarshal(raw, &p); err != nil {
		return p.ObjectMeta, candidate{}, err
	}
	c := candidate{Pod: readPod(&p), hash: p.Labels["pod-template-hash"], finished: finished(&p)}
	if ref := metav1.GetControllerOf(&p); ref != nil {
		c.controller = *ref
	}
	return p.ObjectMeta, c, nil
}

// portOf is the number that a port has in a pod, 0 if it has none. o is the
// target, for the ports of a Service.
func portOf(p Pod, port PortName, o *owner) uint16 {
	if o != nil && len(o.Spec.Ports) > 0 {
		for _, s := range o.Spec.Ports {
			if protocolOf(s.Protocol) == port.Protocol && (port.Number != 0 && int32(port.Number) == s.Port || port.Name != "" && port.Name == s.Name) {
				return targetPort(p, s, o.Spec.ClusterIP == corev1.ClusterIPNone && port.Number != 0)
			}
		}
		// Perhaps it is the pods' port that was meant.
		for _, s := range o.Spec.Ports {
			if port.Number != 0 && protocolOf(s.Protocol) == port.Protocol && targetPort(p, s, false) == port.Number {
				return port.Number
			}
		}
		if port.Number != 0 && o.Spec.ClusterIP != corev1.ClusterIPNone {
			return 0
		}
	}
	if port.Number != 0 {
		return port.Number
	}
	return namedPort(p, port.Name, port.Protocol)
}

// targetPort is where a Service's port leads. Who calls a headless Service by
// number calls the pods themselves at it.
func targetPort(p Pod, s corev1.ServicePort, direct bool) uint16 {
	switch {
	case direct:
		return uint16(s.Port)
	case s.TargetPort.Type == intstr.String:
		return namedPort(p, s.TargetPort.StrVal, protocolOf(s.Protocol))
	case s.TargetPort.IntVal != 0:
		return uint16(s.TargetPort.IntVal)
	}
	return uint16(s.Port)
}

func namedPort(p Pod, name string, protocol corev1.Protocol) uint16 {
	for _, have := range p.Ports {
		if have.Name == name && have.Protocol == protocol {
			return have.Port
		}
	}
	return 0
}

func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// portsOf are the ports that a target has, in words.
func portsOf(pods []Pod, o *owner) []string {
	var all []string
	add := func(name string, number uint16, protocol corev1.Protocol) {
		s := PortName{Number: number, Protocol: protocol}.String()
		if name != "" {
			s = fmt.Sprintf("%s (%s)", name, s)
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	if o != nil && len(o.Spec.Ports) > 0 {
		for _, s := range o.Spec.Ports {
			add(s.Name, uint16(s.Port), protocolOf(s.Protocol))
		}
		return all
	}
	for _, p := range pods {
		for _, port := range p.Ports {
			add(port.Name, port.Port, port.Protocol)
		}
	}
	return all
}
