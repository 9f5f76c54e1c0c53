package town

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/relay"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/tunsplit"
)

// laptop joins the town with a relay, as a session does.
func laptop(t *testing.T, w *Town, log *slog.Logger) *relay.Relay {
	secret, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	own := resident{w}
	if err := own.CreatePeer(t.Context(), "podnet-system", "laptop", v1alpha1.PeerSpec{User: "alice", PublicKey: secret.Public().String(), LeaseSeconds: 300, Renew: 1}); err != nil {
		t.Fatal(err)
	}
	p, err := own.Peer(t.Context(), "podnet-system", "laptop")
	if err != nil {
		t.Fatal(err)
	}
	r, err := relay.New(log)
	if err != nil {
		t.Fatal(err)
	}
	at := secret.Public().RelayAddress6()
	r.SetAddr(at)
	host, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := host.AddAddress(netip.MustParseAddr(p.Status.Address4)); err != nil {
		t.Fatal(err)
	}
	tun, err := tunnel.New(tunsplit.New(host.Device(), r.Device(), at), transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: secret, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = tun.Close()
		_ = host.Close()
	})
	gateway, err := key.ParsePublic(p.Status.Gateways[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := tun.SetPeers([]tunnel.Peer{{PublicKey: gateway, Endpoint: p.Status.Gateways[0].Endpoints[0], Keepalive: time.Second,
		AllowedIPs: []netip.Prefix{key.Prefix6, netip.PrefixFrom(NameServer, 32)}}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestASteeredPodAnswersFromTheLaptop: a rule, its agent, a visit, and the end.
func TestASteeredPodAnswersFromTheLaptop(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	w := New(t, log, "podnet-gateway-0")
	w.AddPod("web-0")
	r := laptop(t, w, log)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go serveEcho(local)

	own := resident{w}
	sets, err := own.WatchPods(t.Context(), "shop", cluster.Target{}, "http")
	if err != nil {
		t.Fatal(err)
	}
	set := <-sets
	web := set.Pods[0]
	if web.Name != "web-0" || set.Port[web.UID] != PodPort {
		t.Fatalf("pods %+v", set)
	}
	container, err := own.InjectAgent(t.Context(), web, cluster.AgentSpec{PodUID: web.UID}, false)
	if err != nil {
		t.Fatal(err)
	}
	if set = <-sets; len(set.Pods[0].LiveAgents()) != 1 {
		t.Errorf("agents %+v", set.Pods[0].Agents)
	}
	hello, err := own.AgentHello(t.Context(), web, container)
	if err != nil {
		t.Fatal(err)
	}
	rule := &v1alpha1.SteeringRule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice-web-0"},
		Spec: v1alpha1.SteeringRuleSpec{Peer: "laptop", Rule: "web", Pod: web.Name, PodUID: web.UID, Port: PodPort, Protocol: "tcp", RelayPort: 20000}}
	if err := own.CreateSteeringRule(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	if err := own.CreateSteeringRule(t.Context(), rule); !errors.Is(err, cluster.ErrExists) {
		t.Errorf("a name is taken twice: %v", err)
	}
	r.SetRules([]relay.Rule{{Name: "web", Port: 20000, Protocol: steer.TCP, Local: local.Addr().String(),
		Agents: map[netip.Addr]relay.Pod{hello.PublicKey.Address6(): {Namespace: "shop", Name: web.Name, UID: web.UID, Object: rule.Name}}}})
	if _, err := w.Visit(t.Context(), "web-0", PodPort); !errors.Is(err, ErrApp) {
		t.Errorf("before its agent is named: %v", err)
	}
	if err := own.SetAgentKey(t.Context(), "shop", rule.Name, hello.PublicKey.String()); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	eventually(t, "the laptop answers", func() error {
		c, err = w.Visit(t.Context(), "web-0", PodPort)
		return err
	})
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("the laptop says %q: %v", b, err)
	}
	_ = c.Close()
	if all := w.Rules(); len(all) != 1 || all[0].Status.Agent == nil || all[0].Status.Matched != 1 {
		t.Errorf("rules %+v", all)
	}

	if err := own.DeleteSteeringRule(t.Context(), "shop", rule.Name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent ends", func() error {
		select {
		case set = <-sets:
		default:
		}
		if n := len(set.Pods[0].LiveAgents()); n > 0 {
			return errors.New("it lives")
		}
		return nil
	})
	if _, err := w.Visit(t.Context(), "web-0", PodPort); !errors.Is(err, ErrApp) {
		t.Errorf("after its end: %v", err)
	}
	w.RemovePod("web-0")
	if set = <-sets; len(set.Pods) != 0 {
		t.Errorf("pods %+v", set.Pods)
	}
}
