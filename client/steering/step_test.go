package steering

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

var start = time.Unix(1_000_000, 0)

// oneRule is a state with a rule about one pod.
func oneRule(agents ...cluster.AgentContainer) (*state, *rule, *object, *pod) {
	s := newState("alice", lease)
	s.member = Member{Peer: "u1", Gateways: []v1alpha1.Gateway{{PublicKey: "g1"}}}
	_, cancel := context.WithCancel(context.Background())
	cancel()
	r := &rule{name: "web", req: request8080, namespace: "shop", protocol: steer.TCP, relayPort: 20000, ports: map[string]uint16{}, objects: map[string]*object{}, leave: cancel}
	s.rules["web"] = r
	s.follow(r, cluster.PodSet{Pods: []cluster.Pod{{Name: "web-1", UID: "1", Ready: true, Agents: agents}}, Port: map[string]uint16{"1": 8080}})
	s.sort(r)
	return s, r, r.objects["1"], s.pod(r, "1")
}

// written is an object that the API has, in the gateway's view.
func written(o *object, accepted bool) {
	o.phase, o.since, o.renewed, o.renew = there, start, start, 1
	if accepted {
		o.status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}
	}
}

func TestStep(t *testing.T) {
	knows := cluster.AgentContainer{Name: "a", State: cluster.AgentRunning, Keys: []string{"g1"}}
	waits, ended, stranger := knows, knows, knows
	waits.State, ended.State, stranger.Keys = cluster.AgentWaiting, cluster.AgentEnded, []string{"g0"}
	k := key.Public{1}
	for name, c := range map[string]struct {
		agents []cluster.AgentContainer
		given  func(s *state, r *rule, o *object, p *pod)
		want   string
	}{
		"a new pod is asked for":           {nil, nil, "dryrun"},
		"but once":                         {nil, func(_ *state, _ *rule, _ *object, p *pod) { p.asking = true }, ""},
		"and later again after a no":       {nil, func(_ *state, _ *rule, _ *object, p *pod) { p.retry = start.Add(time.Second) }, ""},
		"one that allows it gets a rule":   {nil, func(_ *state, _ *rule, _ *object, p *pod) { p.allowed = true }, "create"},
		"so does one with an agent":        {[]cluster.AgentContainer{knows}, nil, "create"},
		"also with one that starts":        {[]cluster.AgentContainer{waits}, nil, "create"},
		"not with one that ended":          {[]cluster.AgentContainer{ended}, nil, "dryrun"},
		"nor with one of other gateways":   {[]cluster.AgentContainer{stranger}, nil, "dryrun"},
		"no agent before the gateway's ok": {nil, func(_ *state, _ *rule, o *object, _ *pod) { written(o, false) }, "poll"},
		"then one":                         {nil, func(_ *state, _ *rule, o *object, _ *pod) { written(o, true) }, "poll inject"},
		"but while no gateway runs":        {nil, func(s *state, _ *rule, o *object, _ *pod) { written(o, true); s.member.Gateways = nil }, "poll"},
		"nor is anything asked then":       {nil, func(s *state, _ *rule, _ *object, _ *pod) { s.member.Gateways = nil }, ""},
		"which is asked for its key":       {[]cluster.AgentContainer{waits}, func(_ *state, _ *rule, o *object, _ *pod) { written(o, true) }, "poll greet"},
		"which is written": {[]cluster.AgentContainer{knows}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.container, p.key = "a", k
		}, "key poll"},
		"once": {[]cluster.AgentContainer{knows}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.container, p.key, o.key = "a", k, k.String()
		}, "poll"},
		"an agent that ended is replaced": {[]cluster.AgentContainer{ended}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.container, p.key, o.key = "a", k, k.String()
		}, "poll inject"},
		"unless too many did": {[]cluster.AgentContainer{ended}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.injections = slices.Repeat([]time.Time{start}, maxInjections)
		}, "poll"},
		"or it said why": {[]cluster.AgentContainer{ended}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.broken["a"] = errRevoked
		}, "poll"},
		"one that serves is kept with other gateways": {[]cluster.AgentContainer{stranger}, func(_ *state, _ *rule, o *object, p *pod) {
			written(o, true)
			p.container, p.key, o.key, o.inForce = "a", k, k.String(), true
			o.status.Agent = &v1alpha1.SteeringAgent{PublicKey: k.String()}
		}, "poll"},
		"the lease is renewed first": {[]cluster.AgentContainer{knows}, func(_ *state, r *rule, o *object, p *pod) {
			written(o, true)
			p.container, p.key, o.due, r.polled = "a", k, true, start
		}, "renew"},
		"another Peer has other objects": {[]cluster.AgentContainer{knows}, func(s *state, _ *rule, o *object, _ *pod) {
			written(o, true)
			s.member.Peer = "u2"
		}, "delete create"},
		"a rule that stops":              {nil, func(_ *state, r *rule, o *object, _ *pod) { written(o, true); r.stopping = true }, "delete"},
		"one that was never written":     {nil, func(_ *state, r *rule, _ *object, _ *pod) { r.stopping = true }, ""},
		"a pod that goes":                {nil, func(_ *state, r *rule, o *object, _ *pod) { written(o, true); clear(r.ports) }, "delete"},
		"a pod with another port":        {nil, func(_ *state, r *rule, o *object, p *pod) { written(o, true); r.ports["1"], p.allowed = 80, true }, "delete create"},
		"one that somebody else deleted": {nil, func(_ *state, _ *rule, o *object, _ *pod) { o.phase = revoked }, ""},
		"before there is a Peer":         {nil, func(s *state, r *rule, _ *object, _ *pod) { s.member.Peer = ""; clear(r.objects) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, o, p := oneRule(c.agents...)
			if c.given != nil {
				c.given(s, r, o, p)
			}
			var got []string
			for _, a := range s.step(start) {
				got = append(got, string(a.verb))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			for _, a := range s.step(start) {
				if a.verb != doDelete {
					t.Errorf("does it again: %s", a.verb)
				}
			}
		})
	}
}

