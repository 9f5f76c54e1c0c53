package fronts

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
)

// court is a world with a Service web and a rule for it, and who judges that.
type court struct {
	*testing.T
	world   *world.World
	fronts  *Fronts
	service *corev1.Service
}

func newCourt(t *testing.T) *court {
	own := []netip.Addr{netip.MustParseAddr("10.244.0.9")}
	w := world.New(world.Config{Namespace: "podnet-system", Pod: "podnet-gateway-0", PodIPs: own, Log: slog.New(slog.DiscardHandler)})
	c := &court{T: t, world: w}
	c.fronts = New(Config{Namespace: "podnet-system", PodIPs: own, Log: slog.New(slog.DiscardHandler), Changed: func() {}})
	c.service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Selector: map[string]string{"app": "web"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}}
	w.Set(c.service)
	c.rule("web", "uid-web")
	return c
}

func (c *court) rule(service, uid string) *podnet.SteeringRule {
	r := &podnet.SteeringRule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice-" + service, UID: types.UID("uid-rule-" + service)},
		Spec: podnet.SteeringRuleSpec{User: "alice", Peer: "laptop", Via: podnet.ViaService, Service: service, ServiceUID: uid, Port: 80, Protocol: "tcp", Mode: "steal", RelayPort: 20000}}
	c.world.Set(r)
	return r
}

// change has the Service be another one.
func (c *court) change(f func(*corev1.Service)) {
	c.service = c.service.DeepCopy()
	f(c.service)
	c.world.Set(c.service)
}

// judged are the rules that are judged.
func (c *court) judged(leads bool) []world.Rule {
	s := c.world.Snapshot()
	c.fronts.Judge(&s, leads)
	return s.Rules
}

// want judges the one rule there is.
func (c *court) want(leads bool, refused string) steering.Object {
	c.Helper()
	rules := c.judged(leads)
	if len(rules) != 1 {
		c.Fatalf("%d rules are judged", len(rules))
	}
	got := rules[0].Rule.Refused
	if refused == "" && got != "" || !strings.Contains(got, refused) {
		c.Errorf("refused %q, want %q in it", got, refused)
	}
	return rules[0].Rule
}

func TestWhatIsKnownOfAServicesRule(t *testing.T) {
	c := newCourt(t)
	if got := c.judged(true); len(got) != 0 || !c.fronts.undecided["uid-web"] {
		t.Errorf("before it is known what the gateway may do: %v", got)
	}
	c.fronts.rights.note("shop", right{time.Now(), "patch services"})
	c.want(true, "may not patch services in namespace shop")
	c.fronts.rights.note("shop", right{at: time.Now()})
	o := c.want(true, "")
	if o.Agent.IsZero() || o.Agent != c.want(true, "").Agent {
		t.Error("it has no agent, or another one each time")
	}
	if o.Pod != "service/web" || o.PodUID != "uid-web" {
		t.Errorf("it is about %s, %s", o.Pod, o.PodUID)
	}

	if o := c.want(false, ""); !o.Agent.IsZero() {
		t.Error("another gateway names the agent of the one that leads")
	}
	theirs := key.Public{7}
	r := c.rule("web", "uid-web")
	r.Status.Agent = &podnet.SteeringAgent{PublicKey: theirs.String()}
	c.world.Set(r)
	if o := c.want(false, ""); o.Agent != theirs {
		t.Errorf("the agent of the one that leads is %v, want %v", o.Agent, theirs)
	}

	c.change(func(s *corev1.Service) { s.UID = "uid-of-a-later-one" })
	c.want(true, "gone")
	c.change(func(s *corev1.Service) { s.UID, s.Spec.SessionAffinity = "uid-web", corev1.ServiceAffinityClientIP })
	c.want(true, "session affinity")
}

// Somebody, perhaps a program that keeps a repository's word, gives a steered
// Service its selector. It is not fought for: the rule is over.
func TestAnOverruledServiceIsLetGo(t *testing.T) {
	c := newCourt(t)
	c.judged(true)
	c.fronts.rights.note("shop", right{at: time.Now()})
	note := func(s *corev1.Service) {
		s.Annotations = map[string]string{podnet.AnnotationSelector: `{"app":"web"}`}
	}
	c.change(func(s *corev1.Service) {
		note(s)
		s.Spec.Selector = map[string]string{podnet.LabelSteeredBy: "podnet-system"}
	})
	c.want(true, "")
	c.change(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} })
	c.want(true, "another selector")
	c.change(func(s *corev1.Service) { s.Annotations = nil }) // as the gateway has put it right
	c.want(true, "another selector")
	c.world.Remove(c.rule("web", "uid-web"))
	c.judged(true)
	c.rule("web", "uid-web")
	if len(c.judged(true)) == 0 { // the namespace is asked about anew
		c.fronts.rights.note("shop", right{at: time.Now()})
	}
	c.want(true, "")
}

func TestFrontsAreBounded(t *testing.T) {
	c := newCourt(t)
	c.judged(true)
	c.fronts.rights.note("shop", right{at: time.Now()})
	for i := range maxFronts {
		c.fronts.key(types.UID(fmt.Sprint("uid-", i)))
	}
	c.want(true, "as many Services as they can")
	c.fronts.drop("uid-0")
	c.want(true, "")
}

// A gateway that does not lead writes nothing; one that leads and knows of no rule
// puts right what is left of one, once it may.
func TestWhatIsLeftIsPutRight(t *testing.T) {
	c := newCourt(t)
	c.change(func(s *corev1.Service) {
		s.Annotations = map[string]string{podnet.AnnotationSelector: `{"app":"web"}`}
		s.Spec.Selector = map[string]string{podnet.LabelSteeredBy: "podnet-system"}
	})
	written := func(leads bool) (wishes []reroute.Wish) {
		s := c.world.Snapshot()
		c.fronts.Judge(&s, leads)
		verdicts := make([]steering.Verdict, len(s.Rules))
		c.fronts.lead = func(_ context.Context, _ world.Service, w reroute.Wish) { wishes = append(wishes, w) }
		c.fronts.Follow(t.Context(), time.Now(), s, verdicts, leads)
		return wishes
	}
	if got := written(false); len(got) != 0 {
		t.Errorf("a gateway that does not lead writes: %+v", got)
	}
	if got := written(true); len(got) != 0 {
		t.Errorf("it is not known yet what the rule is worth, and it writes: %+v", got)
	}
	c.fronts.rights.note("shop", right{at: time.Now()})
	if got := written(true); len(got) != 1 || got[0].Steer { // the rule is not accepted
		t.Errorf("wishes: %+v", got)
	}
	if !c.fronts.Busy() {
		t.Error("nothing is left, it thinks")
	}
	c.world.Remove(c.rule("web", "uid-web"))
	if got := written(true); len(got) != 1 || got[0].Steer {
		t.Errorf("wishes: %+v", got)
	}
	c.change(func(s *corev1.Service) { s.Annotations, s.Spec.Selector = nil, map[string]string{"app": "web"} })
	if got := written(true); len(got) != 0 || c.fronts.Busy() || len(c.world.Snapshot().Services) != 0 {
		t.Errorf("wishes: %+v, still looked after: %v", got, c.world.Snapshot().Services)
	}
}
