package steering

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world plays the cluster, its gateway, the agents and the relay.
type world struct {
	t *testing.T

	mu      sync.Mutex
	pods    map[string]*cluster.Pod // by UID
	port    uint16
	watches []chan cluster.PodSet
	objects map[string]*v1alpha1.SteeringRule // by name
	keys    map[string]key.Public             // by container
	calls   []string
	rules   []relay.Rule
	ports   uint16 // given
	changed chan struct{}
	subs    []func(relay.Request)

	refuse   error  // of dry runs
	hello    string // error in Hellos
	deny     error  // of creates
	verdict  metav1.Condition
	silent   bool // agents never come
	setError error
	services []string // that lead to the pods
	leading  bool     // the gateway leads them to laptops
}

func newWorld(t *testing.T, pods ...string) *world {
	w := &world{t: t, pods: map[string]*cluster.Pod{}, port: 8080, objects: map[string]*v1alpha1.SteeringRule{}, keys: map[string]key.Public{}, changed: make(chan struct{}, 1),
		verdict: metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted}}
	for _, p := range pods {
		w.add(p)
	}
	return w
}

func (w *world) add(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods["uid-"+name] = &cluster.Pod{Namespace: "shop", Name: name, UID: "uid-" + name, Ready: true, IPs: []netip.Addr{netip.MustParseAddr("10.244.0.9")}}
	w.tellLocked()
}

// with changes how the world is.
func (w *world) with(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// remove ends a pod; what it owns goes with it.
func (w *world) remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, "uid-"+name)
	for n, o := range w.objects {
		if o.Spec.Pod == name {
			delete(w.objects, n)
		}
	}
	w.tellLocked()
}

func (w *world) setLocked() cluster.PodSet {
	s := cluster.PodSet{Port: map[string]uint16{}, Err: w.setError}
	for _, uid := range slices.Sorted(maps.Keys(w.pods)) {
		p := *w.pods[uid]
		p.Agents = slices.Clone(p.Agents)
		s.Pods = append(s.Pods, p)
		if w.port != 0 {
			s.Port[uid] = w.port
		}
	}
	return s
}

func (w *world) tellLocked() {
	for _, ch := range w.watches {
		select {
		case <-ch:
		default:
		}
		ch <- w.setLocked()
	}
}

