package town

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
)

// PodPort is the port of each pod, named "http".
const PodPort = 8080

// ErrApp says that a pod's own program answers.
var ErrApp = errors.New("the pod's own program answers")

// AddPod runs a pod in the namespace "shop", where every target has all pods.
func (w *Town) AddPod(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[name] = &pod{Pod: cluster.Pod{
		Namespace: "shop", Name: name, UID: "uid-" + name, Ready: true, Node: "node1",
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(100 + len(w.pods))})}, Ports: []cluster.PodPort{{Name: "http", Port: PodPort, Protocol: "TCP"}},
	}}
	w.podsChangedLocked()
}

// RemovePod ends a pod, with its agent and the rules that it owns.
func (w *Town) RemovePod(name string) {
	w.mu.Lock()
	p := w.pods[name]
	delete(w.pods, name)
	for rule, r := range w.rules {
		if r.Spec.PodUID == p.UID {
			delete(w.rules, rule)
		}
	}
	w.podsChangedLocked()
	w.mu.Unlock()
	w.killAgent(p)
}

// EndAgent kills the agent of a pod, as when it runs out of memory.
func (w *Town) EndAgent(name string) {
	w.mu.Lock()
	p := w.pods[name]
	w.mu.Unlock()
	w.killAgent(p)
}

// Rules are all SteeringRules there are, sorted by name.
func (w *Town) Rules() []v1alpha1.SteeringRule {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rulesLocked(labels.Everything())
}

func (w *Town) rulesLocked(which labels.Selector) []v1alpha1.SteeringRule {
	var all []v1alpha1.SteeringRule
	for _, name := range slices.Sorted(maps.Keys(w.rules)) {
		if r := w.rules[name]; which.Matches(labels.Set(r.Labels)) {
			all = append(all, *r.DeepCopy())
		}
	}
	return all
}

// Visit connects to a port of a pod by TCP, as any other pod does. It is ErrApp
// when no rule about the whole port is in force.
func (w *Town) Visit(ctx context.Context, name string, port uint16) (net.Conn, error) {
	w.mu.Lock()
	var found *v1alpha1.SteeringRule
	var stack *netstack.Stack
	var at netip.AddrPort
	if p := w.pods[name]; p != nil && p.agent != nil {
		stack = p.agent.stack
		for _, r := range w.rules {
			older := found == nil || r.CreationTimestamp.Before(&found.CreationTimestamp)
			if laptop := w.laptopLocked(r); older && r.Spec.PodUID == p.UID && r.Spec.Port == int32(port) && len(r.Spec.Matches) == 0 && slices.Contains(p.agent.inForce[laptop], r.Name) {
				found, at = r, netip.AddrPortFrom(laptop, uint16(r.Spec.RelayPort))
			}
		}
	}
	if found == nil {
		w.mu.Unlock()
		return nil, ErrApp
	}
	found.Status.Matched++
	w.mu.Unlock()
	c, err := stack.DialTCP(ctx, at)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// laptopLocked is the relay address of a rule's laptop; invalid: it is gone.
func (w *Town) laptopLocked(r *v1alpha1.SteeringRule) netip.Addr {
	if p := w.peers[r.Spec.Peer]; p != nil {
		if k, err := key.ParsePublic(p.Spec.PublicKey); err == nil {
			return k.RelayAddress6()
		}
	}
	return netip.Addr{}
}

// agentsLocked are the keys that rules name, and the ties between them and their
// laptops, in both directions.
func (w *Town) agentsLocked() (keys []key.Public, ties map[[2]netip.Addr]bool) {
	ties = map[[2]netip.Addr]bool{}
	for _, r := range w.rules {
		k, err := key.ParsePublic(r.Spec.AgentKey)
		if laptop := w.laptopLocked(r); err == nil && laptop.IsValid() {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
			ties[[2]netip.Addr{k.Address6(), laptop}], ties[[2]netip.Addr{laptop, k.Address6()}] = true, true
		}
	}
	return keys, ties
}

// letPass lets what is tied pass through a gateway.
func letPass(stack *netstack.Stack, ties map[[2]netip.Addr]bool) {
	stack.Relay(func(p *packet.Packet) bool { return ties[[2]netip.Addr{p.Src, p.Dst}] })
}

// podsChangedLocked tells all who watch pods.
func (w *Town) podsChangedLocked() {
	close(w.podsChanged)
	w.podsChanged = make(chan struct{})
}

func (w *Town) podsLocked(port uint16) cluster.PodSet {
	set := cluster.PodSet{Port: map[string]uint16{}}
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		p := w.pods[name].Pod
		p.Agents = slices.Clone(p.Agents)
		set.Pods = append(set.Pods, p)
		set.Port[p.UID] = port
	}
	return set
}

