package cluster

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/client/localapi"
)

// TestEnvironment reads a Deployment's, and with a pod that is ready that pod's.
func TestEnvironment(t *testing.T) {
	f := newFakeAPI(t)
	has := func(path string, v any) {
		f.on["GET "+path] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, v) }
	}
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: "web",
		EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "closed"}}},
		},
		Env: []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
	}}}
	has("/apis/apps/v1/namespaces/shop/deployments/web", map[string]any{
		"metadata": map[string]any{"name": "web", "uid": "1"},
		"spec":     map[string]any{"selector": map[string]any{"matchLabels": map[string]string{"app": "web"}}, "template": corev1.PodTemplateSpec{Spec: spec}},
	})
	has("/api/v1/namespaces/shop/configmaps/settings", corev1.ConfigMap{Data: map[string]string{"COLOUR": "red"}})
	has("/api/v1/namespaces/shop/secrets/db", map[string]any{"data": map[string]string{"PASSWORD": base64.StdEncoding.EncodeToString([]byte("hunter2"))}})
	f.on["GET /api/v1/namespaces/shop/secrets/closed"] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "no")
	}
	pods := corev1.PodList{}
	has("/api/v1/namespaces/shop/pods", &pods)
	c := f.client()

	e, err := c.Environment(t.Context(), "shop", "deploy/web", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"COLOUR=red", "PASSWORD=hunter2"}; !slices.Equal(e.Vars, want) || e.Container != "web of deploy/web" {
		t.Errorf("%+v", e)
	}
	if all := strings.Join(e.Unknown, "\n"); len(e.Unknown) != 2 || !strings.Contains(all, "you may not read Secret closed") || !strings.Contains(all, "POD: ") {
		t.Errorf("unknown: %q", e.Unknown)
	}

	yes := true
	pods.Items = []corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Name: "web-5d4-x", Labels: map[string]string{"pod-template-hash": "5d4"}, OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-5d4", Controller: &yes}}},
		Spec:       spec,
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}}
	if e, err = c.Environment(t.Context(), "shop", "deploy/web", "web"); err != nil || !slices.Contains(e.Vars, "POD=web-5d4-x") || e.Container != "web of pod web-5d4-x" {
		t.Errorf("%+v, %v", e, err)
	}
	_, err = c.Environment(t.Context(), "shop", "deploy/web", "sidecar")
	explained(t, err, localapi.CodeNotFound, "--container")
	if _, err = c.Environment(t.Context(), "shop", "deploy/db", ""); err == nil || !strings.Contains(err.Error(), "there is no deploy/db") {
		t.Errorf("%v", err)
	}
}
