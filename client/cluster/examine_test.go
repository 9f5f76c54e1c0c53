package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/client/localapi"
)

func TestReach(t *testing.T) {
	f := newFakeAPI(t)
	f.on["GET /version"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat))
		reply(w, 200, map[string]string{"major": "1", "minor": "29", "gitVersion": "v1.29.3"})
	}
	r := openTest(t, f.URL, "").Reach(t.Context())
	if r.ResolveErr != nil || r.ConnectErr != nil || r.AnswerErr != nil || r.Host != "127.0.0.1" || len(r.Addrs) != 1 || r.Proxy {
		t.Errorf("reach %+v", r)
	}
	if !r.Old || r.Version != "v1.29.3" {
		t.Errorf("version %s, old %v", r.Version, r.Old)
	}
	if r.Skew < 58*time.Second || r.Skew > 62*time.Second {
		t.Errorf("the clocks are %v apart, want a minute", r.Skew)
	}
}

func TestReachStopsAtTheStepThatFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	_ = ln.Close()
	if r := openTest(t, "https://"+closed, "").Reach(t.Context()); r.ResolveErr != nil || r.ConnectErr == nil || r.AnswerErr != nil {
		t.Errorf("nobody listens: %+v", r)
	}
	if r := openTest(t, "https://no-such-host.invalid", "").Reach(t.Context()); r.ResolveErr == nil || r.ConnectErr != nil || r.Port != "443" {
		t.Errorf("no such name: %+v", r)
	}
	f := newFakeAPI(t)
	f.on["GET /version"] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	}
	r := openTest(t, f.URL, "").Reach(t.Context())
	explained(t, r.AnswerErr, localapi.CodeCredentials)
}

func TestReachByProxy(t *testing.T) {
	f := newFakeAPI(t)
	c := openTest(t, "https://no-such-host.invalid", "")
	file := kubeconfig(t, "http://no-such-host.invalid", "")
	c, err := Open(localapi.Kube{Flags: map[string][]string{"kubeconfig": {file}}, Env: []string{"PATH=", "HTTP_PROXY=" + f.URL}}, c.log)
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Reach(t.Context()); !r.Proxy || r.Host != "127.0.0.1" || r.AnswerErr != nil || r.Version == "" {
		t.Errorf("reach %+v", r)
	}
}

func TestNeeds(t *testing.T) {
	f := newFakeAPI(t)
	f.denied["patch accesses pay"] = true
	f.denied["get pods/portforward podnet-system"] = true
	var lines []string
	for _, n := range f.client().Needs(t.Context(), "podnet-system", []string{"shop", "pay"}) {
		if n.Err != nil {
			t.Error(n.Err)
		}
		if !n.Allowed {
			lines = append(lines, fmt.Sprintf("%s (%v): %s", n.Permission, n.Optional != "", n.Ask))
		}
	}
	const want = `get pods/portforward in namespace podnet-system (true): kubectl -n podnet-system create rolebinding alice-podnet --role=podnet-connect --user=alice
patch accesses in namespace pay (false): kubectl -n pay create rolebinding alice-podnet --clusterrole=podnet-user --user=alice`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("missing\n%s\nwant\n%s", got, want)
	}
}

func TestGatewayPod(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	const path = "GET /api/v1/namespaces/podnet-system/pods/podnet-gateway-0"
	if p, err := c.GatewayPod(t.Context(), "podnet-system"); err != nil || p.Ready || p.Trouble != "it does not exist" {
		t.Errorf("no pod: %+v, %v", p, err)
	}
	f.on[path] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "reg/gw:1"}}}, Status: corev1.PodStatus{
			ContainerStatuses: []corev1.ContainerStatus{{RestartCount: 2}},
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}})
	}
	if p, err := c.GatewayPod(t.Context(), "podnet-system"); err != nil || !p.Ready || p.Image != "reg/gw:1" || p.Restarts != 2 {
		t.Errorf("a pod: %+v, %v", p, err)
	}
	f.on[path] = func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }
	_, err := c.GatewayPod(t.Context(), "podnet-system")
	explained(t, err, localapi.CodeForbidden, "get pods", "podnet-connect")
}

func TestInstalledAndPodSecurity(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	explained(t, c.Installed(t.Context(), "podnet-system"), localapi.CodeNotInstalled, "podnet install")
	f.on["GET "+api] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, metav1.APIResourceList{}) }
	if err := c.Installed(t.Context(), "podnet-system"); err != nil {
		t.Error(err)
	}
	f.on["GET /api/v1/namespaces/shop"] = func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}})
	}
	if level, err := c.PodSecurity(t.Context(), "shop"); err != nil || level != "baseline" {
		t.Errorf("level %q, %v", level, err)
	}
}
