package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/agent/egress"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// egressRule is alice's, for a pod in shop.
func egressRule(name, pod, peer string, agent key.Public) *podnet.SteeringRule {
	r := steerRule(name, pod, peer, "tcp", 20000, agent)
	r.Spec.Mode, r.Spec.Port, r.Spec.RelayPort = podnet.SteeringEgress, 0, 0
	return r
}

// counted counts what is accepted.
type counted struct {
	net.Listener
	n atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// letOut has the agent open flows for a gateway, as one in a pod does.
func (a *podAgent) letOut(g *Gateway) *counted {
	a.Helper()
	l, err := a.stack.ListenTCP(netip.AddrPortFrom(a.secret.Public().Address6(), control.EgressPort))
	if err != nil {
		a.Fatal(err)
	}
	s := egress.New(testLog(a.T), func(rule string, _ error) {
		if rule != "out" {
			a.Errorf("a flow leaves by %q", rule)
		}
	})
	s.Set([]netip.Addr{g.ground.Key.Address6()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	flows := &counted{Listener: l}
	go func() { done <- s.Serve(ctx, flows) }()
	a.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			a.Error(err)
		}
	})
	return flows
}

// TestLaptopSendsAsAPod: its flows leave through the pod's agent, and never through
// the gateway while there is a rule that says so.
func TestLaptopSendsAsAPod(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	s.mayWork()
	web := s.pod("shop", "web", "10.96.1.1")
	pods := s.podNetwork(web.Addr())
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	l.connect(g, netip.PrefixFrom(web.Addr(), 32), netip.MustParsePrefix("240.0.0.0/4"))
	before, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(before); err != nil {
		t.Fatal(err)
	}
	ended := func(what string, c net.Conn) {
		t.Helper()
		apiserver.Eventually(t, 10*time.Second, what+" ends", func() error {
			if echo(c) == nil {
				return fmt.Errorf("it goes on")
			}
			return nil
		})
		_ = c.Close()
	}

	a := s.agent(g)
	flows := a.letOut(g)
	rule := egressRule("out", "web-0", "laptop", a.secret.Public())
	s.steer(rule)
	s.awaitRule("out", "is accepted", ready(podnet.ReasonAgentMissing))
	ended("a flow that left as the gateway", before)
	began := time.Now()
	if c, err := l.dial(web, 5*time.Second); err == nil {
		_ = c.Close()
		t.Error("a flow leaves though the agent is not there")
	} else if took := time.Since(began); took > time.Second {
		t.Errorf("it is refused only after %v: %v", took, err)
	}

	if err := a.attend(g, "uid-web-0"); err != nil {
		t.Fatal(err)
	}
	a.set("that flows leave through it", func(set control.Set) bool {
		return len(set.Egress) == 1 && set.Egress[0] == "out" && len(set.Rules) == 0
	})
	s.awaitRule("out", "is in force", func(st podnet.SteeringRuleStatus) bool {
		return ready(podnet.ReasonInForce)(st) && st.Agent != nil && st.Agent.PublicKey == a.secret.Public().String()
	})
	if n := flows.n.Load(); n != 0 {
		t.Errorf("%d flows have left already", n)
	}
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatalf("dial as the pod: %v", err)
	}
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	if n := flows.n.Load(); n != 1 {
		t.Errorf("%d flows left through the agent, want 1", n)
	}
	if c, err := l.dial(netip.MustParseAddrPort("10.96.2.1:80"), 5*time.Second); err == nil {
		_ = c.Close()
		t.Error("the pod's identity opens what the laptop may not reach")
	}
	if n := flows.n.Load(); n != 1 {
		t.Error("the agent was asked for what the gateway forbids")
	}

	// At a virtual address it is the same pod, and the agent hears of the real one.
	pairs := virtualPrefixes(pods.String() + " 240.64.7.0/24")
	l.atVirtual(pairs, pairs, podnet.ReasonMapped)
	v, err := l.dial(moved(t, web, pairs), 5*time.Second)
	if err != nil {
		t.Fatalf("dial as the pod, at a virtual address: %v", err)
	}
	if err := echo(v); err != nil {
		t.Error(err)
	}
	_ = v.Close()
	if n := flows.n.Load(); n != 2 {
		t.Errorf("%d flows left through the agent, want 2", n)
	}

	if err := s.alice.Delete(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	a.set("that it is over", func(set control.Set) bool { return len(set.Egress) == 0 })
	ended("a flow that left as the pod", c)
	if c, err = l.dial(web, 5*time.Second); err != nil {
		t.Fatalf("dial as the gateway again: %v", err)
	}
	if err := echo(c); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if n := flows.n.Load(); n != 2 {
		t.Errorf("%d flows left through the agent, want 2", n)
	}
}
