package cluster

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// TestExposuresAtARealAPIServer: alice may edit the namespace shop; bob may write
// exposures there, and no Services.
func TestExposuresAtARealAPIServer(t *testing.T) {
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
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Users: []string{"alice"}})
	bound := func(user, role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: user + "-" + role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	services := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "services"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"get", "create", "patch", "delete"}}}}
	create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, services, bound("alice", "podnet-user"), bound("alice", "services"), bound("bob", "podnet-user"))
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

	e := anExposure()
	e.UID = ""
	apiserver.Eventually(t, 10*time.Second, "the RoleBindings are seen", func() (err error) {
		_, err = alice.Exposures(t.Context(), "shop")
		return err
	})
	if _, err := bob.CreateExposure(t.Context(), e); err == nil {
		t.Error("bob exposes")
	} else {
		explained(t, err, localapi.CodeForbidden, "bob may not create services in namespace shop", "--clusterrole=edit --user=bob")
	}
	first, err := alice.CreateExposure(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if first.UID == "" || first.Spec.User != "alice" || len(first.Spec.Ports) != 2 {
		t.Errorf("%+v", first)
	}
	if _, err := alice.CreateExposure(t.Context(), e); err != ErrExists {
		t.Errorf("twice: %v", err)
	}
	if err := alice.RenewExposure(t.Context(), "shop", "my-api", 5); err != nil {
		t.Error(err)
	}
	explained(t, alice.RenewExposure(t.Context(), "shop", "my-api", 4), localapi.CodeForbidden, "renew")
	digit := e.DeepCopy()
	digit.Name = "1st"
	_, err = alice.CreateExposure(t.Context(), digit)
	explained(t, err, localapi.CodeForbidden, "begins with a letter")

	// The gateway says where it leads; here a test does.
	first.Status.Host = "podnet-x-1.podnet-system.svc.cluster.local"
	if err := errors.Join(alice.NameFree(t.Context(), "shop", "my-api"), alice.PointService(t.Context(), first), alice.PointService(t.Context(), first), alice.NameFree(t.Context(), "shop", "my-api")); err != nil {
		t.Fatal(err)
	}
	service := func() *corev1.Service {
		t.Helper()
		var s corev1.Service
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "my-api"}, &s); err != nil {
			t.Fatal(err)
		}
		return &s
	}
	if s := service(); s.Spec.ExternalName != first.Status.Host || s.OwnerReferences[0].UID != first.UID || len(s.Spec.Ports) != 2 {
		t.Errorf("%+v", s)
	}
	if err := alice.DeleteExposure(t.Context(), "shop", "my-api", "00000000-0000-0000-0000-000000000000"); err != nil {
		t.Errorf("another one of the name: %v", err)
	}
	if _, err := alice.Exposure(t.Context(), "shop", "my-api"); err != nil {
		t.Errorf("it is gone: %v", err)
	}

	// Another key: the object is written anew, the Service is changed.
	if err := alice.DeleteExposure(t.Context(), "shop", "my-api", first.UID); err != nil {
		t.Fatal(err)
	}
	second, err := alice.CreateExposure(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	second.Status.Host = "podnet-x-2.podnet-system.svc.cluster.local"
	if err := alice.PointService(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if s := service(); s.Spec.ExternalName != second.Status.Host || len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != second.UID {
		t.Errorf("%+v", s)
	}
	if err := errors.Join(alice.DropService(t.Context(), first), alice.DeleteExposure(t.Context(), "shop", "my-api", second.UID)); err != nil {
		t.Fatal(err)
	}
	service() // it is not first's any more
	if err := errors.Join(alice.DropService(t.Context(), second), alice.DropService(t.Context(), second)); err != nil {
		t.Fatal(err)
	}
	create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "my-api"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	explained(t, alice.NameFree(t.Context(), "shop", "my-api"), localapi.CodeConflict, "not podnet's")
	explained(t, alice.PointService(t.Context(), second), localapi.CodeConflict, "not podnet's")
	if err := alice.DropService(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if s := service(); s.Spec.ExternalName != "" {
		t.Errorf("somebody's Service was changed: %+v", s)
	}
}
