package admission

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// ofService makes a rule one of the Service web.
func ofService(r *podnet.SteeringRule) {
	r.OwnerReferences[0].Kind, r.OwnerReferences[0].Name, r.OwnerReferences[0].UID = "Service", "web", "uid-web"
	s := &r.Spec
	s.Via, s.Target, s.Service, s.ServiceUID, s.Pod, s.PodUID, s.Port = podnet.ViaService, "svc/web", "web", "uid-web", "", "", 80
}

// webService selects two labels, and is annotated by somebody else.
func webService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"owner": "web, team"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web", "example.org/tier": "front"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
}

func shadowService(changes ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "podnet-web", Labels: map[string]string{podnet.LabelShadow: "web"}},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func endpointSlice(name, managedBy string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: managedBy}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.9"}}},
	}
}

// What a gateway writes to a Service to take its traffic, and to give it back.
const (
	noted    = `{\"app\":\"web\",\"example.org/tier\":\"front\"}`
	takeWeb  = `{"metadata":{"annotations":{"podnet.dev/original-selector":"` + noted + `"}},"spec":{"selector":{"app":null,"example.org/tier":null,"podnet.dev/steered-by":"podnet-system"}}}`
	backWeb  = `{"metadata":{"annotations":{"podnet.dev/original-selector":null}},"spec":{"selector":{"app":"web","example.org/tier":"front","podnet.dev/steered-by":null}}}`
	unsteer  = `"podnet.dev/steered-by":null`
	noteGone = `"podnet.dev/original-selector":null`
)

