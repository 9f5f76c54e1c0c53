// Package steering keeps the steering rules of one session: for each of them it
// writes an object for every pod of the target, sees that each of these pods has
// an agent, renews, and follows pods that come and go. What is to be done next is
// decided by a pure state (step.go); Manager does it.
package steering

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/upkeep"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	spec "podnet.dev/internal/steer/object"
)

// Cluster is what steering needs of a cluster; *cluster.Client is one.
type Cluster interface {
	WatchPods(ctx context.Context, namespace string, t cluster.Target, ports string) (<-chan cluster.PodSet, error)
	WatchService(ctx context.Context, namespace, name, port string) (<-chan cluster.PodSet, error)
	Services(ctx context.Context, namespace string, t cluster.Target) ([]string, error)
	CreateSteeringRule(ctx context.Context, rule *v1alpha1.SteeringRule) error
	RenewSteeringRule(ctx context.Context, namespace, name string, renew int64) error
	SetAgentKey(ctx context.Context, namespace, name, key string) error
	DeleteSteeringRule(ctx context.Context, namespace, name string) error
	SteeringRules(ctx context.Context, namespace, selector string) ([]v1alpha1.SteeringRule, error)
	AgentImage(ctx context.Context, namespace string, env []string) (image, pullPolicy string, err error)
	InjectAgent(ctx context.Context, pod cluster.Pod, a cluster.AgentSpec, dryRun bool) (container string, err error)
	AgentHello(ctx context.Context, pod cluster.Pod, container string) (control.Hello, error)
}

// Relay takes the steered traffic; *relay.Relay is one.
type Relay interface {
	Port() uint16
	SetRules([]relay.Rule)
	Live() []relay.Live
	Requests(rule string) []relay.Request
	Inspected(rule string) []relay.Inspection
	Replay(ctx context.Context, rule string, connection, exchange time.Time) (relay.Inspection, error)
	Subscribe(func(relay.Request)) (cancel func())
	Changed() <-chan struct{}
}

// Config of a Manager.
type Config struct {
	Cluster Cluster
	Relay   Relay
	// User is who the API server says we are, Namespace where targets are that do
	// not say so.
	User, Namespace string
	// Lease is how long an object lives after its last renewal.
	Lease time.Duration
	// GatewayNamespace has the name of the agent's image, unless Env, the caller's
	// environment, has one.
	GatewayNamespace string
	Env              []string
	Log              *slog.Logger
}

const (
	// readyTime is how long a new rule may take, images pulled and all.
	readyTime = 3 * time.Minute
	// greetTime is for an agent to start and say who it is.
	greetTime = 2 * time.Minute
	// atOnce is how many calls to the API server may be under way.
	atOnce = 8
	// behind is how many requests may wait for somebody who reads them slowly;
	// of more he does not hear.
	behind = 1000
)

// Manager has the rules of one session. Its methods may be called at any time,
// from any goroutine; nothing is done before Run.
type Manager struct {
	Config
	loop  upkeep.Loop
	slots chan struct{}
	wg    sync.WaitGroup

	sending atomic.Int32

	mu      sync.Mutex
	st      *state
	ctx     context.Context // Run's; nil before and after
	changed chan struct{}   // closed when something did
}

// New prepares a Manager.
func New(c Config) *Manager {
	return &Manager{Config: c, loop: upkeep.NewLoop(), slots: make(chan struct{}, atOnce),
		st: newState(c.User, c.Lease), changed: make(chan struct{})}
}

// SetMember says whose the traffic is from now on. Another Peer gets objects of
// its own, and those of the last one go.
func (m *Manager) SetMember(to Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.member = to
	m.sending.Store(int32(m.st.sending()))
	m.loop.Kick()
}

// Renew has all objects renewed.
func (m *Manager) Renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.st.rules {
		for _, o := range r.objects {
			o.due = true
		}
	}
	m.loop.Kick()
}

// Run does what is to be done until ctx is done; then it deletes all rules.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	defer m.wg.Wait()
	var told []relay.Rule
	m.loop.Run(ctx, func() (wait time.Duration, left int) {
		actions, rules, wait, left := m.look()
		if !reflect.DeepEqual(rules, told) {
			m.Relay.SetRules(rules)
			told = rules
		}
		for _, a := range actions {
			m.start(ctx, a)
		}
		return wait, left
	}, m.endAll, m.Relay.Changed)
	return nil
}

