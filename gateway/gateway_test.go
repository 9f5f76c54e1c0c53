package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
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
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
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

// laptop is a peer in this process.
type laptop struct {
	*stage
	name   string
	secret key.Private
	peer   podnet.Peer
	stack  *netstack.Stack
}

// enrol writes a Peer and its Accesses as a client would, and waits for Ready.
func (s *stage) enrol(name string, lease int32, namespaces ...string) *laptop {
	s.Helper()
	return s.enrolWith(name, podnet.PeerSpec{LeaseSeconds: lease}, namespaces...)
}

// enrolWith is enrol with a spec of the caller's.
func (s *stage) enrolWith(name string, spec podnet.PeerSpec, namespaces ...string) *laptop {
	s.Helper()
	secret, err := key.NewPrivate()
	if err != nil {
		s.Fatal(err)
	}
	l := &laptop{stage: s, name: name, secret: secret}
	spec.User, spec.Device, spec.PublicKey, spec.Renew = s.user, name, secret.Public().String(), 1
	p := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: name}, Spec: spec}
	if err := s.alice.Create(s.Context(), p); err != nil {
		s.Fatal(err)
	}
	for _, ns := range namespaces {
		a := access(ns, name, 1)
		a.Spec.User = s.user
		if err := s.alice.Create(s.Context(), a); err != nil {
			s.Fatal(err)
		}
	}
	l.await("is ready", func(p *podnet.Peer) bool {
		return meta.IsStatusConditionTrue(p.Status.Conditions, podnet.ConditionReady)
	})
	for _, ns := range namespaces {
		apiserver.Eventually(s.T, 30*time.Second, ns+" is open", func() error {
			var a podnet.Access
			if err := s.alice.Get(s.Context(), types.NamespacedName{Namespace: ns, Name: name}, &a); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(a.Status.Conditions, podnet.ConditionReady) {
				return fmt.Errorf("status %+v", a.Status)
			}
			return nil
		})
	}
	return l
}

func (l *laptop) await(what string, f func(*podnet.Peer) bool) {
	l.Helper()
	apiserver.Eventually(l.T, 30*time.Second, l.name+" "+what, func() error {
		if err := l.alice.Get(l.Context(), types.NamespacedName{Namespace: deploy.DefaultNamespace, Name: l.name}, &l.peer); err != nil {
			return err
		}
		if !f(&l.peer) {
			return fmt.Errorf("status %+v", l.peer.Status)
		}
		return nil
	})
}

// connect brings up the laptop's end of the tunnel.
func (l *laptop) connect(g *Gateway, routes ...netip.Prefix) {
	l.Helper()
	l.connectAt(g.tunnel.ListenPort(), routes...)
}

// connectAt is connect to a gateway whose UDP port is known.
func (l *laptop) connectAt(port uint16, routes ...netip.Prefix) {
	l.Helper()
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		l.Fatal(err)
	}
	l.stack = stack
	for _, a := range []string{l.peer.Status.Address4, l.peer.Status.Address6} {
		if err := stack.AddAddress(netip.MustParseAddr(a)); err != nil {
			l.Fatal(err)
		}
	}
	tun, err := tunnel.New(stack.Device(), transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: l.secret, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = tun.Close(); _ = stack.Close() })
	gatewayKey, err := key.ParsePublic(l.peer.Status.Gateways[0].PublicKey)
	if err != nil {
		l.Fatal(err)
	}
	routes = append(routes, netip.PrefixFrom(Service4, 32), key.Prefix6)
	if err := tun.SetPeers([]tunnel.Peer{{PublicKey: gatewayKey, Endpoint: fmt.Sprintf("127.0.0.1:%d", port), AllowedIPs: routes}}); err != nil {
		l.Fatal(err)
	}
}

// dial connects through the tunnel.
func (l *laptop) dial(to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.Context(), limit)
	defer cancel()
	return l.stack.DialTCP(ctx, to)
}

// resolve asks the gateway's DNS through the tunnel.
func (l *laptop) resolve(name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(l.Context(), 5*time.Second)
	defer cancel()
	return l.resolver().LookupHost(ctx, name)
}

// resolver asks the gateway's DNS through the tunnel.
func (l *laptop) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		at := netip.AddrPortFrom(Service4, 53)
		if strings.HasPrefix(network, "udp") {
			return l.stack.DialUDP(at)
		}
		return l.stack.DialTCP(ctx, at)
	}}
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
	if len(st.Gateways) != 1 || st.Gateways[0].PublicKey != g.key.String() || st.Gateways[0].PodUID != "uid-podnet-gateway-0" || st.Address6 != l.secret.Public().Address6().String() || st.ExpiresAt == nil {
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
		if n, err := g.tunnel.Stats(); err != nil || len(n) > 0 {
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
				apiserver.Eventually(t, 20*time.Second, "a trial without "+policy+" tells", func() error {
					if v, err := g.guard.try(t.Context(), "system:serviceaccount:podnet-system:gateway"); v != missing {
						return fmt.Errorf("verdict %d, %v", v, err)
					}
					return nil
				})
				g.guard.note(t.Context(), missing, nil) // what the next round would find
				apiserver.Apply(t, s.admin, u)
				if g.guard.holds.Load() {
					t.Error("the gateway still trusts the policies")
				}
				apiserver.Eventually(t, 90*time.Second, "the gateway sees "+policy+" again", func() error {
					v, err := g.guard.try(t.Context(), "system:serviceaccount:podnet-system:gateway")
					if v != refused {
						return fmt.Errorf("verdict %d, %v", v, err)
					}
					g.guard.note(t.Context(), v, err)
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