// TestWhoMaySteerServices is one story: the rows build on each other.
//
// nina may patch the Service web of shop, beside every right on our objects;
// alice may steer the pods there; an administrator has let the gateway steer the
// Services of shop, and not those of pay.
func TestWhoMaySteerServices(t *testing.T) {
	s := apiserver.Start(t)
	admin := s.Admin(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []string{"shop", "pay"} {
		must(admin.Create(ctx, &corev1.Namespace{ObjectMeta: meta("", ns)}))
	}
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1"})
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "all-of-podnet"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"steeringrules"},
		Verbs: []string{"get", "create", "patch", "delete"}}}}))
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "patch-web"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"},
		ResourceNames: []string{"web"}, Verbs: []string{"patch"}}}}))
	bind := func(namespace, role string, subject rbacv1.Subject) {
		must(admin.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta(namespace, subject.Name+"-"+role), Subjects: []rbacv1.Subject{subject},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}))
	}
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}
	}
	bind("shop", "all-of-podnet", user("nina"))
	bind("pay", "all-of-podnet", user("nina"))
	bind("shop", "patch-web", user("nina"))
	bind("shop", "podnet-user", user("alice"))
	bind("shop", "podnet-steer", user("alice"))
	bind("shop", deploy.ServicesRole, rbacv1.Subject{Kind: "ServiceAccount", Namespace: system, Name: deploy.ServiceAccountName})

	web := webService()
	must(admin.Create(ctx, web.DeepCopy()))
	must(admin.Create(ctx, func() *corev1.Service { o := webService(); o.Namespace = "pay"; return o }()))
	controllers := endpointSlice("web-abcde", "endpointslice-controller.k8s.io")
	must(admin.Create(ctx, controllers.DeepCopy()))

	who := map[string]client.Client{
		"nina": s.As(t, "nina"), "alice": s.As(t, "alice"), "admin": admin, "gateway": s.As(t, gateway, "system:serviceaccounts"),
	}
	apiserver.Eventually(t, 10*time.Second, "RoleBindings are seen", func() error {
		if err := dryRun(shadowService())(who["gateway"]); err != nil {
			return err
		}
		return dryRun(rule("shop", "probe", "nina", ofService))(who["nina"])
	})
	apiserver.Eventually(t, 10*time.Second, "the policy is seen", func() error {
		if err := renewed(web, `{"metadata":{"labels":{"a":"b"}}}`)(who["gateway"]); err == nil || !strings.Contains(err.Error(), deploy.ReasonServices) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})

	const (
		ok       = ""
		rbac     = "cannot"
		steer    = deploy.ReasonSteer
		services = deploy.ReasonServices
		fixed    = "only renew and agentKey may change"
		pair     = "pod and podUID name what is steered"
		kinds    = "via service takes tcp"
	)
	ninas := rule("shop", "nina-web", "nina", ofService)
	other := func(r *podnet.SteeringRule) { r.OwnerReferences[0].Name, r.Spec.Service = "api", "api" }
	asWritten := func(from, to string) func(client.Client) error {
		return renewed(web, strings.Replace(takeWeb, from, to, 1))
	}
	rows := []struct {
		who, what string
		do        func(client.Client) error
		want      string // "" allowed, else a word of the refusal
	}{
		{"nina", "steers the Service web, which she may patch", created(ninas), ok},
		{"nina", "steers the Service api, which she may not", created(rule("shop", "nina-2", "nina", ofService, other)), steer},
		{"nina", "steers the web of pay", created(rule("pay", "nina-2", "nina", ofService)), steer},
		{"nina", "steers a pod", created(rule("shop", "nina-2", "nina")), steer},
		{"alice", "steers the Service web with the right to its pods alone", created(rule("shop", "alice-2", "alice", ofService)), steer},
		{"nina", "has it owned by a Pod", created(rule("shop", "nina-2", "nina", ofService, owner(func(o *metav1.OwnerReference) { o.Kind = "Pod" }))), steer},
		{"nina", "has it owned by another Service", created(rule("shop", "nina-2", "nina", ofService, owner(func(o *metav1.OwnerReference) { o.Name = "api" }))), steer},
		{"nina", "has it owned by a former web", created(rule("shop", "nina-2", "nina", ofService, owner(func(o *metav1.OwnerReference) { o.UID = "u" }))), steer},
		{"nina", "names a pod as well", created(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.Pod, s.PodUID = "cart-0", "u" }))), pair},
		{"nina", "names no Service", created(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.Service = "" }))), pair},
		{"nina", "names a Service and steers no Service", created(rule("shop", "nina-2", "nina", spec(func(s *podnet.SteeringRuleSpec) { s.Service, s.ServiceUID = "web", "u" }))), pair},
		{"nina", "steers it via something else", created(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.Via = "pod" }))), "Unsupported value"},
		{"nina", "steers UDP", created(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.Protocol, s.Matches = "udp", nil }))), kinds},
		{"nina", "names an agent", created(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.AgentKey = key }))), kinds},
		{"nina", "names an agent later", renewed(ninas, `{"spec":{"agentKey":"`+key+`"}}`), kinds},
		{"nina", "takes a copy", dryRun(rule("shop", "nina-2", "nina", ofService, spec(func(s *podnet.SteeringRuleSpec) { s.Mode = "mirror" }))), ok},
		{"nina", "renews her rule", renewed(ninas, `{"spec":{"renew":2}}`), ok},
		{"nina", "has it steer another Service", renewed(ninas, `{"spec":{"service":"api"}}`), fixed},
		{"nina", "has it steer a later web", renewed(ninas, `{"spec":{"serviceUID":"u"}}`), fixed},
		{"nina", "has it steer a pod", renewed(ninas, `{"spec":{"via":"","service":"","serviceUID":"","pod":"cart-0","podUID":"u"}}`), fixed},

		{"gateway", "takes web without a note", asWritten(`{"podnet.dev/original-selector":"`+noted+`"}`, `{}`), services},
		{"gateway", "takes web and notes too little", asWritten(`,\"example.org/tier\":\"front\"`, ``), services},
		{"gateway", "takes web and notes something else", asWritten(`\"web\"`, `\"api\"`), services},
		{"gateway", "takes web and notes too much", asWritten(`{\"app\"`, `{\"x\":\"y\",\"app\"`), services},
		{"gateway", "has web select other pods", asWritten(`"podnet.dev/steered-by":"podnet-system"`, `"app":"api"`), services},
		{"gateway", "has web select some of its pods", asWritten(`"app":null,`, ``), services},
		{"gateway", "takes web in another gateway's name", asWritten(`"podnet-system"`, `"elsewhere"`), services},
		{"gateway", "takes web and labels it", asWritten(`{"metadata":{`, `{"metadata":{"labels":{"a":"b"},`), services},
		{"gateway", "takes web and takes a label off", asWritten(`{"metadata":{`, `{"metadata":{"labels":{"team":null},`), services},
		{"gateway", "takes web and annotates it besides", asWritten(`{"podnet.dev/orig`, `{"a":"b","podnet.dev/orig`), services},
		{"gateway", "takes web and takes an annotation off", asWritten(`{"podnet.dev/orig`, `{"owner":null,"podnet.dev/orig`), services},
		{"gateway", "takes web and adopts it", asWritten(`{"metadata":{`, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"y"}],`), services},
		{"gateway", "takes web and gives it an address", asWritten(`"spec":{`, `"spec":{"externalIPs":["192.0.2.1"],`), services},
		{"gateway", "takes web and publishes it", asWritten(`"spec":{`, `"spec":{"type":"NodePort",`), services},
		{"gateway", "takes web and moves its port", asWritten(`"spec":{`, `"spec":{"ports":[{"name":"http","port":80,"targetPort":81}],`), services},
		{"gateway", "notes a selector and leaves it", renewed(web, `{"metadata":{"annotations":{"podnet.dev/original-selector":"`+noted+`"}}}`), services},
		{"gateway", "takes web", renewed(web, takeWeb), ok},
		{"gateway", "gives web back to somebody else", renewed(web, strings.Replace(backWeb, `"web"`, `"api"`, 1)), services},
		{"gateway", "gives web back in part", renewed(web, strings.Replace(backWeb, `"app":"web",`, ``, 1)), services},
		{"gateway", "gives web back with more", renewed(web, strings.Replace(backWeb, `"app":"web",`, `"app":"web","a":"b",`, 1)), services},
		{"gateway", "gives web back and keeps the note", renewed(web, strings.Replace(backWeb, noteGone, ``, 1)), services},
		{"gateway", "drops the note alone", renewed(web, `{"metadata":{"annotations":{`+noteGone+`}}}`), services},
		{"gateway", "gives web back", renewed(web, backWeb), ok},
		{"gateway", "takes web once more", renewed(web, takeWeb), ok},
		{"admin", "applies another selector meanwhile", renewed(web, `{"spec":{"selector":{"app":"web2"}}}`), ok},
		{"gateway", "gives web back to something else", renewed(web, `{"metadata":{"annotations":{`+noteGone+`}},"spec":{"selector":{"app":"web3",`+unsteer+`}}}`), services},
		{"gateway", "gives web back as it is by now", renewed(web, `{"metadata":{"annotations":{`+noteGone+`}},"spec":{"selector":{`+unsteer+`}}}`), ok},
		{"admin", "makes web as it was, steered, without a note", renewed(web, `{"spec":{"selector":{"app":null,"podnet.dev/steered-by":"podnet-system"}}}`), ok},
		{"gateway", "mends web", renewed(web, `{"spec":{"selector":{"app":"web","example.org/tier":"front",`+unsteer+`}}}`), ok},
		{"gateway", "takes the web of pay", func(c client.Client) error {
			return renewed(&corev1.Service{ObjectMeta: meta("pay", "web")}, takeWeb)(c)
		}, rbac},
		{"gateway", "deletes web", deleted(web), services},

		{"gateway", "makes a shadow", created(shadowService()), ok},
		{"gateway", "makes a shadow of another name", created(shadowService(func(s *corev1.Service) { s.Name = "web-2" })), services},
		{"gateway", "makes a Service", created(shadowService(func(s *corev1.Service) { s.Name, s.Labels = "podnet-2", nil })), services},
		{"gateway", "makes a shadow with a cluster IP", created(shadowService(func(s *corev1.Service) { s.Name, s.Spec.ClusterIP = "podnet-2", "" })), services},
		{"gateway", "makes a shadow with an address outside", created(shadowService(func(s *corev1.Service) { s.Name, s.Spec.ExternalIPs = "podnet-2", []string{"192.0.2.1"} })), services},
		{"gateway", "makes a shadow that leads out", created(shadowService(func(s *corev1.Service) {
			s.Name, s.Spec = "podnet-2", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}
		})), services},
		{"gateway", "changes what the shadow selects", renewed(shadowService(), `{"spec":{"selector":{"app":"web2"}}}`), ok},
		{"gateway", "makes something else of the shadow", renewed(shadowService(), `{"metadata":{"labels":{"podnet.dev/shadow":null}}}`), services},
		{"gateway", "deletes the shadow", deleted(shadowService()), ok},
		{"gateway", "makes a shadow in pay", created(shadowService(func(s *corev1.Service) { s.Namespace = "pay" })), rbac},

		{"gateway", "makes a slice", created(endpointSlice("podnet-web-front-ipv4", "podnet.dev")), ok},
		{"gateway", "makes a slice of another name", created(endpointSlice("web-front", "podnet.dev")), services},
		{"gateway", "makes a slice in the controller's name", created(endpointSlice("podnet-2", "endpointslice-controller.k8s.io")), services},
		{"gateway", "passes its slice off as the controller's", renewed(endpointSlice("podnet-web-front-ipv4", ""), `{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}}}`), services},
		{"gateway", "takes over the controller's", renewed(controllers, `{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"podnet.dev"}}}`), services},
		{"gateway", "empties the controller's", renewed(controllers, `{"endpoints":[]}`), services},
		{"gateway", "deletes the controller's", deleted(controllers), services},
		{"gateway", "moves its slice", renewed(endpointSlice("podnet-web-front-ipv4", ""), `{"endpoints":[{"addresses":["10.244.0.10"]}]}`), ok},
		{"gateway", "deletes its slice", deleted(endpointSlice("podnet-web-front-ipv4", "")), ok},
		{"nina", "ends her rule", deleted(ninas), ok},
	}
	for _, r := range rows {
		t.Run(r.who+" "+r.what, func(t *testing.T) { expect(t, r.do(who[r.who]), r.want) })
	}
}
