package cluster

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/api/v1alpha1"
)

// WatchService follows a Service as WatchPods follows the pods of a target. The
// Service itself stands in the set in place of a pod, and port, one of the
// Service's or one that it leads to, is the number of the Service's.
func (c *Client) WatchService(ctx context.Context, namespace, name, port string) (<-chan PodSet, error) {
	p, err := ParsePort(port)
	if err != nil {
		return nil, err
	}
	return c.watch(ctx, &podWatch{c: c, namespace: namespace, target: Target{Kind: "svc", Name: name}, port: p, itself: true})
}

// itself is the set of a target that stands for itself: a Service.
func itself(t Target, namespace string, port PortName, o *owner) PodSet {
	s := PodSet{Port: map[string]uint16{}}
	if o == nil {
		s.Err = &NoTargetError{t, namespace}
		return s
	}
	p := Pod{Namespace: namespace, Name: o.Name, UID: string(o.UID), Ready: true, Terminating: o.DeletionTimestamp != nil}
	for _, ip := range append([]string{o.Spec.ClusterIP}, o.Spec.ClusterIPs...) {
		p.IPs = appendAddr(p.IPs, ip) // a headless Service has none
	}
	s.Pods = []Pod{p}
	if n := o.servicePort(port); n != 0 {
		s.Port[p.UID] = n
	} else {
		s.Err = &NoPortError{t, port, portsOf(nil, o)}
	}
	return s
}

// servicePort is the number of the Service's port that a user means, 0 if none:
// by its own number or name, or else by where it leads.
func (o *owner) servicePort(port PortName) uint16 {
	for _, by := range []func(corev1.ServicePort) bool{
		func(s corev1.ServicePort) bool {
			return port.Number != 0 && s.Port == int32(port.Number) || port.Name != "" && s.Name == port.Name
		},
		func(s corev1.ServicePort) bool {
			return port.Number != 0 && s.TargetPort == intstr.FromInt32(int32(port.Number)) || port.Name != "" && s.TargetPort == intstr.FromString(port.Name)
		},
	} {
		for _, s := range o.Spec.Ports {
			if protocolOf(s.Protocol) == port.Protocol && by(s) {
				return uint16(s.Port)
			}
		}
	}
	return 0
}

// Services are the names of the Services that lead to pods of a target, sorted. A
// target that is one is its own.
func (c *Client) Services(ctx context.Context, namespace string, t Target) ([]string, error) {
	if t.Kind == "svc" {
		return []string{t.Name}, nil
	}
	looking, cancel := context.WithCancel(ctx)
	defer cancel()
	sets, err := c.WatchPods(looking, namespace, t, "")
	if err != nil {
		return nil, err
	}
	set := <-sets
	cancel()
	for range sets { // until it is over
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	k, _ := kindOf("svc")
	var list struct{ Items []owner }
	switch err := c.get(ctx, k.path(namespace), &list); {
	case apierrors.IsForbidden(err):
		return nil, &ForbiddenError{User: c.User, Err: err, Ask: c.askSteer(namespace), Permission: Permission{Verb: "list", Resource: k.plural, Namespace: namespace}}
	case err != nil:
		return nil, c.explain("list the "+k.plural+" of", err)
	}
	names := []string{}
	for _, o := range list.Items {
		selector, err := o.serviceSelector()
		if err != nil {
			return nil, fmt.Errorf("read the selector of svc/%s: %w", o.Name, err)
		}
		if _, shadow := o.Labels[v1alpha1.LabelShadow]; shadow {
			continue // it stands for another one
		}
		if !selector.Empty() && slices.ContainsFunc(set.Pods, func(p Pod) bool { return selector.Matches(p.labels) }) {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}
