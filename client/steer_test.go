package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client"
	"podnet.dev/client/cluster"
	"podnet.dev/client/exposing"
	"podnet.dev/client/localapi"
	"podnet.dev/client/steering"
	"podnet.dev/e2e/town"
	"podnet.dev/internal/steer/control"
)

// pods is what a town lets steering do.
type pods interface {
	WatchPods(ctx context.Context, namespace string, t cluster.Target, ports string) (<-chan cluster.PodSet, error)
	CreateSteeringRule(ctx context.Context, rule *v1alpha1.SteeringRule) error
	RenewSteeringRule(ctx context.Context, namespace, name string, renew int64) error
	SetAgentKey(ctx context.Context, namespace, name, key string) error
	DeleteSteeringRule(ctx context.Context, namespace, name string) error
	SteeringRules(ctx context.Context, namespace, selector string) ([]v1alpha1.SteeringRule, error)
	InjectAgent(ctx context.Context, pod cluster.Pod, a cluster.AgentSpec, dryRun bool) (container string, err error)
	AgentHello(ctx context.Context, pod cluster.Pod, container string) (control.Hello, error)
}

// names is what a town lets exposing do.
type names interface{ exposing.Cluster }

// steerable is a town's cluster in which one can steer and expose.
type steerable struct {
	client.Cluster
	pods
	names
}

func (steerable) AgentImage(context.Context, string, []string) (string, string, error) {
	return "podnet.dev/agent:1", "", nil
}

func (steerable) Services(context.Context, string, cluster.Target) ([]string, error) {
	return nil, errors.New("the town has no Services")
}

func (steerable) WatchService(context.Context, string, string, string) (<-chan cluster.PodSet, error) {
	return nil, errors.New("the town has no Services")
}

var (
	_ steering.Cluster = steerable{}
	_ exposing.Cluster = steerable{}
)

// answers says whether the laptop's program answers for a pod.
func (w *place) answers(pod string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := w.Visit(ctx, pod, town.PodPort)
	if err != nil {
		return false
	}
	defer c.Close()
	return echo(c, time.Second) == nil
}

// answer sends back what connections bring.
func answer(local net.Listener) {
	for {
		c, err := local.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
	}
}

// TestSteering: a session takes what reaches two pods, and a third, and goes on
// after its agent, its gateway and its lease have ended.
func TestSteering(t *testing.T) {
	w := newTown(t, "podnet-gateway-0")
	w.AddPod("web-0")
	w.AddPod("web-1")
	l := w.connect(client.PathAuto)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go answer(local)

	if err := l.session.Steer(t.Context(), localapi.SteerRequest{Target: "deploy/web", Port: "http", Local: local.Addr().String()}, func(e localapi.SteerEvent) { t.Log(e.Type, e.Text) }); err != nil {
		t.Fatal(err)
	}
	l.within(time.Second, "both pods are steered", func() bool { return w.answers("web-0") && w.answers("web-1") })
	w.AddPod("web-2")
	l.within(5*time.Second, "a new pod is steered", func() bool { return w.answers("web-2") })
	w.RemovePod("web-1")
	w.EndAgent("web-0")
	l.within(15*time.Second, "the agent is replaced", func() bool { return w.answers("web-0") })
	rules, err := l.session.Steered(t.Context(), false, "")
	if err != nil || len(rules) != 1 || rules[0].Name != "web-http" || rules[0].Number != town.PodPort || len(rules[0].Pods) != 2 {
		t.Errorf("%+v, %v", rules, err)
	}

	w.Kill("podnet-gateway-0")
	w.Start("podnet-gateway-0")
	l.within(30*time.Second, "steered by the gateway's successor", func() bool { return w.answers("web-0") && w.answers("web-2") })

	w.Set(town.Trouble{Away: true})
	l.within(5*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	if !w.answers("web-0") {
		t.Error("nothing is steered while the API server is away")
	}
	w.Forget() // the gateway, after an hour
	w.Set(town.Trouble{})
	l.within(10*time.Second, "enrolled again", func() bool { return l.status().Reenrolled == 1 })
	l.within(20*time.Second, "steered to another key", func() bool { return w.answers("web-0") && w.answers("web-2") })

	second := localapi.SteerRequest{Target: "deploy/web", Port: "9090", Local: "9090"}
	if err := l.session.Steer(t.Context(), second, func(localapi.SteerEvent) {}); err != nil {
		t.Fatal(err)
	}
	names, err := l.session.StopSteering(t.Context(), "web-9090")
	if err != nil || len(names) != 1 || len(w.Rules()) != 2 {
		t.Errorf("stopped %v, %v, left %v", names, err, w.Rules())
	}
	if _, err := w.Visit(t.Context(), "web-0", 9090); !errors.Is(err, town.ErrApp) {
		t.Errorf("after its end: %v", err)
	}
	l.leave()
	if left := w.Rules(); len(left) != 0 {
		t.Errorf("the session left %v", left)
	}
}