func (w *world) WatchPods(ctx context.Context, namespace string, t cluster.Target, port string) (<-chan cluster.PodSet, error) {
	if t.Name == "none" {
		return nil, &cluster.NoTargetError{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	in, out := make(chan cluster.PodSet, 1), make(chan cluster.PodSet)
	w.watches = append(w.watches, in)
	in <- w.setLocked()
	go func() {
		defer close(out)
		for {
			select {
			case s := <-in:
				for _, p := range s.Pods {
					if port == "" {
						s.Port[p.UID] = 0
					}
				}
				select {
				case out <- s:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (w *world) Services(_ context.Context, _ string, t cluster.Target) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.Kind == "svc" {
		return []string{t.Name}, nil
	}
	return w.services, nil
}

// WatchService: there is every Service, with one port.
func (w *world) WatchService(ctx context.Context, namespace, name, _ string) (<-chan cluster.PodSet, error) {
	out := make(chan cluster.PodSet, 1)
	out <- cluster.PodSet{Pods: []cluster.Pod{{Namespace: namespace, Name: name, UID: "uid-svc", Ready: true, IPs: []netip.Addr{netip.MustParseAddr("10.96.0.7")}}}, Port: map[string]uint16{"uid-svc": 80}}
	context.AfterFunc(ctx, func() { close(out) })
	return out, nil
}

// serveLocked has the gateway say how a rule that it serves itself stands.
func (w *world) serveLocked(o *v1alpha1.SteeringRule) {
	leading := w.leading
	switch {
	case o.Spec.Mode == v1alpha1.SteeringEgress:
		leading = false
		if p := w.pods[o.Spec.PodUID]; p != nil && !w.silent {
			for _, a := range p.Agents {
				leading = leading || a.State == cluster.AgentRunning && w.keys[a.Name].String() == o.Spec.AgentKey
			}
		}
	case o.Spec.Via != "":
		o.Status.Agent = &v1alpha1.SteeringAgent{PublicKey: frontKey.String()}
	default:
		return
	}
	ready := metav1.Condition{Type: v1alpha1.ConditionAgentReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonAgentMissing, Message: "the Service's slices are on their way"}
	if leading {
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonInForce
	}
	meta.SetStatusCondition(&o.Status.Conditions, ready)
}

var frontKey = key.Public{9}

func (w *world) call(format string, a ...any) { w.calls = append(w.calls, fmt.Sprintf(format, a...)) }

// count is how many calls began like this.
func (w *world) count(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (w *world) CreateSteeringRule(_ context.Context, r *v1alpha1.SteeringRule) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call("create %s", r.Spec.Pod)
	if w.deny != nil {
		return w.deny
	}
	if w.objects[r.Name] != nil {
		return cluster.ErrExists
	}
	o := r.DeepCopy()
	o.Status.Conditions = []metav1.Condition{w.verdict}
	w.objects[r.Name] = o
	return nil
}

func (w *world) RenewSteeringRule(_ context.Context, _, name string, renew int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.objects[name]
	if o == nil {
		return cluster.ErrGone
	}
	if renew <= o.Spec.Renew {
		w.t.Errorf("renewed from %d to %d", o.Spec.Renew, renew)
	}
	w.call("renew %s", o.Spec.Pod)
	o.Spec.Renew = renew
	return nil
}

func (w *world) SetAgentKey(_ context.Context, _, name, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.objects[name] == nil {
		return cluster.ErrGone
	}
	w.call("key %s", w.objects[name].Spec.Pod)
	w.objects[name].Spec.AgentKey = key
	return nil
}

func (w *world) DeleteSteeringRule(_ context.Context, _, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call("delete %s", name)
	delete(w.objects, name)
	return nil
}

func (w *world) SteeringRules(_ context.Context, _, selector string) ([]v1alpha1.SteeringRule, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []v1alpha1.SteeringRule
	for _, n := range slices.Sorted(maps.Keys(w.objects)) {
		if o := w.objects[n]; selector == "" || selector == v1alpha1.LabelRule+"="+o.Labels[v1alpha1.LabelRule] {
			w.serveLocked(o)
			out = append(out, *o.DeepCopy())
		}
	}
	return out, nil
}

func (w *world) AgentImage(context.Context, string, []string) (string, string, error) {
	return "podnet.dev/agent:1", "", nil
}

func (w *world) InjectAgent(_ context.Context, pod cluster.Pod, a cluster.AgentSpec, dryRun bool) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if dryRun {
		w.call("dryrun %s", pod.Name)
		return "", w.refuse
	}
	w.call("inject %s", pod.Name)
	if a.NoRedirect {
		w.call("sender %s", pod.Name)
	}
	name := fmt.Sprintf("podnet-agent-%05d", len(w.keys))
	private, err := key.NewPrivate()
	if err != nil {
		return "", err
	}
	w.keys[name] = private.Public()
	p := w.pods[pod.UID]
	c := cluster.AgentContainer{Name: name, State: cluster.AgentRunning, NoRedirect: a.NoRedirect}
	for _, g := range a.Gateways {
		c.Keys = append(c.Keys, g.PublicKey)
	}
	p.Agents = append(slices.Clone(p.Agents), c)
	w.tellLocked()
	return name, nil
}

// kill ends the pod's agents.
func (w *world) kill(pod string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pods["uid-"+pod]
	p.Agents = slices.Clone(p.Agents)
	for i := range p.Agents {
		p.Agents[i].State = cluster.AgentEnded
	}
	w.tellLocked()
	w.newsLocked()
}

func (w *world) AgentHello(_ context.Context, pod cluster.Pod, container string) (control.Hello, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call("hello %s", pod.Name)
	return control.Hello{PublicKey: w.keys[container], Error: w.hello}, nil
}

func (w *world) newsLocked() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *world) Port() uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports++
	return 19999 + w.ports
}

func (w *world) SetRules(rules []relay.Rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = rules
	w.newsLocked()
}

// Live: an agent that runs has what is accepted in force, once it is let in.
func (w *world) Live() (out []relay.Live) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rules {
		for addr, p := range r.Agents {
			if p.UID == "" && addr == frontKey.Address6() { // of a Service
				out = append(out, relay.Live{Agent: addr, Connected: true, Rules: []relay.LiveRule{{Rule: r.Name, Object: p.Object, InForce: true, Counts: control.Counts{Matched: 5}}}})
			}
			pod := w.pods[p.UID]
			if pod == nil || w.silent {
				continue
			}
			for _, a := range pod.Agents {
				if o := w.objects[p.Object]; o != nil && a.State == cluster.AgentRunning && w.keys[a.Name].Address6() == addr && o.Spec.AgentKey == w.keys[a.Name].String() {
					out = append(out, relay.Live{Pod: p.Name, PodUID: p.UID, Agent: addr, Connected: true,
						Rules: []relay.LiveRule{{Rule: r.Name, Object: p.Object, InForce: true, Counts: control.Counts{Matched: 3}}}})
				}
			}
		}
	}
	return out
}

func (w *world) Requests(rule string) []relay.Request {
	return []relay.Request{{Rule: rule, Pod: "web-1", By: relay.ByLaptop, Status: 200}}
}
func (w *world) Inspected(rule string) []relay.Inspection {
	return []relay.Inspection{{Pod: "web-1", Over: true, Forgotten: 2, Exchanges: []relay.Exchange{{In: []byte(rule), OutMore: 3}}}}
}
func (w *world) Replay(_ context.Context, rule string, connection, exchange time.Time) (relay.Inspection, error) {
	switch {
	case connection.IsZero():
		return relay.Inspection{}, relay.ErrForgotten
	case exchange.IsZero():
		return relay.Inspection{}, relay.ErrNotReplayable
	}
	return relay.Inspection{Replay: connection, Exchanges: []relay.Exchange{{In: []byte(rule), Began: exchange}}}, nil
}
func (w *world) Subscribe(fn func(relay.Request)) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs = append(w.subs, fn)
	return func() {}
}
func (w *world) Changed() <-chan struct{} { return w.changed }

// manager runs one in w, until stop.
func (w *world) manager() (m *Manager, stop func()) {
	m = New(Config{Cluster: w, Relay: w, User: "Alice@example.org", Namespace: "shop", Lease: lease, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	m.SetMember(Member{Peer: "u1", Gateways: []v1alpha1.Gateway{{PublicKey: "g1", ClusterEndpoints: []string{"10.0.0.1:51820"}}}})
	return m, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

var request8080 = localapi.SteerRequest{Target: "deploy/web", Port: "8080", Local: "3000"}
