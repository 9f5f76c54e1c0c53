package town

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// pod is a pod, and the agent in it while there is one.
type pod struct {
	cluster.Pod
	agent *agent
}

// agent is what a pod's agent is to its laptops: it has a tunnel, and a live
// connection to each of them. Its rules it has from the town.
type agent struct {
	w      *Town
	pod    *pod
	secret key.Private
	stack  *netstack.Stack
	tunnel *tunnel.Tunnel
	stop   context.CancelFunc
	done   chan struct{}

	inForce map[netip.Addr][]string // rules by laptop, under the town's mu
}

// soon is how often an agent looks what has changed.
const soon = 50 * time.Millisecond

func startAgent(w *Town, p *pod) (*agent, error) {
	a := &agent{w: w, pod: p, done: make(chan struct{}), inForce: map[netip.Addr][]string{}}
	var err error
	if a.secret, err = key.NewPrivate(); err != nil {
		return nil, err
	}
	if a.stack, err = netstack.New(netstack.Config{MTU: 1280, Log: w.log}); err != nil {
		return nil, err
	}
	if err = a.stack.AddAddress(a.secret.Public().Address6()); err != nil {
		return nil, err
	}
	if a.tunnel, err = tunnel.New(a.stack.Device(), transport.NewBind(transport.Options{Log: w.log}), tunnel.Config{PrivateKey: a.secret, Log: w.log}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	w.agents.Go(func() { a.run(ctx) })
	return a, nil
}

// killAgent ends the agent of a pod, if there are any, and waits.
func (w *Town) killAgent(p *pod) {
	w.mu.Lock()
	var a *agent
	if p != nil {
		a = p.agent
	}
	w.mu.Unlock()
	if a != nil {
		a.stop()
		<-a.done
	}
}

// run follows the town's rules until ctx ends, or until there are none any more.
func (a *agent) run(ctx context.Context) {
	defer close(a.done)
	ctx, stop := context.WithCancel(ctx)
	var lives sync.WaitGroup
	calls := map[netip.Addr]context.CancelFunc{}
	defer func() {
		stop()
		_ = a.tunnel.Close()
		_ = a.stack.Close()
		lives.Wait()
		a.end()
	}()
	for had := false; ctx.Err() == nil; {
		laptops, err := a.look()
		if err != nil || had && len(laptops) == 0 {
			return
		}
		had = had || len(laptops) > 0
		for l, cancel := range calls {
			if !slices.Contains(laptops, l) {
				cancel()
				delete(calls, l)
			}
		}
		for _, l := range laptops {
			if calls[l] == nil {
				call, cancel := context.WithCancel(ctx)
				calls[l] = cancel
				lives.Go(func() {
					for call.Err() == nil {
						a.live(call, l)
						pause(call)
					}
				})
			}
		}
		pause(ctx)
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(soon):
	}
}

// end notes that the agent has ended.
func (a *agent) end() {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if a.pod.agent == a {
		a.pod.agent = nil
		a.pod.Agents[len(a.pod.Agents)-1].State = cluster.AgentEnded
		a.w.podsChangedLocked()
	}
	for _, r := range a.rulesLocked() {
		r.Status.Agent = nil
		meta.SetStatusCondition(&r.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionAgentReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonAgentMissing})
	}
}

func (a *agent) rulesLocked() []*v1alpha1.SteeringRule {
	var all []*v1alpha1.SteeringRule
	for _, r := range a.w.rules {
		if r.Spec.PodUID == a.pod.UID && r.Spec.AgentKey == a.secret.Public().String() {
			all = append(all, r)
		}
	}
	return all
}

// look takes note of rules and gateways, and returns the laptops there are.
func (a *agent) look() ([]netip.Addr, error) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	var laptops []netip.Addr
	for _, r := range a.rulesLocked() {
		laptop := a.w.laptopLocked(r)
		if laptop.IsValid() && !slices.Contains(laptops, laptop) {
			laptops = append(laptops, laptop)
		}
		if !meta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.ConditionAgentReady) {
			r.Status.Agent = &v1alpha1.SteeringAgent{PublicKey: a.secret.Public().String(), Generation: 1}
			meta.SetStatusCondition(&r.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionAgentReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonInForce})
		}
	}
	if len(laptops) == 0 {
		return nil, nil // the gateways do not know us yet
	}
	peers, err := a.w.waysLocked(laptops)
	if err != nil {
		return nil, err
	}
	return laptops, a.tunnel.SetPeers(peers)
}

// waysLocked are the gateways, each with the laptops that had their last
// handshake with it.
func (w *Town) waysLocked(laptops []netip.Addr) ([]tunnel.Peer, error) {
	type way struct {
		gateway string
		at      time.Time
	}
	ways := map[netip.Addr]way{}
	for name, g := range w.gateways {
		stats, err := g.tunnel.Stats()
		if err != nil {
			return nil, err
		}
		for _, s := range stats {
			if l := s.PublicKey.RelayAddress6(); slices.Contains(laptops, l) && s.LastHandshake.After(ways[l].at) {
				ways[l] = way{name, s.LastHandshake}
			}
		}
	}
	var peers []tunnel.Peer
	for name, g := range w.gateways {
		p := tunnel.Peer{PublicKey: g.private.Public(), Endpoint: g.endpoint().String(), Keepalive: time.Second}
		for l, way := range ways {
			if way.gateway == name {
				p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(l, l.BitLen()))
			}
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// live talks with a laptop until one of both is gone. The laptop's rules are in
// force meanwhile.
func (a *agent) live(ctx context.Context, laptop netip.Addr) {
	dialing, cancel := context.WithTimeout(ctx, control.Silence)
	defer cancel()
	c, err := a.stack.DialTCP(dialing, netip.AddrPortFrom(laptop, control.LivePort))
	if err != nil {
		return
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer func() {
		_ = c.Close()
		a.w.mu.Lock()
		delete(a.inForce, laptop)
		a.w.mu.Unlock()
	}()
	wait.Go(func() {
		defer c.Close()
		var told []string
		for line := (control.FromPod{Podnet: control.Version, PodUID: a.pod.UID}); ; line = (control.FromPod{}) {
			if names := a.names(laptop); line.Podnet != "" || !slices.Equal(names, told) {
				line.Rules, told = &names, names
			}
			if control.Write(c, line) != nil {
				return
			}
			pause(ctx)
		}
	})
	for r := control.NewReader(c); ; {
		_ = c.SetReadDeadline(time.Now().Add(control.Silence))
		var line control.ToPod
		if r.Read(&line) != nil {
			return
		}
		names := a.names(laptop)
		a.w.mu.Lock()
		a.inForce[laptop] = names
		a.w.mu.Unlock()
	}
}

// names are a laptop's rules in the pod, sorted.
func (a *agent) names(laptop netip.Addr) []string {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	names := []string{}
	for _, r := range a.rulesLocked() {
		if a.w.laptopLocked(r) == laptop {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}