func (r resident) WatchPods(ctx context.Context, _ string, _ cluster.Target, ports string) (<-chan cluster.PodSet, error) {
	number, _, _ := strings.Cut(ports, "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		port = PodPort
	}
	sets := make(chan cluster.PodSet)
	go func() {
		defer close(sets)
		for {
			r.mu.Lock()
			set, changed := r.podsLocked(uint16(port)), r.podsChanged
			r.mu.Unlock()
			select {
			case sets <- set:
			case <-ctx.Done():
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sets, nil
}

func (r resident) CreateSteeringRule(_ context.Context, rule *v1alpha1.SteeringRule) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	if r.rules[rule.Name] != nil {
		return cluster.ErrExists
	}
	c := rule.DeepCopy()
	c.Spec.User, c.Spec.Renew = "alice", max(c.Spec.Renew, 1)
	c.Labels = map[string]string{v1alpha1.LabelRule: c.Spec.Rule}
	c.UID, c.CreationTimestamp = types.UID("uid-"+rule.Name), metav1.Now()
	meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted})
	r.rules[rule.Name] = c
	return r.admitLocked()
}

// editRule calls f with the rule of that name.
func (r resident) editRule(name string, f func(*v1alpha1.SteeringRule)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	if r.rules[name] == nil {
		return cluster.ErrGone
	}
	f(r.rules[name])
	return r.admitLocked()
}

func (r resident) RenewSteeringRule(_ context.Context, _, name string, renew int64) error {
	return r.editRule(name, func(rule *v1alpha1.SteeringRule) {
		rule.Spec.Renew, rule.Status.ObservedRenew = renew, renew
	})
}

func (r resident) SetAgentKey(_ context.Context, _, name, key string) error {
	return r.editRule(name, func(rule *v1alpha1.SteeringRule) { rule.Spec.AgentKey = key })
}

func (r resident) DeleteSteeringRule(_ context.Context, _, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rules, name)
	return r.admitLocked()
}

func (r resident) SteeringRules(_ context.Context, _, selector string) ([]v1alpha1.SteeringRule, error) {
	which, err := labels.Parse(selector)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rulesLocked(which), r.callLocked()
}

func (r resident) InjectAgent(_ context.Context, p cluster.Pod, spec cluster.AgentSpec, dryRun bool) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return "", err
	}
	at := r.pods[p.Name]
	if at == nil || at.UID != spec.PodUID {
		return "", cluster.ErrGone
	}
	if dryRun {
		return "", nil
	}
	container := "podnet-agent-" + strconv.Itoa(len(at.Agents))
	c := cluster.AgentContainer{Name: container, Image: cmp.Or(spec.Image, "agent"), State: cluster.AgentRunning}
	for _, g := range spec.Gateways {
		c.Keys = append(c.Keys, g.PublicKey)
	}
	a, err := startAgent(r.Town, at)
	if err != nil {
		return "", err
	}
	if at.agent != nil { // whose rules take the new one's key
		at.agent.stop()
		at.Agents[len(at.Agents)-1].State = cluster.AgentEnded
	}
	at.agent, at.Agents = a, append(at.Agents, c)
	r.podsChangedLocked()
	return container, nil
}

func (r resident) AgentHello(_ context.Context, p cluster.Pod, container string) (control.Hello, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.pods[p.Name]
	if at == nil || at.agent == nil || at.Agents[len(at.Agents)-1].Name != container {
		return control.Hello{}, cluster.ErrGone
	}
	return control.Hello{Podnet: control.Version, PodUID: at.UID, PublicKey: at.agent.secret.Public()}, nil
}
