package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/exposure"
)

// mayExpose lets alice create Services in shop.
func (s *stage) mayExpose() {
	s.Helper()
	s.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "expose"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"create"}}}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "expose"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "expose"}})
}

func testExposure(name string, ports ...podnet.ExposurePort) *podnet.Exposure {
	return &podnet.Exposure{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: podnet.ExposureSpec{User: "alice", Peer: "laptop", Renew: 1, Local: "3000", Ports: ports}}
}

// kept are the Services and slices that gateways keep for exposures.
func (s *stage) kept() (*corev1.ServiceList, *discoveryv1.EndpointSliceList) {
	s.Helper()
	var services corev1.ServiceList
	var endpoints discoveryv1.EndpointSliceList
	for _, list := range []client.ObjectList{&services, &endpoints} {
		if err := s.admin.List(s.Context(), list, client.InNamespace(deploy.DefaultNamespace), client.HasLabels{podnet.LabelExposure}); err != nil {
			s.Fatal(err)
		}
	}
	return &services, &endpoints
}

// hearNothing connects and waits for the end. The reset may come before Dial has
// looked.
func hearNothing(at netip.AddrPort) error {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestExposedPortsReachTheLaptop: an Exposure, the Service and the slice that stand
// for it, and what a pod sends to them and hears, until the Exposure is deleted.
func TestExposedPortsReachTheLaptop(t *testing.T) {
	t.Parallel()
	pod := ownAddress(t)
	s := setStage(t)
	s.mayExpose()
	g, stop := s.startAt("podnet-gateway-0", pod)
	l := s.enrol("laptop", 300)
	l.connect(g)
	l.relay(20000, 20001)
	if _, err := l.resolve("web.shop.svc.cluster.test."); err == nil { // the laptop's first handshake
		t.Error("there is a Service web")
	}

	e := testExposure("my-api", podnet.ExposurePort{Port: 80, RelayPort: 20000}, podnet.ExposurePort{Port: 81, RelayPort: 20002}, podnet.ExposurePort{Port: 53, Protocol: podnet.ExposureUDP, RelayPort: 20001})
	apiserver.Eventually(t, 20*time.Second, "alice may expose", func() error { return s.alice.Create(t.Context(), e) })
	if p := e.Spec.Ports[0].Protocol; p != podnet.ExposureTCP {
		t.Errorf("the protocol is %q if none is given", p)
	}
	apiserver.Eventually(t, 20*time.Second, "the exposure is ready", func() error {
		if err := s.alice.Get(t.Context(), client.ObjectKeyFromObject(e), e); err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(e.Status.Conditions, podnet.ConditionReady) {
			return fmt.Errorf("status %+v", e.Status)
		}
		return nil
	})
	name := exposure.ServiceName(string(e.UID))
	if e.Status.Host != name+".podnet-system.svc.cluster.test" || e.Status.ExpiresAt == nil || e.Status.ObservedRenew != 1 {
		t.Errorf("status %+v", e.Status)
	}
	var service corev1.Service
	if err := s.admin.Get(t.Context(), types.NamespacedName{Namespace: deploy.DefaultNamespace, Name: name}, &service); err != nil {
		t.Fatal(err)
	}
	at := map[string]netip.AddrPort{}
	for _, p := range service.Spec.Ports {
		at[p.Name] = netip.AddrPortFrom(pod, uint16(p.TargetPort.IntVal))
	}
	if len(at) != 3 || len(service.Spec.Selector) != 0 || service.Spec.ClusterIP == "" {
		t.Fatalf("the Service has %+v", service.Spec)
	}
	apiserver.Eventually(t, 10*time.Second, "the gateway's slice is there", func() error {
		_, list := s.kept()
		if len(list.Items) != 1 {
			return fmt.Errorf("%d slices", len(list.Items))
		}
		slice := list.Items[0]
		if slice.Name != name+"-podnet-gateway-0-ipv4" || slice.Labels[discoveryv1.LabelServiceName] != name || slice.OwnerReferences[0].UID != "uid-podnet-gateway-0" ||
			!slices.Equal(slice.Endpoints[0].Addresses, []string{pod.String()}) || len(slice.Ports) != 3 || *slice.Ports[0].Port != int32(at["tcp-80"].Port()) {
			t.Fatalf("slice %+v", slice)
		}
		return nil
	})

	c, err := net.Dial("tcp", at["tcp-80"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	if err := hearNothing(at["tcp-81"]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port that the laptop refuses: %v", err)
	}
	u, err := net.Dial("udp", at["udp-53"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	big := slices.Repeat([]byte("pod"), 2000) // in fragments
	if _, err := u.Write(big); err != nil {
		t.Fatal(err)
	}
	_ = u.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer := make([]byte, 65535)
	if n, err := u.Read(answer); err != nil || !slices.Equal(answer[:n], big) {
		t.Errorf("the laptop sends %d bytes back by UDP: %v", n, err)
	}
	if metrics, err := fetch(g, "/metrics"); err != nil || !strings.Contains(metrics, `podnet_exposures{reason="Admitted"} 1`) {
		t.Errorf("metrics: %v", err)
	}

	began := time.Now()
	if err := s.alice.Delete(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection outlives its exposure: %v", err)
	}
	t.Logf("the connection ended after %v (2 s)", time.Since(began))
	if c, err := net.Dial("tcp", at["tcp-80"].String()); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
	apiserver.Eventually(t, 10*time.Second, "all is swept", func() error {
		if services, list := s.kept(); len(services.Items)+len(list.Items) > 0 {
			return fmt.Errorf("%d Services and %d slices", len(services.Items), len(list.Items))
		}
		return nil
	})

	again := testExposure("my-api", podnet.ExposurePort{Port: 80, RelayPort: 20000})
	if err := s.alice.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	apiserver.Eventually(t, 10*time.Second, "it is there again", func() error {
		if services, list := s.kept(); len(services.Items) != 1 || len(list.Items) != 1 {
			return fmt.Errorf("%d Services and %d slices", len(services.Items), len(list.Items))
		}
		return nil
	})
	stop()
	if services, list := s.kept(); len(services.Items) != 1 || len(list.Items) != 0 {
		t.Errorf("a gateway that stops leaves %d Services and %d slices", len(services.Items), len(list.Items))
	}
}