// TestAPodOfTwoRules has one agent, whose key goes to both.
func TestAPodOfTwoRules(t *testing.T) {
	s, _, o, p := oneRule()
	_, other, second, _ := oneRule()
	other.name = "second"
	s.rules["second"] = other
	written(o, true)
	written(second, true)
	count := map[verb]int{}
	for range 3 {
		for _, a := range s.step(start) {
			count[a.verb]++
			switch a.verb {
			case doInject:
				s.injected(p, "a", start, nil)
			case doGreet:
				s.greeted(p, "a", control.Hello{PublicKey: key.Public{7}}, start, nil)
			}
		}
	}
	if fmt.Sprint(count) != "map[greet:1 inject:1 key:2 poll:2]" {
		t.Errorf("did %v", count)
	}
}

func TestObjectName(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, c := range [][]string{
		{"alice", "web", "web-7c9f-x2", "uid", "u1"}, {"system:serviceaccount:ci:Runner", "web", "web.0", "uid", "u1"}, {"ÄÖ", strings.Repeat("r", 63), long, "uid", "u1"}, {"alice", "web", "web-7c9f-x2", "uid", "u2"},
	} {
		name := objectName(c[0], c[1], c[2], c[3], c[4])
		if len(name) > 253 || !strings.Contains(name, "-"+c[1]+"-") || strings.ToLower(name) != name || strings.ContainsAny(name, ":@ ") {
			t.Errorf("%q", name)
		}
	}
	if objectName("a", "r", "p", "u", "1") == objectName("a", "r", "p", "u", "2") {
		t.Error("two Peers have objects of one name")
	}
}

func TestRuleName(t *testing.T) {
	for want, req := range map[string]localapi.SteerRequest{
		"web-8080":     {Target: "deploy/web", Port: "8080"},
		"dns-53-udp":   {Target: "svc/dns", Port: "53/udp"},
		"app-web-http": {Selector: "app=web", Port: "http"},
		strings.Repeat("a", 40) + "-" + strings.Repeat("b", 15): {Target: "sts/" + strings.Repeat("a", 60), Port: strings.Repeat("b", 60)},
		"web-example-1-2": {Target: "pod/web.example", Port: "1"},
	} {
		got := ruleName(req, func(n string) bool { return n == "web-example-1" })
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
