package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// podAgent is an agent in this process: its end of the tunnel and of the lines.
type podAgent struct {
	*stage
	secret key.Private
	stack  *netstack.Stack
	sets   chan control.Set
	counts atomic.Pointer[control.Counts]
	deaf   atomic.Bool // it puts no Set in force
}

// mayWork lets alice put containers into the pods of shop.
func (s *stage) mayWork() {
	s.Helper()
	s.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "steer"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods/ephemeralcontainers"}, Verbs: []string{"patch"}}}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "steer"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "steer"}})
}

// steerRule is alice's, for a port of a pod in shop.
func steerRule(name, pod, peer string, protocol podnet.SteeringProtocol, relayPort int32, agent key.Public) *podnet.SteeringRule {
	return &podnet.SteeringRule{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{podnet.LabelRule: "web"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod, UID: types.UID("uid-" + pod)}}},
		Spec: podnet.SteeringRuleSpec{User: "alice", Peer: peer, Renew: 1, Rule: "web", Pod: pod, PodUID: "uid-" + pod,
			Port: relayPort - 12000, Protocol: protocol, Mode: "steal", RelayPort: relayPort, AgentKey: agent.String()},
	}
}

func (s *stage) steer(r *podnet.SteeringRule) {
	s.Helper()
	apiserver.Eventually(s.T, 20*time.Second, "alice may steer", func() error { return s.alice.Create(s.Context(), r) })
}

// ruleStatus is a rule's status.
func (s *stage) ruleStatus(name string) podnet.SteeringRuleStatus {
	s.Helper()
	var r podnet.SteeringRule
	if err := s.alice.Get(s.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &r); err != nil {
		s.Fatal(err)
	}
	return r.Status
}

// awaitRule waits for something about a rule's status.
func (s *stage) awaitRule(name, what string, f func(podnet.SteeringRuleStatus) bool) {
	s.Helper()
	apiserver.Eventually(s.T, 30*time.Second, name+" "+what, func() error {
		var r podnet.SteeringRule
		if err := s.alice.Get(s.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &r); err != nil {
			return err
		}
		if !f(r.Status) {
			return fmt.Errorf("status %+v", r.Status)
		}
		return nil
	})
}

func ready(reason string) func(podnet.SteeringRuleStatus) bool {
	return func(s podnet.SteeringRuleStatus) bool {
		c := meta.FindStatusCondition(s.Conditions, podnet.ConditionAgentReady)
		return meta.IsStatusConditionTrue(s.Conditions, podnet.ConditionAccepted) && c != nil && c.Reason == reason
	}
}

// agent makes an agent that reaches those addresses through the gateway.
func (s *stage) agent(g *Gateway, reaches ...netip.Addr) *podAgent {
	s.Helper()
	secret, err := key.NewPrivate()
	if err != nil {
		s.Fatal(err)
	}
	return s.agentOf(secret, g, reaches...)
}

// agentOf is agent with a key.
func (s *stage) agentOf(secret key.Private, g *Gateway, reaches ...netip.Addr) *podAgent {
	s.Helper()
	a := &podAgent{stage: s, secret: secret, sets: make(chan control.Set, 16)}
	var err error
	if a.stack, err = netstack.New(netstack.Config{MTU: 1280}); err != nil {
		s.Fatal(err)
	}
	if err := a.stack.AddAddress(secret.Public().Address6()); err != nil {
		s.Fatal(err)
	}
	tun, err := tunnel.New(a.stack.Device(), transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: secret, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = tun.Close(); _ = a.stack.Close() })
	peer := tunnel.Peer{PublicKey: g.ground.Key, Endpoint: fmt.Sprintf("127.0.0.1:%d", g.ground.Tunnel.ListenPort()), Keepalive: time.Second}
	for _, ip := range append(reaches, g.ground.Key.Address6()) {
		peer.AllowedIPs = append(peer.AllowedIPs, netip.PrefixFrom(ip, ip.BitLen()))
	}
	if err := tun.SetPeers([]tunnel.Peer{peer}); err != nil {
		s.Fatal(err)
	}
	return a
}

