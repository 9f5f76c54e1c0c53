package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/reroute"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

// live has the laptop beat to whoever steers for it.
func (l *laptop) live(at netip.Addr) {
	l.Helper()
	ln, err := l.stack.ListenTCP(netip.AddrPortFrom(at, control.LivePort))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
			go func() {
				defer c.Close()
				for m := (control.ToPod{Podnet: control.Version}); control.Write(c, m) == nil; m = (control.ToPod{}) {
					time.Sleep(control.Beat / 2)
				}
			}()
		}
	}()
}

// endpoints does the endpointslice controller's work in shop, for Services that
// select the one pod there is.
func (s *stage) endpoints(pod netip.AddrPort) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for wake.After(ctx, 50*time.Millisecond) {
			var list corev1.ServiceList
			if err := s.admin.List(ctx, &list, client.InNamespace("shop")); err != nil {
				continue
			}
			for i := range list.Items {
				_ = s.control(ctx, &list.Items[i], pod)
			}
		}
	}()
}

func (s *stage) control(ctx context.Context, of *corev1.Service, pod netip.AddrPort) error {
	name, tcp, port := "http", corev1.ProtocolTCP, int32(pod.Port())
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: of.Name + "-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: of.Name, discoveryv1.LabelManagedBy: endpointsByController},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: of.Name, UID: of.UID}}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	if _, taken := of.Spec.Selector[podnet.LabelSteeredBy]; of.Spec.Selector["app"] == "web" && !taken {
		want.Ports = []discoveryv1.EndpointPort{{Name: &name, Protocol: &tcp, Port: &port}}
		want.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{pod.Addr().String()}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "uid-web-0"}}}
	}
	have := &discoveryv1.EndpointSlice{}
	err := s.admin.Get(ctx, client.ObjectKeyFromObject(want), have)
	switch {
	case apierrors.IsNotFound(err):
		return s.admin.Create(ctx, want)
	case err != nil || len(have.Endpoints) == len(want.Endpoints):
		return err
	}
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	return s.admin.Update(ctx, have)
}

// web is the Service as it is.
func (s *stage) web() *corev1.Service {
	s.Helper()
	o := &corev1.Service{}
	if err := s.admin.Get(s.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, o); err != nil {
		s.Fatal(err)
	}
	return o
}

// leads is where clients of the Service are sent besides its pods; invalid:
// nowhere.
func (s *stage) leads() (at netip.AddrPort) {
	s.Helper()
	var list discoveryv1.EndpointSliceList
	if err := s.admin.List(s.Context(), &list, client.InNamespace("shop"), client.MatchingLabels{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: reroute.ManagedBy}); err != nil {
		s.Fatal(err)
	}
	for _, o := range list.Items {
		at = netip.AddrPortFrom(netip.MustParseAddr(o.Endpoints[0].Addresses[0]), uint16(*o.Ports[0].Port))
	}
	return at
}

// asBefore waits until the Service is what it was, and nothing else is left.
func (s *stage) asBefore(before *corev1.Service) {
	s.Helper()
	apiserver.Eventually(s.T, 20*time.Second, "the Service is as before", func() error {
		now := s.web()
		if !reflect.DeepEqual(now.Spec, before.Spec) || !maps.Equal(now.Annotations, before.Annotations) {
			return fmt.Errorf("selector %v, annotations %v", now.Spec.Selector, now.Annotations)
		}
		if at := s.leads(); at.IsValid() {
			return fmt.Errorf("it leads to %s", at)
		}
		shadow := &corev1.Service{}
		if err := s.admin.Get(s.Context(), client.ObjectKey{Namespace: "shop", Name: "podnet-web"}, shadow); !apierrors.IsNotFound(err) {
			return fmt.Errorf("its shadow: %v", err)
		}
		return nil
	})
}

