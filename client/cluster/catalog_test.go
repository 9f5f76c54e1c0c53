package cluster

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

func TestContexts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(`{apiVersion: v1, kind: Config, current-context: dev,
clusters: [{name: lab, cluster: {server: "https://lab"}}],
contexts: [{name: dev, context: {cluster: lab, user: alice, namespace: shop}}, {name: broken, context: {cluster: gone, user: bob}}],
users: [{name: alice, user: {token: secret}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []localapi.Context{
		{Name: "broken", Cluster: "gone", User: "bob"},
		{Name: "dev", Cluster: "lab", User: "alice", Namespace: "shop", Server: "https://lab", Current: true},
	}
	got, err := Contexts(localapi.Kube{Env: []string{"KUBECONFIG=" + file}})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	named, err := Contexts(localapi.Kube{Flags: map[string][]string{"context": {"broken"}}, Env: []string{"KUBECONFIG=" + file}})
	if err != nil || len(named) != 2 || !named[0].Current || named[1].Current {
		t.Errorf("with --context: %+v, %v", named, err)
	}
	if err := os.WriteFile(file, []byte("a: [b"), 0o600); err != nil {
		t.Fatal(err)
	}
	var bad *KubeconfigError
	if _, err := Contexts(localapi.Kube{Env: []string{"KUBECONFIG=" + file}}); !errors.As(err, &bad) {
		t.Errorf("a kubeconfig that is none: %v", err)
	}
}

func TestServicesIn(t *testing.T) {
	f := newFakeAPI(t)
	service := func(name string, ports ...corev1.ServicePort) corev1.Service {
		return corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", Ports: ports}}
	}
	shadow := service("shadow")
	shadow.Labels = map[string]string{v1alpha1.LabelShadow: "web"}
	f.on["GET /api/v1/namespaces/shop/services"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, corev1.ServiceList{Items: []corev1.Service{service("web", corev1.ServicePort{Port: 80}, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}), shadow, service("db", corev1.ServicePort{Port: 5432})}})
	}
	f.on["GET /api/v1/namespaces/pay/services"] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "no")
	}
	c := f.client()
	want := []localapi.Service{
		{Namespace: "shop", Name: "db", Type: "ClusterIP", ClusterIP: "10.96.0.7", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 5432}}},
		{Namespace: "shop", Name: "web", Type: "ClusterIP", ClusterIP: "10.96.0.7", Ports: []localapi.ServicePort{
			{Protocol: "TCP", Port: 80, URL: "http://web.shop"}, {Name: "dns", Protocol: "UDP", Port: 53}}},
	}
	if got, err := c.ServicesIn(t.Context(), "shop", "shop"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	var no *ForbiddenError
	if _, err := c.ServicesIn(t.Context(), "pay", "pay"); !errors.As(err, &no) || no.Permission.String() != "list services in namespace pay" {
		t.Errorf("who may not: %v", err)
	}
}

func TestURLOfAPort(t *testing.T) {
	says := func(s string) *string { return &s }
	for want, ports := range map[string][]corev1.ServicePort{
		"http://web.shop":       {{Port: 80}, {Port: 80, Name: "http"}, {Port: 80, Name: "api", AppProtocol: says("http")}},
		"http://web.shop:3000":  {{Port: 3000, Name: "http"}, {Port: 3000, Name: "HTTP-api"}, {Port: 3000, Name: "web"}, {Port: 3000, AppProtocol: says("kubernetes.io/ws")}},
		"http://web.shop:8080":  {{Port: 8080}, {Port: 8080, Name: "api"}},
		"http://web.shop:443":   {{Port: 443, Name: "http"}},
		"https://web.shop":      {{Port: 443}, {Port: 443, Name: "https"}},
		"https://web.shop:8443": {{Port: 8443}, {Port: 8443, AppProtocol: says("https")}},
		"":                      {{Port: 5432}, {Port: 80, Protocol: corev1.ProtocolUDP}, {Port: 8080, Name: "grpc"}, {Port: 80, AppProtocol: says("kubernetes.io/h2c")}, {Port: 80, Name: "http", AppProtocol: says("redis")}},
	} {
		for _, p := range ports {
			if got := urlOf("web.shop", p); got != want {
				t.Errorf("%+v: %q, want %q", p, got, want)
			}
		}
	}
}
