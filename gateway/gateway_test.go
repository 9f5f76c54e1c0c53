package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// TestLaptopReachesShopAndNothingElse is the whole way: objects, tunnel, policy,
// flows, DNS, and an administrator who ends it.
func TestLaptopReachesShopAndNothingElse(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	g, stop := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")

	st := l.peer.Status
	if n := st.Network; n == nil || n.DNSDomain != "cluster.test" || !slices.Contains(n.PodCIDRs, "10.244.0.0/24") || !slices.Contains(n.ServiceCIDRs, "10.96.0.0/16") || !slices.Contains(n.ServiceCIDRs, "fd00:10:96::/112") {
		t.Errorf("network %+v", n)
	}
	if len(st.Gateways) != 1 || st.Gateways[0].PublicKey != g.ground.Key.String() || st.Gateways[0].PodUID != "uid-podnet-gateway-0" || st.Address6 != l.secret.Public().Address6().String() || st.ExpiresAt == nil {
		t.Errorf("status %+v", st)
	}

	l.connect(g, netip.PrefixFrom(web.Addr(), 32), netip.MustParsePrefix("10.96.0.0/16"))
	if got, err := l.resolve("web.shop.svc.cluster.test."); err != nil || !slices.Equal(got, []string{"10.96.1.1"}) {
		t.Errorf("web.shop is %v, %v", got, err)
	}
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "till"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.2.1", Ports: []corev1.ServicePort{{Port: 80}}}})
	var notFound *net.DNSError
	if got, err := l.resolve("till.pay.svc.cluster.test."); !errors.As(err, &notFound) || !notFound.IsNotFound {
		t.Errorf("till.pay is %v, %v, want no such name", got, err)
	}

	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatalf("dial the pod: %v", err)
	}
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	for what, to := range map[string]string{"pay's Service": "10.96.2.1:80", "the API server's Service": "10.96.0.1:443", "another port of the Service": "10.96.1.1:81"} {
		began := time.Now()
		if c, err := l.dial(netip.MustParseAddrPort(to), 5*time.Second); err == nil {
			_ = c.Close()
			t.Errorf("%s can be reached", what)
		} else if took := time.Since(began); took > 4*time.Second { // nobody says no
			t.Errorf("%s is refused only after %v: %v", what, took, err)
		}
	}

	began := time.Now()
	if err := s.admin.Delete(t.Context(), &l.peer); err != nil {
		t.Fatal(err)
	}
	apiserver.Eventually(t, 10*time.Second, "the peer is cut", func() error {
		if n, err := g.ground.Tunnel.Stats(); err != nil || len(n) > 0 {
			return fmt.Errorf("%d peers, %v", len(n), err)
		}
		return nil
	})
	t.Logf("the peer was cut %v after its deletion (2 s)", time.Since(began))
	if n := g.forward.Stats().OpenTCP; n != 0 {
		t.Errorf("%d flows outlive their peer", n)
	}
	if c, err := l.dial(web, time.Second); err == nil {
		_ = c.Close()
		t.Error("a deleted peer still reaches the pod")
	}
	if err := get(g, "/metrics"); err != nil {
		t.Error(err)
	}
	stop()
}

// TestRoleBindingGone takes a permission away and waits for the traffic to end.
func TestRoleBindingGone(t *testing.T) {
	if testing.Short() {
		t.Skip("waits out a lease, which is 60 s at the least")
	}
	t.Parallel()
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 60, "shop")
	l.connect(g, netip.PrefixFrom(web.Addr(), 32))
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"}}); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	renew := func(o client.Object, n int64) error {
		return s.alice.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"renew":%d}}`, n)))
	}
	var refused error
	n := int64(1)
	apiserver.Eventually(t, 75*time.Second, "the flow ends", func() error {
		n++
		if err := renew(&podnet.Peer{ObjectMeta: l.peer.ObjectMeta}, n); err != nil {
			t.Fatalf("the Peer itself may be renewed: %v", err)
		}
		refused = renew(access("shop", "laptop", 0), n)
		time.Sleep(2 * time.Second)
		if err := echo(c); err == nil {
			return errors.New("still talking")
		}
		return nil
	})
	t.Logf("RoleBinding gone to flow cut: %v (lease 60 s)", time.Since(gone).Round(time.Second))
	if refused == nil || !strings.Contains(refused.Error(), deploy.ReasonAccess) {
		t.Errorf("the renewal of the Access: %v", refused)
	}
	if _, err := l.dial(web, time.Second); err == nil {
		t.Error("shop can still be reached")
	}
	l.await("is still ready", func(p *podnet.Peer) bool {
		return meta.IsStatusConditionTrue(p.Status.Conditions, podnet.ConditionReady)
	})
}

// TestMissingPolicyIsNoticed deletes a policy under a running gateway.
func TestMissingPolicyIsNoticed(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("before", 300, "shop")
	objects, err := deploy.Render(deploy.Options{Image: "x", AgentImage: "y"})
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range []string{deploy.OwnerPolicy, deploy.PeerPolicy, deploy.AccessPolicy} {
		for _, u := range objects {
			if u.GetKind() == "ValidatingAdmissionPolicyBinding" && u.GetName() == policy {
				if err := s.admin.Delete(t.Context(), u.DeepCopy()); err != nil {
					t.Fatal(err)
				}
				holds := func() bool { // as the next round would find
					g.guard.Try(t.Context(), "system:serviceaccount:podnet-system:gateway")
					return g.guard.Holds()
				}
				apiserver.Eventually(t, 20*time.Second, "a trial without "+policy+" tells", func() error {
					if holds() {
						return errors.New("the gateway still trusts the policies")
					}
					return nil
				})
				apiserver.Apply(t, s.admin, u)
				apiserver.Eventually(t, 90*time.Second, "the gateway sees "+policy+" again", func() error {
					if !holds() {
						return errors.New("the gateway does not trust the policies")
					}
					return nil
				})
			}
		}
	}
	l.await("stayed", func(p *podnet.Peer) bool {
		return meta.IsStatusConditionTrue(p.Status.Conditions, podnet.ConditionReady)
	})
	if err := get(g, "/readyz"); err != nil {
		t.Error(err)
	}
}
