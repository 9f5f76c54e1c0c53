package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Pod is what steering must know of one.
type Pod struct {
	Namespace, Name, UID string
	// Ready is the pod's own condition. Terminating pods serve what they have
	// and get no new rule.
	Ready, Terminating bool
	// HostNetwork pods have the node's network and cannot be steered.
	HostNetwork bool
	// Node is empty until a node took the pod. HostIP are the node's addresses,
	// from which the kubelet probes.
	Node   string
	HostIP []netip.Addr
	IPs    []netip.Addr
	Ports  []PodPort
	// Agents are the agents that the pod ever had, the oldest first.
	Agents []AgentContainer

	// Created is when the pod was.
	Created time.Time

	groups []int64 // ids that its containers run with
	labels labels.Set
}

// PodPort is a port that a container declares.
type PodPort struct {
	Name     string
	Port     uint16
	Protocol corev1.Protocol
}

// AgentContainer is an ephemeral container of ours.
type AgentContainer struct {
	Name  string
	Image string
	State AgentState
	// Why is what the pod says of a container that waits or has ended.
	Why string
	// Keys are the public keys of the gateways that it was started with.
	Keys []string
	// NoRedirect says that it was started to send only: it can take nothing from
	// the pod.
	NoRedirect bool
}

// AgentState is how far a container is. One that ended never runs again.
type AgentState string

const (
	AgentWaiting AgentState = "waiting"
	AgentRunning AgentState = "running"
	AgentEnded   AgentState = "ended"
)

// Knows says whether the agent was started with one of the gateways' keys: it
// cannot reach others.
func (a AgentContainer) Knows(gateways []string) bool {
	return slices.ContainsFunc(a.Keys, func(k string) bool { return slices.Contains(gateways, k) })
}

// LiveAgents are those that run or are about to, the oldest first.
func (p Pod) LiveAgents() []AgentContainer {
	var live []AgentContainer
	for _, a := range p.Agents {
		if a.State != AgentEnded {
			live = append(live, a)
		}
	}
	return live
}

// agentPrefix begins the name of each of our containers.
const agentPrefix = "podnet-agent-"

// readPod keeps what steering must know.
func readPod(p *corev1.Pod) Pod {
	out := Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Terminating: p.DeletionTimestamp != nil,
		HostNetwork: p.Spec.HostNetwork, Node: p.Spec.NodeName, Created: p.CreationTimestamp.Time, labels: p.Labels}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, ip := range p.Status.HostIPs {
		out.HostIP = appendAddr(out.HostIP, ip.IP)
	}
	out.HostIP = appendAddr(out.HostIP, p.Status.HostIP)
	for _, ip := range p.Status.PodIPs {
		out.IPs = appendAddr(out.IPs, ip.IP)
	}
	out.IPs = appendAddr(out.IPs, p.Status.PodIP)
	if s := p.Spec.SecurityContext; s != nil {
		out.groups = append(out.groups, s.SupplementalGroups...)
		out.addGroups(s.RunAsGroup, s.FSGroup)
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		out.addContainer(c.SecurityContext)
	}
	for _, c := range slices.Concat(p.Spec.Containers, sidecars(p.Spec.InitContainers)) {
		for _, port := range c.Ports {
			out.Ports = append(out.Ports, PodPort{port.Name, uint16(port.ContainerPort), protocolOf(port.Protocol)})
		}
	}
	for i := range p.Spec.EphemeralContainers {
		c := &p.Spec.EphemeralContainers[i]
		out.addContainer(c.SecurityContext)
		if strings.HasPrefix(c.Name, agentPrefix) {
			out.Agents = append(out.Agents, readAgent(c, p.Status.EphemeralContainerStatuses))
		}
	}
	// A strategic merge patch, which everybody writes, puts its own in front.
	slices.Reverse(out.Agents)
	return out
}

// sidecars are the init containers that go on running.
func sidecars(all []corev1.Container) []corev1.Container {
	var some []corev1.Container
	for _, c := range all {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			some = append(some, c)
		}
	}
	return some
}

func (p *Pod) addContainer(s *corev1.SecurityContext) {
	if s != nil {
		p.addGroups(s.RunAsGroup)
	}
}

func (p *Pod) addGroups(ids ...*int64) {
	for _, id := range ids {
		if id != nil {
			p.groups = append(p.groups, *id)
		}
	}
}

func appendAddr(to []netip.Addr, text string) []netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil || slices.Contains(to, a) {
		return to
	}
	return append(to, a)
}

func readAgent(c *corev1.EphemeralContainer, all []corev1.ContainerStatus) AgentContainer {
	a := AgentContainer{Name: c.Name, Image: c.Image, State: AgentWaiting, Keys: gatewayKeys(c.Args), NoRedirect: slices.Contains(c.Args, noRedirect)}
	for _, s := range all {
		if s.Name != c.Name {
			continue
		}
		switch {
		case s.State.Running != nil:
			a.State = AgentRunning
		case s.State.Terminated != nil:
			a.State, a.Why = AgentEnded, strings.TrimPrefix(exitCode(s.State.Terminated), " ")
		case s.State.Waiting != nil:
			a.Why = s.State.Waiting.Reason
			if m := s.State.Waiting.Message; m != "" {
				a.Why += because(m, c.Image)
			}
		}
	}
	return a
}

// finished says that none of the pod's containers will ever run again.
func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