// look makes one step and tells everybody.
func (m *Manager) look() (actions []action, rules []relay.Rule, wait time.Duration, left int) {
	live := m.Relay.Live()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.live(live)
	actions = m.st.step(time.Now())
	m.sending.Store(int32(m.st.sending()))
	rules = m.st.relayed()
	slices.SortFunc(rules, func(a, b relay.Rule) int { return strings.Compare(a.Name, b.Name) })
	close(m.changed)
	m.changed = make(chan struct{})
	return actions, rules, m.st.wait(), len(m.st.rules)
}

func (m *Manager) endAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = nil
	for _, r := range m.st.rules {
		m.st.fail(r, &localapi.Error{Code: localapi.CodeEnded, Message: "the session ended, and the rule with it", Hint: "podnet connect begins a new session"})
	}
}

// start does one thing beside the loop. What was written must be known, so that
// it can be deleted: only reading ends with ctx.
func (m *Manager) start(ctx context.Context, a action) {
	kept := context.WithoutCancel(ctx)
	m.wg.Go(func() {
		if a.verb != doGreet { // which waits for a container
			m.slots <- struct{}{}
			defer func() { <-m.slots }()
		}
		var done func(now time.Time)
		switch a.verb {
		case doPoll:
			begun := time.Now()
			list, err := m.Cluster.SteeringRules(ctx, a.rule.namespace, v1alpha1.LabelRule+"="+a.rule.name)
			done = func(now time.Time) { m.st.polled(a.rule, list, begun, now, err) }
		case doDryRun, doInject:
			pod, spec := m.injection(a.pod)
			c, err := m.inject(ctx, pod, spec, a.verb == doDryRun)
			m.note(err, "an agent was not put into a pod", "pod", pod.Namespace+"/"+pod.Name, "dryrun", a.verb == doDryRun)
			done = func(now time.Time) {
				if a.verb == doDryRun {
					m.st.dryRun(a.pod, now, err)
				} else {
					m.st.injected(a.pod, c, now, err)
				}
			}
		case doGreet:
			pod, _ := m.injection(a.pod)
			ctx, cancel := context.WithTimeout(ctx, greetTime)
			defer cancel()
			hello, err := m.Cluster.AgentHello(ctx, pod, a.container)
			m.note(err, "an agent says nothing", "pod", pod.Namespace+"/"+pod.Name)
			done = func(now time.Time) { m.st.greeted(a.pod, a.container, hello, now, err) }
		case doCreate:
			err := m.Cluster.CreateSteeringRule(kept, m.object(a))
			m.note(err, "a rule was not written", "rule", a.rule.name)
			done = func(now time.Time) { m.st.created(a.rule, a.object, now, err) }
		case doDelete:
			err := m.Cluster.DeleteSteeringRule(kept, a.rule.namespace, a.object.name)
			m.note(err, "a rule was not deleted", "rule", a.rule.name)
			done = func(now time.Time) { m.st.deleted(a.rule, a.object, now, err) }
		case doRenew:
			begun := time.Now()
			m.mu.Lock()
			a.object.renew++
			renew := a.object.renew
			m.mu.Unlock()
			err := m.Cluster.RenewSteeringRule(ctx, a.rule.namespace, a.object.name, renew)
			m.note(err, "a rule was not renewed", "rule", a.rule.name)
			done = func(now time.Time) { m.st.renewed(a.object, begun, now, err) }
		case doKey:
			err := m.Cluster.SetAgentKey(ctx, a.rule.namespace, a.object.name, a.key)
			m.note(err, "an agent's key was not written", "rule", a.rule.name)
			done = func(now time.Time) { m.st.keyed(a.object, a.key, now, err) }
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		done(time.Now())
		m.loop.Kick()
	})
}

func (m *Manager) note(err error, text string, facts ...any) {
	if err != nil {
		m.Log.Info(text, append(facts, "err", err)...)
	}
}

// inject puts the agent that the administrator has chosen into a pod.
func (m *Manager) inject(ctx context.Context, pod cluster.Pod, spec cluster.AgentSpec, dryRun bool) (container string, err error) {
	if spec.Image, spec.PullPolicy, err = m.Cluster.AgentImage(ctx, m.GatewayNamespace, m.Env); err != nil {
		return "", err
	}
	return m.Cluster.InjectAgent(ctx, pod, spec, dryRun)
}

// injection is a pod as it is now, and what to put into it.
func (m *Manager) injection(p *pod) (cluster.Pod, cluster.AgentSpec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.Pod, cluster.AgentSpec{PodUID: p.UID, Gateways: m.st.member.Gateways, NodeAddrs: p.HostIP, NoRedirect: p.does == sends}
}

// object is the SteeringRule to write.
func (m *Manager) object(a action) *v1alpha1.SteeringRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, o, p := a.rule, a.object, a.pod
	want := r.req.Rule()
	target := r.req.Target
	if target == "" {
		target = "-l " + r.req.Selector
	}
	onError := ""
	if want.ToApp {
		onError = localapi.OnErrorApp
	}
	key := ""
	if !p.key.IsZero() && p.container == p.agent(m.st.member.keys(), "") {
		key = p.key.String()
	}
	o.key = key
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: metaUID(p.UID)}
	out := &v1alpha1.SteeringRule{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: o.name, Labels: map[string]string{v1alpha1.LabelRule: r.name}},
		Spec: v1alpha1.SteeringRuleSpec{
			User: m.st.user, Peer: o.peer, Renew: 1, Rule: r.name, Target: cut(target, 320),
			Port: int32(o.port), Protocol: v1alpha1.SteeringProtocol(want.Protocol), Mode: v1alpha1.SteeringMode(want.Mode), Matches: spec.Matches(want.Matches),
			OnError: onError, ClientAddress: string(want.ClientAddress), RelayPort: int32(r.relayPort), Local: cut(r.local, 320), AgentKey: key,
		},
	}
	if r.does == sends {
		out.Spec.Mode, out.Spec.Protocol = v1alpha1.SteeringEgress, v1alpha1.SteeringProtocol(steer.TCP) // which stands for all
	}
	if r.does == leads {
		owner.Kind = "Service"
		out.Spec.Via, out.Spec.Service, out.Spec.ServiceUID = v1alpha1.ViaService, p.Name, p.UID
	} else {
		out.Spec.Pod, out.Spec.PodUID = p.Name, p.UID
	}
	out.OwnerReferences = []metav1.OwnerReference{owner}
	return out
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// watch follows the pods of a rule until ctx is done.
func (m *Manager) watch(ctx context.Context, r *rule, t cluster.Target) {
	sets, err := m.sets(ctx, r, t)
	if err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() == nil {
			m.st.fail(r, err)
		}
		m.loop.Kick()
		return
	}
	for set := range sets {
		m.mu.Lock()
		if ctx.Err() == nil {
			m.st.follow(r, set)
		}
		m.loop.Kick()
		m.mu.Unlock()
	}
}

// sets begins to follow what a rule is for.
func (m *Manager) sets(ctx context.Context, r *rule, t cluster.Target) (<-chan cluster.PodSet, error) {
	if r.does != leads {
		return m.Cluster.WatchPods(ctx, r.namespace, t, r.req.Port)
	}
	names, err := m.Cluster.Services(ctx, r.namespace, t)
	switch {
	case err != nil:
		return nil, err
	case len(names) == 0:
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "no Service leads to the pods of " + r.req.Words() + " in namespace " + r.namespace,
			Hint: "kubectl -n " + r.namespace + " get services", Status: http.StatusNotFound}
	case len(names) > 1:
		return nil, &localapi.Error{Code: localapi.CodeUsage, Message: r.req.Words() + " has " + count(len(names), "Service") + ": " + strings.Join(names, ", "),
			Hint: "name one of them, as svc/" + names[0], Status: http.StatusBadRequest}
	}
	return m.Cluster.WatchService(ctx, r.namespace, names[0], r.req.Port)
}

// find is the rule of a name.
func (m *Manager) find(name string) (*rule, error) {
	if r := m.st.rules[name]; r != nil {
		return r, nil
	}
	return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + name + " of this session", Hint: "podnet steer list", Status: http.StatusNotFound}
}