// attend speaks with the gateway as an agent in that pod does.
func (a *podAgent) attend(g *Gateway, podUID string) error {
	ctx, cancel := context.WithTimeout(a.Context(), 20*time.Second)
	defer cancel()
	c, err := a.stack.DialTCP(ctx, netip.AddrPortFrom(g.ground.Key.Address6(), control.Port))
	if err != nil {
		return err
	}
	if err := control.Write(c, control.FromAgent{Podnet: control.Version, PodUID: podUID}); err != nil {
		return err
	}
	var inForce atomic.Int64
	over := make(chan struct{})
	a.Cleanup(func() { _ = c.Close(); <-over })
	go func() {
		defer close(over)
		for r := control.NewReader(c); ; {
			var m control.ToAgent
			if r.Read(&m) != nil {
				_ = c.Close()
				return
			}
			if m.Set != nil {
				if !a.deaf.Load() {
					inForce.Store(m.Set.Generation)
				}
				a.sets <- *m.Set
			}
		}
	}()
	go func() {
		for {
			m := control.FromAgent{Generation: inForce.Load()}
			if n := a.counts.Load(); n != nil {
				m.Counts = map[string]control.Counts{"web-tcp": *n}
			}
			if control.Write(c, m) != nil {
				return
			}
			time.Sleep(control.Beat / 5)
		}
	}()
	return nil
}

// set waits for a Set of which f is true.
func (a *podAgent) set(what string, f func(control.Set) bool) {
	a.Helper()
	late := time.After(15 * time.Second)
	for last := (control.Set{}); ; {
		select {
		case last = <-a.sets:
			if f(last) {
				return
			}
		case <-late:
			a.Fatalf("the agent is not told: %s; last %+v", what, last)
		}
	}
}

func (a *podAgent) dial(to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(a.Context(), limit)
	defer cancel()
	return a.stack.DialTCP(ctx, to)
}

// relay answers what comes to the laptop's relay address.
func (l *laptop) relay(tcp, udp uint16) netip.Addr {
	l.Helper()
	at := l.secret.Public().RelayAddress6()
	if err := l.stack.AddAddress(at); err != nil {
		l.Fatal(err)
	}
	ln, err := l.stack.ListenTCP(netip.AddrPortFrom(at, tcp))
	if err != nil {
		l.Fatal(err)
	}
	pc, err := l.stack.ListenUDP(netip.AddrPortFrom(at, udp))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = ln.Close(); _ = pc.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
	return at
}

