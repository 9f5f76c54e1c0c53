package cluster

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// calledWith are the calls that the API server was asked to make for a part of a path.
func (f *fakeAPI) calledWith(part string) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if strings.Contains(c, part) {
			all = append(all, c)
		}
	}
	return all
}

// TestGatewayNamesAnotherPod: whoever writes a Peer's status says which pod is the
// gateway, and the streams to it are opened with the user's rights. A name that leads out
// of podnet's namespace, or to another of the API server's doors, is refused unasked.
func TestGatewayNamesAnotherPod(t *testing.T) {
	for _, pod := range []string{"../../shop/pods/db-0", "../../shop/services/http:admin:80/proxy/wipe", "podnet-gateway-0/proxy/debug", "..", ".", "", "a%2fb"} {
		t.Run(pod, func(t *testing.T) {
			f := newFakeAPI(t)
			f.forwardsTo("/api/v1/namespaces/shop/pods/db-0/portforward", true, func(string, io.ReadWriteCloser) string { return "" })
			conn, err := f.client().DialPod(t.Context(), "podnet-system", pod, 5432)
			if err == nil {
				_ = conn.Close()
			}
			if calls := f.calledWith("/portforward"); len(calls) > 0 {
				t.Errorf("asked for %s, and got %v", calls, err)
			}
			if err == nil || !strings.Contains(err.Error(), "no name of a pod") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestPodNamesAnotherSecret: whoever may write a workload names its ConfigMaps and
// Secrets, and they are read with the rights of whoever wants its environment.
func TestPodNamesAnotherSecret(t *testing.T) {
	f := newFakeAPI(t)
	elsewhere := "../../bank/secrets/db"
	pod := corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web",
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: elsewhere}}}},
		Env: []corev1.EnvVar{{Name: "LEVEL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "../../bank/services/ledger:80/proxy/close"}, Key: "level"}}}},
	}}}}
	f.on["GET /api/v1/namespaces/shop/pods/web"] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, pod) }
	f.on["GET /api/v1/namespaces/bank/secrets/db"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"data": map[string]string{"PASSWORD": base64.StdEncoding.EncodeToString([]byte("hunter2"))}})
	}
	e, err := f.client().Environment(t.Context(), "shop", "pod/web", "")
	if err != nil {
		t.Fatal(err)
	}
	if calls := f.calledWith("bank"); len(calls) > 0 || len(e.Vars) > 0 {
		t.Errorf("asked for %s, and the environment is %q", calls, e.Vars)
	}
	if all := strings.Join(e.Unknown, "\n"); len(e.Unknown) != 2 || strings.Count(all, "no name") != 2 {
		t.Errorf("unknown: %q", e.Unknown)
	}
}
