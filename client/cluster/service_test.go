package cluster

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

const servicesList = "GET /api/v1/namespaces/shop/services"

func aService(name string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "uid-svc"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00::7"},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web")}, {Name: "admin", Port: 9901, TargetPort: intstr.FromInt32(8080)},
			{Name: "also", Port: 8080, TargetPort: intstr.FromInt32(9090)}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}}}
	for _, c := range change {
		c(s)
	}
	return s
}

// steered is how a gateway leaves a Service that it steers.
func steered(s *corev1.Service) {
	s.Annotations = map[string]string{v1alpha1.AnnotationSelector: `{"app":"web"}`}
	s.Spec.Selector = map[string]string{v1alpha1.LabelSteeredBy: "podnet-system"}
}

func TestWatchAServiceItself(t *testing.T) {
	f := newFakeAPI(t)
	services := newFakeList(aService("web"))
	f.on[servicesList] = services.ServeHTTP
	f.on[podList] = func(http.ResponseWriter, *http.Request) { t.Error("its pods are asked for") }
	c := f.client()
	sets, err := c.WatchService(t.Context(), "shop", "web", "http")
	if err != nil {
		t.Fatal(err)
	}
	s := having(t, sets, "web")
	if p := s.Pods[0]; p.UID != "uid-svc" || !p.Ready || len(p.IPs) != 2 || s.Port["uid-svc"] != 80 {
		t.Errorf("%+v", s)
	}
	services.put(aService("web", func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[1:] }))
	await(t, sets, "no port", func(s PodSet) bool { var none *NoPortError; return errors.As(s.Err, &none) && len(s.Port) == 0 })
	services.remove("web")
	await(t, sets, "no Service", func(s PodSet) bool { var none *NoTargetError; return errors.As(s.Err, &none) && len(s.Pods) == 0 })
	services.put(aService("web", func(s *corev1.Service) { s.UID = "another" }))
	await(t, sets, "another Service", func(s PodSet) bool { return s.Err == nil && s.Port["another"] == 80 })

	services.remove("web")
	if _, err = c.WatchService(t.Context(), "shop", "web", "http"); err == nil {
		t.Error("watched without a Service")
	}
	explained(t, err, localapi.CodeUsage, "no svc/web")
}

func TestServicePort(t *testing.T) {
	o, err := readService(aService("web"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]uint16{"80": 80, "http": 80, "web": 80, "8080": 8080, "9090": 8080, "9901": 9901, "53": 0, "53/udp": 53, "none": 0, "81": 0} {
		p, err := ParsePort(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.servicePort(p); got != want {
			t.Errorf("%s is port %d of the Service, want %d", text, got, want)
		}
	}
}

func readService(s *corev1.Service) (owner, error) {
	_, o, err := readOwner(mustJSON(s))
	return o, err
}

// TestServicesOfATarget: those that select its pods, or did before a gateway took
// them over; not the ones that podnet made.
func TestServicesOfATarget(t *testing.T) {
	f := newFakeAPI(t)
	f.on[podList] = newFakeList(aPod("web-1"), aPod("web-2")).ServeHTTP
	all := []metav1.Object{
		aService("web", steered),
		aService("podnet-web", func(s *corev1.Service) { s.Labels = map[string]string{v1alpha1.LabelShadow: "web"} }),
		aService("db", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "db"} }),
		aService("by-hand", func(s *corev1.Service) { s.Spec.Selector = nil }),
	}
	f.on[servicesList] = newFakeList(all...).ServeHTTP
	c := f.client()
	find := func(target Target, want ...string) {
		t.Helper()
		got, err := c.Services(t.Context(), "shop", target)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s has %s (%v), want %s", target, got, err, want)
		}
	}
	find(Target{Selector: "app=web"}, "web")
	find(Target{Kind: "pod", Name: "web-1"}, "web")
	find(Target{Kind: "svc", Name: "any"}, "any")
	f.on[servicesList] = newFakeList(append(all, aService("also"))...).ServeHTTP
	find(Target{Selector: "app=web"}, "also", "web")
	f.on[servicesList] = func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }
	_, err := c.Services(t.Context(), "shop", Target{Selector: "app=web"})
	explained(t, err, localapi.CodeForbidden, "alice may not list services in namespace shop")
}

// TestPodsOfASteeredService are those that it selected before.
func TestPodsOfASteeredService(t *testing.T) {
	f := newFakeAPI(t)
	f.on[servicesList] = newFakeList(aService("web", steered)).ServeHTTP
	f.on[podList] = func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("labelSelector"); got != "app=web" {
			t.Errorf("pods are asked for by %q", got)
		}
		newFakeList(aPod("web-1")).ServeHTTP(w, r)
	}
	sets, err := f.client().WatchPods(t.Context(), "shop", Target{Kind: "svc", Name: "web"}, "9901")
	if err != nil {
		t.Fatal(err)
	}
	if s := having(t, sets, "web-1"); s.Port["uid-web-1"] != 8080 {
		t.Errorf("ports %v", s.Port)
	}
}

func TestRuleOfAServiceRefused(t *testing.T) {
	f := newFakeAPI(t)
	no := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "ValidatingAdmissionPolicy 'podnet-steering' denied request: no")
	}
	rule := aRule()
	rule.Spec.Pod, rule.Spec.PodUID, rule.Spec.Via, rule.Spec.Service, rule.Spec.ServiceUID = "", "", v1alpha1.ViaService, "web", "uid-svc"
	f.on["POST "+ruleList], f.on["PATCH "+ruleList+"/r"] = no, no
	f.on["GET "+ruleList+"/r"] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, rule) }
	f.denied["patch services shop"], f.denied["patch pods/ephemeralcontainers shop"] = true, true
	c := f.client()
	for what, err := range map[string]error{"create": c.CreateSteeringRule(t.Context(), rule), "renew": c.RenewSteeringRule(t.Context(), "shop", "r", 2)} {
		explained(t, err, localapi.CodeForbidden, "alice may not patch services in namespace shop", "--verb=get,list,watch,patch --resource=services")
		var forbidden *ForbiddenError
		if !errors.As(err, &forbidden) || forbidden.Name != "web" || !strings.Contains(forbidden.Ask, "--user=alice") {
			t.Errorf("%s: %+v", what, err)
		}
	}
}