// says connects, and tells who answers: the laptop repeats, the app says its name.
func says(at netip.AddrPort) string {
	c, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("me!")); err != nil {
		return err.Error()
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil {
		return err.Error()
	}
	return string(b)
}

// newWebApp answers "app" to whoever says something, at an address of this
// machine.
func newWebApp(t *testing.T, at netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, 3)); err == nil {
					_, _ = c.Write([]byte("app"))
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestServiceIsSteered: a rule for a Service, from the refusal for want of the
// gateway's role to what its clients hear, until it is deleted, and until the
// gateway stops.
func TestServiceIsSteered(t *testing.T) {
	t.Parallel()
	pod := ownAddress(t)
	s := setStage(t)
	s.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "patch-web"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, ResourceNames: []string{"web"}, Verbs: []string{"patch"}}}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "patch-web"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "patch-web"}})
	app := newWebApp(t, pod)
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{"owner": "team"}},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web", "tier": "front"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(int32(app.Port()))}}}})
	s.endpoints(app)
	before := s.web()

	g, stop := s.startAt("podnet-gateway-0", pod)
	g.serves = func(namespace string, _ policy.Proto, at netip.AddrPort) bool {
		return namespace == "shop" && at == app
	} // the pod is at the gateway's address
	l := s.enrol("laptop", 300, "shop")
	l.connect(g)
	l.live(l.relay(20000, 20001))
	if _, err := l.resolve("api.shop.svc.cluster.test."); err == nil { // the laptop's first handshake
		t.Error("there is a Service api")
	}
	rule := func(name string) *podnet.SteeringRule {
		return &podnet.SteeringRule{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{podnet.LabelRule: "web"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: before.UID}}},
			Spec: podnet.SteeringRuleSpec{User: "alice", Peer: "laptop", Renew: 1, Rule: "web", Via: podnet.ViaService, Service: "web", ServiceUID: string(before.UID),
				Port: 80, RelayPort: 20000},
		}
	}
	steered := func(name string) {
		t.Helper()
		s.awaitRule(name, "is in force", func(st podnet.SteeringRuleStatus) bool {
			return meta.IsStatusConditionTrue(st.Conditions, podnet.ConditionAgentReady) && st.Agent != nil && maps.Equal(st.Selector, before.Spec.Selector)
		})
	}

	first := rule("alice-web")
	s.steer(first)
	s.awaitRule("alice-web", "is refused", func(st podnet.SteeringRuleStatus) bool {
		c := meta.FindStatusCondition(st.Conditions, podnet.ConditionAccepted)
		return c != nil && c.Reason == podnet.ReasonServiceRefused && strings.Contains(c.Message, "kubectl -n shop create rolebinding podnet-services --clusterrole=podnet-gateway-services --serviceaccount=podnet-system:gateway")
	})
	s.asBefore(before)
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "podnet-services"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: deploy.DefaultNamespace, Name: deploy.ServiceAccountName}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: deploy.ServicesRole}})
	steered("alice-web")
	at := s.leads()
	if at.Addr() != pod || at.Port() < 19000 || at.Port() > 19999 {
		t.Errorf("the Service leads to %s", at)
	}
	if now := s.web(); !maps.Equal(now.Spec.Selector, map[string]string{podnet.LabelSteeredBy: deploy.DefaultNamespace}) || now.Annotations[podnet.AnnotationSelector] != `{"app":"web","tier":"front"}` {
		t.Errorf("selector %v, annotations %v", now.Spec.Selector, now.Annotations)
	}
	if got := says(at); got != "me!" {
		t.Errorf("the laptop says %q", got)
	}

	if err := s.alice.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	apiserver.Eventually(t, 5*time.Second, "the app answers at once", func() error {
		if got := says(at); got != "app" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	s.asBefore(before)
	if got := says(at); got != "app" {
		t.Errorf("who has not heard of it yet is told %q", got)
	}

	s.steer(rule("alice-again"))
	steered("alice-again")
	stop()
	s.asBefore(before)
}
