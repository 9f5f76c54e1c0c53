package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
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
	"podnet.dev/gateway/world/worldtest"
)

// stage is a real API server with podnet installed, alice who may port-forward
// in shop, and gateways as processes would be, but in this one.
type stage struct {
	*testing.T
	server *apiserver.Server
	admin  client.Client
	alice  client.Client
	user   string // whom alice's client speaks for
}

func setStage(t *testing.T) *stage {
	s := &stage{T: t, server: apiserver.Start(t), user: "alice"}
	s.admin = s.server.Admin(t)
	for _, ns := range []string{"shop", "pay"} {
		s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	s.server.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Users: []string{"alice"}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "alice"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "podnet-user"}})
	s.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24"}}})
	s.alice = s.server.As(t, "alice")
	apiserver.Eventually(t, 10*time.Second, "alice's role works", func() error {
		return s.alice.Create(t.Context(), access("shop", "probe", 1), client.DryRunAll)
	})
	return s
}

// as is the stage for another user, who may what alice may.
func (s *stage) as(user string) *stage {
	s.Helper()
	who := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: user}, Subjects: who,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "podnet-connect"}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: user}, Subjects: who,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "podnet-user"}})
	other := *s
	other.alice, other.user = s.server.As(s.T, user), user
	apiserver.Eventually(s.T, 10*time.Second, user+"'s role works", func() error {
		a := access("shop", "probe-"+user, 1)
		a.Spec.User = user
		return other.alice.Create(s.Context(), a, client.DryRunAll)
	})
	return &other
}

// loopback is where a gateway's pod is.
// endpointsByController says of a slice that it is the endpointslice controller's.
const endpointsByController = worldtest.EndpointsByController

var loopback = netip.MustParseAddr("127.0.0.1")

func (s *stage) create(o client.Object) {
	s.Helper()
	if err := s.admin.Create(s.Context(), o); err != nil {
		s.Fatal(err)
	}
}

// start runs a gateway and returns it with the function that stops it.
func (s *stage) start(pod string) (*Gateway, func()) {
	s.Helper()
	return s.startAt(pod, loopback)
}

// startAt is start in a pod with that address. clusterDNS are the cluster's own DNS
// servers, if not this machine's.
func (s *stage) startAt(pod string, at netip.Addr, clusterDNS ...netip.AddrPort) (*Gateway, func()) {
	s.Helper()
	return s.startWith(pod, func(o *Options) { o.PodIPs, o.ClusterDNS = []netip.Addr{at}, clusterDNS })
}

// startWith is start with options of the caller's.
func (s *stage) startWith(pod string, shape func(*Options)) (*Gateway, func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{
		REST:      s.server.ConfigAs("system:serviceaccount:"+deploy.DefaultNamespace+":"+deploy.ServiceAccountName, "system:serviceaccounts", "system:serviceaccounts:"+deploy.DefaultNamespace),
		Namespace: deploy.DefaultNamespace, Pod: pod, PodUID: "uid-" + pod, PodIPs: []netip.Addr{loopback}, Node: "node1", DNSDomain: "cluster.test", Log: testLog(s.T),
		WireGuardPort: -1, StreamPort: -1, HTTPPort: -1,
	}
	shape(&o)
	g, err := New(ctx, o)
	if err != nil {
		cancel()
		s.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stop := func() {
		cancel()
		if done == nil {
			return
		}
		select {
		case err := <-done:
			if err != nil {
				s.Errorf("gateway %s: %v", pod, err)
			}
		case <-time.After(20 * time.Second):
			s.Errorf("gateway %s does not stop", pod)
		}
		done = nil
	}
	s.Cleanup(stop)
	apiserver.Eventually(s.T, 60*time.Second, pod+" is ready", func() error { return get(g, "/readyz") })
	return g, stop
}

func get(g *Gateway, path string) error {
	_, err := fetch(g, path)
	return err
}

// fetch is what the gateway says at a path; any status but 200 is an error.
func fetch(g *Gateway, path string) (string, error) {
	_, port, _ := net.SplitHostPort(g.HTTPAddr().String())
	r, err := http.Get("http://127.0.0.1:" + port + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, r.Status, text)
	}
	return string(text), err
}

// testLog writes into the test's own log until the test ends.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func access(namespace, peer string, renew int64) *podnet.Access {
	return &podnet.Access{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: peer}, Spec: podnet.AccessSpec{User: "alice", Peer: peer, Renew: renew}}
}

// pod listens at one of this machine's own addresses and makes it look like a
// pod of the namespace behind a Service.
func (s *stage) pod(namespace, service, clusterIP string) netip.AddrPort {
	s.Helper()
	at := s.listen()
	addr, port := at.Addr(), int32(at.Port())
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service},
		Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 80}}}})
	tcp := corev1.ProtocolTCP
	s.create(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: endpointsByController}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &tcp}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr.String()}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: service + "-0"}}},
	})
	return at
}

// listen serves an echo at one of this machine's own addresses.
func (s *stage) listen() netip.AddrPort {
	s.Helper()
	addr := ownAddress(s.T)
	l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "0"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port))
}

// ownAddress is an address of this machine that policy does not always deny.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, _ := netip.AddrFromSlice(n.IP.To4()); ip.IsValid() && ip.IsGlobalUnicast() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				return ip
			}
		}
	}
	t.Skip("this machine has no IPv4 address but loopback")
	return netip.Addr{}
}

func echo(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello\n" {
		return fmt.Errorf("echo says %q", b)
	}
	return nil
}
