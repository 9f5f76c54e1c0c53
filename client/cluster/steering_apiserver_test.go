package cluster

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// TestSteeringAtARealAPIServer: what the fake one is told to say is what a real
// one says. alice may steer in the namespaces shop and tight, and Pod Security
// is strict in the latter; bob may write rules in shop but put nothing into pods.
func TestSteeringAtARealAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	s := apiserver.Start(t)
	admin := s.Admin(t)
	create := func(objects ...client.Object) {
		t.Helper()
		for _, o := range objects {
			if err := admin.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	bound := func(namespace, user, role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: user + "-" + role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	pod := func(namespace, name string) *corev1.Pod {
		yes := true
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "web", "pod-template-hash": "5d4"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4", UID: "rs", Controller: &yes}}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.org/web:1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}}
	}
	app := map[string]string{"app": "web"}
	for _, ns := range []string{"shop", "tight"} {
		create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}}, pod(ns, "web-1"))
	}
	create(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: app},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: pod("", "").Spec}}})
	if err := admin.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tight"}},
		client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`))); err != nil {
		t.Fatal(err)
	}
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Users: []string{"alice"}})
	create(bound("shop", "alice", "podnet-user"), bound("shop", "alice", "podnet-steer"), bound("tight", "alice", "podnet-steer"), bound("shop", "bob", "podnet-user"))
	as := func(user string) *Client {
		config := s.Config()
		c, err := Open(localapi.Kube{Flags: map[string][]string{"kubeconfig": {kubeconfig(t, config.Host, "")},
			"insecure-skip-tls-verify": {"true"}, "token": {config.BearerToken}, "as": {user}}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	alice, bob := as("alice"), as("bob")

	agent := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "podnet-agent"},
		Data: map[string]string{"image": "example.org/podnet-agent:1", "pullPolicy": "IfNotPresent"}}
	if err := client.IgnoreAlreadyExists(admin.Create(t.Context(), agent)); err != nil {
		t.Fatal(err)
	}
	apiserver.Eventually(t, 10*time.Second, "alice may read which agent to start", func() error {
		image, policy, err := alice.AgentImage(t.Context(), deploy.DefaultNamespace, nil)
		if err == nil && (image != "example.org/podnet-agent:1" || policy != "IfNotPresent") {
			t.Errorf("agent %q, %q", image, policy)
		}
		return err
	})
	_, _, err := bob.AgentImage(t.Context(), deploy.DefaultNamespace, nil)
	explained(t, err, localapi.CodeForbidden, "bob may not get configmaps")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sets <-chan PodSet
	apiserver.Eventually(t, 10*time.Second, "the RoleBindings are seen", func() (err error) {
		sets, err = alice.WatchPods(ctx, "shop", Target{Kind: "deploy", Name: "web"}, "http")
		return err
	})
	web := having(t, sets, "web-1").Pods[0]
	create(pod("shop", "web-2"))
	if set := having(t, sets, "web-1 web-2"); set.Port[web.UID] != 8080 {
		t.Errorf("ports %v", set.Port)
	}

	spec := agentSpec()
	spec.PodUID = web.UID
	if _, err := alice.InjectAgent(t.Context(), web, spec, true); err != nil {
		t.Fatal(err)
	}
	stranger := web
	stranger.UID = "00000000-0000-0000-0000-000000000000"
	for _, dry := range []bool{true, false} {
		if _, err := alice.InjectAgent(t.Context(), stranger, spec, dry); err != ErrGone {
			t.Errorf("into another pod of that name: %v", err)
		}
	}
	name, err := alice.InjectAgent(t.Context(), web, spec, false)
	if err != nil {
		t.Fatal(err)
	}
	second, err := alice.InjectAgent(t.Context(), web, spec, false)
	if err != nil {
		t.Fatal(err)
	}
	set := await(t, sets, "two agents", func(s PodSet) bool { return len(s.Pods[0].Agents) == 2 })
	if a := set.Pods[0].LiveAgents(); len(a) != 2 || a[0].Name != name || a[1].Name != second || a[0].State != AgentWaiting || !a[0].Knows([]string{"K2="}) {
		t.Errorf("agents %+v, want %s and %s and none of the dry run", a, name, second)
	}
	var tight corev1.Pod
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "tight", Name: "web-1"}, &tight); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	_, err = alice.InjectAgent(t.Context(), readPod(&tight), spec, true)
	if explained(t, err, localapi.CodeForbidden, `violates PodSecurity "restricted:latest"`, "NET_ADMIN", "privileged"); !errors.As(err, &refused) {
		t.Errorf("%#v", err)
	}
	_, err = bob.InjectAgent(t.Context(), web, spec, true)
	explained(t, err, localapi.CodeForbidden, `cannot patch resource "pods/ephemeralcontainers"`, "--clusterrole=podnet-steer --user=bob")
	_, err = bob.WatchPods(ctx, "shop", Target{Kind: "deploy", Name: "web"}, "http")
	explained(t, err, localapi.CodeForbidden, "bob may not list deployments in namespace shop", "--clusterrole=podnet-steer --user=bob")

	rule := aRule()
	rule.OwnerReferences[0].UID, rule.Spec.PodUID = types.UID(web.UID), web.UID
	rule.Spec.Protocol, rule.Spec.Mode = "tcp", "steal"
	if err := bob.CreateSteeringRule(t.Context(), rule); err == nil {
		t.Error("bob steers")
	} else {
		explained(t, err, localapi.CodeForbidden, "bob may not patch pods/ephemeralcontainers", "--clusterrole=podnet-steer --user=bob")
	}
	if err := alice.CreateSteeringRule(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	if err := alice.CreateSteeringRule(t.Context(), rule); err != ErrExists {
		t.Errorf("twice: %v", err)
	}
	key := "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	if err := errors.Join(alice.RenewSteeringRule(t.Context(), "shop", rule.Name, 5), alice.SetAgentKey(t.Context(), "shop", rule.Name, key)); err != nil {
		t.Fatal(err)
	}
	got, err := alice.SteeringRule(t.Context(), "shop", rule.Name)
	if err != nil || got.Spec.User != "alice" || got.Spec.Renew != 5 || got.Spec.AgentKey != key {
		t.Errorf("%+v, %v", got, err)
	}
	explained(t, alice.RenewSteeringRule(t.Context(), "shop", rule.Name, 4), localapi.CodeForbidden, "renew")
	if all, err := alice.SteeringRules(t.Context(), "shop", v1alpha1.LabelRule+"=web"); err != nil || len(all) != 1 {
		t.Errorf("%d rules, %v", len(all), err)
	}
	_, err = bob.SteeringRules(t.Context(), "", "")
	explained(t, err, localapi.CodeForbidden, "list steeringrules in all namespaces", "clusterrolebinding")
	if err := alice.DeleteSteeringRule(t.Context(), "shop", rule.Name); err != nil {
		t.Fatal(err)
	}
	if err := alice.RenewSteeringRule(t.Context(), "shop", rule.Name, 6); err != ErrGone {
		t.Errorf("renew what is gone: %v", err)
	}
	if err := admin.Delete(t.Context(), pod("shop", "web-2"), client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	having(t, sets, "web-1")
}