// TestSteeredTrafficReachesTheLaptop: a rule, its agent, and what goes from one
// to the laptop and back, until the rule is deleted.
func TestSteeredTrafficReachesTheLaptop(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	s.mayWork()
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	l.connect(g)
	at := l.relay(20000, 20001)
	a := s.agent(g, at)
	a.deaf.Store(true)
	pods := netip.AddrPortFrom(loopback, g.ground.Tunnel.ListenPort())
	if got := l.peer.Status.Gateways[0].ClusterEndpoints; !slices.Equal(got, []string{pods.String()}) {
		t.Errorf("pods are told to reach the gateway at %v", got)
	}

	tcp, udp := steerRule("web-tcp", "web-0", "laptop", "tcp", 20000, a.secret.Public()), steerRule("web-udp", "web-0", "laptop", "udp", 20001, a.secret.Public())
	s.steer(tcp)
	s.steer(udp)
	s.awaitRule("web-tcp", "is accepted", ready(podnet.ReasonAgentMissing))
	if _, err := l.resolve("web.shop.svc.cluster.test."); err == nil { // the laptop's first handshake
		t.Error("there is a Service web")
	}
	if err := a.attend(g, "uid-web-0"); err != nil {
		t.Fatal(err)
	}
	a.set("both rules, whose laptop is here", func(set control.Set) bool {
		return len(set.Rules) == 2 && set.Rules[0].Here && set.Rules[1].Here && set.Rules[0].Laptop == at && len(set.Gateways) == 1 && set.Gateways[0].PublicKey == g.ground.Key && slices.Equal(set.Gateways[0].Endpoints, []netip.AddrPort{pods})
	})
	s.awaitRule("web-tcp", "waits for the agent", func(st podnet.SteeringRuleStatus) bool {
		return ready(podnet.ReasonAgentMissing)(st) && st.Agent != nil
	})
	a.deaf.Store(false)
	s.steer(steerRule("web-more", "web-0", "laptop", "tcp", 20002, a.secret.Public()))
	a.set("another rule", func(set control.Set) bool { return len(set.Rules) == 3 })
	s.awaitRule("web-tcp", "is in force", func(st podnet.SteeringRuleStatus) bool {
		return ready(podnet.ReasonInForce)(st) && st.Agent.PublicKey == a.secret.Public().String() && st.ExpiresAt != nil
	})
	a.counts.Store(&control.Counts{Matched: 7, Failed: 1, Passed: 40})
	s.awaitRule("web-tcp", "has its counts", func(st podnet.SteeringRuleStatus) bool {
		return st.Matched == 7 && st.Failed == 1 && st.Passed == 40 && st.Agent.Generation > 0
	})

	c, err := a.dial(netip.AddrPortFrom(at, 20000), 5*time.Second)
	if err != nil {
		t.Fatalf("dial the laptop: %v", err)
	}
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	u, err := a.stack.DialUDP(netip.AddrPortFrom(at, 20001))
	if err != nil {
		t.Fatal(err)
	}
	big := slices.Repeat([]byte("pod"), 2000) // in fragments
	answer := make([]byte, 65535)
	if _, err := u.Write(big); err != nil {
		t.Fatal(err)
	}
	_ = u.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := u.Read(answer); err != nil || !slices.Equal(answer[:n], big) {
		t.Errorf("the laptop sends %d bytes back by UDP: %v", n, err)
	}
	for what, to := range map[string]netip.AddrPort{
		"a port without a rule":      netip.AddrPortFrom(at, 20003),
		"the laptop's other address": netip.AddrPortFrom(l.secret.Public().Address6(), 20000),
	} {
		if c, err := a.dial(to, time.Second); err == nil {
			_ = c.Close()
			t.Errorf("the agent reaches %s", what)
		}
	}
	if c, err := l.dial(netip.AddrPortFrom(a.secret.Public().Address6(), 8000), time.Second); err == nil {
		_ = c.Close()
		t.Error("the laptop reaches the agent")
	}
	if metrics, err := fetch(g, "/metrics"); err != nil || !strings.Contains(metrics, `podnet_steering_rules{reason="Accepted"} 3`) || !strings.Contains(metrics, "podnet_steering_agents 1") {
		t.Errorf("metrics: %v", err)
	}

	began := time.Now()
	for _, r := range []client.Object{tcp, udp, steerRule("web-more", "web-0", "laptop", "tcp", 20002, key.Public{})} {
		if err := s.alice.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	a.set("that it is over", func(set control.Set) bool { return len(set.Rules) == 0 })
	t.Logf("the agent hears of it after %v (2 s)", time.Since(began))
	if err := echo(c); err == nil {
		t.Error("a connection outlives its rule")
	}
	_ = c.Close()
	_ = u.Close()
}

// TestAgentFromElsewhere: whoever names a key that is not in the pod gets
// nothing, as soon as the pod's address is known.
func TestAgentFromElsewhere(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	s.mayWork()
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	l.connect(g)
	at := l.relay(20000, 20001)
	if _, err := l.resolve("web.shop.svc.cluster.test."); err == nil {
		t.Error("there is a Service web")
	}
	port := int32(8000)
	s.create(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.77"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "uid-web-0"}}},
	})
	a := s.agent(g, at)
	s.steer(steerRule("web-tcp", "web-0", "laptop", "tcp", 20000, a.secret.Public()))
	s.awaitRule("web-tcp", "is accepted, its agent in trouble", func(st podnet.SteeringRuleStatus) bool {
		c := meta.FindStatusCondition(st.Conditions, podnet.ConditionAgentReady)
		return ready(podnet.ReasonAgentTrouble)(st) && strings.Contains(c.Message, "127.0.0.1")
	})
	if err := a.attend(g, "uid-web-0"); err == nil {
		select {
		case set := <-a.sets:
			t.Errorf("it is told %+v", set)
		case <-time.After(time.Second):
		}
	}
	if c, err := a.dial(netip.AddrPortFrom(at, 20000), time.Second); err == nil {
		_ = c.Close()
		t.Error("it reaches the laptop")
	} else if errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
