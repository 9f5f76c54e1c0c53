package gateway

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// TestBesideTheCluster: a database that is nothing of the cluster's is reached by
// who was granted its network, and by nobody else.
func TestBesideTheCluster(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	database := s.listen()
	route := netip.PrefixFrom(database.Addr(), 24).Masked()
	spec := podnet.PeerSpec{LeaseSeconds: 300, AlsoRoutes: []string{route.String()}}
	forged := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "forged"}, Spec: spec}
	forged.Spec.User, forged.Spec.PublicKey, forged.Spec.Renew = "alice", someKey, 1
	if err := s.alice.Create(t.Context(), forged.DeepCopy(), client.DryRunAll); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), deploy.ReasonPeer) {
		t.Fatalf("alice goes beside the cluster without the verb: %v", err)
	}
	s.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "vpc"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"peers"}, Verbs: []string{deploy.VerbRoute}, ResourceNames: []string{route.String()}}}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "vpc"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "vpc"}})
	apiserver.Eventually(t, 10*time.Second, "alice may", func() error { return s.alice.Create(t.Context(), forged.DeepCopy(), client.DryRunAll) })

	g, _ := s.start("podnet-gateway-0")
	for name, c := range map[string]struct {
		spec podnet.PeerSpec
		may  bool
	}{"with": {spec, true}, "without": {podnet.PeerSpec{LeaseSeconds: 300}, false}} {
		l := s.enrolWith(name, c.spec, "shop")
		l.connect(g, route)
		conn, err := l.dial(database, 5*time.Second)
		if (err == nil) != c.may {
			t.Errorf("%s the route: %v", name, err)
		}
		if err == nil {
			if err := echo(conn); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
		}
	}
}
