package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/limits"
	"podnet.dev/internal/measure"
	"podnet.dev/internal/wake"
)

// The large cluster: 10,000 Services with 50,000 endpoints in all.
const (
	manyServices   = 10000
	manyNamespaces = 50
	manyNodes      = 250
	podsPerService = 5
)

// roleVariable makes the test binary act as another program instead of testing.
const roleVariable = "PODNET_TEST_ROLE"

func TestMain(m *testing.M) {
	role := map[string]func() error{"gateway": gatewayRole, "target": targetRole}[os.Getenv(roleVariable)]
	if role != nil {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// place is what a gateway in a process of its own is told.
type place struct {
	Host, Token            string
	Impersonate            rest.ImpersonationConfig
	WireGuardPort, WebPort int
	Limits                 limits.Limits
	ClusterDNS             []netip.AddrPort
}

// gatewayRole is the gateway as its program runs it, but for its credentials,
// which are on standard input.
func gatewayRole() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var p place
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	UseLogger(log)
	return Run(ctx, Options{
		REST:      &rest.Config{Host: p.Host, BearerToken: p.Token, Impersonate: p.Impersonate, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		Namespace: deploy.DefaultNamespace, Pod: "podnet-gateway-0", PodUID: "uid-podnet-gateway-0", PodIPs: []netip.Addr{loopback}, Node: "node1",
		DNSDomain: "cluster.test", Log: log, WireGuardPort: p.WireGuardPort, StreamPort: -1, HTTPPort: p.WebPort, Limits: p.Limits, ClusterDNS: p.ClusterDNS,
	})
}

// startElsewhere runs a gateway in a process of its own and returns it, its
// UDP port and how long it took until it was ready.
func (s *stage) startElsewhere() (pid int, port uint16, took time.Duration) {
	s.Helper()
	pid, port, _, took = s.startBounded(limits.Default(), "460MiB") // as podnet install has it
	return pid, port, took
}

// startBounded is startElsewhere with limits, and Go's own on memory. It tells where
// the gateway's metrics are, too. clusterDNS is as for startAt.
func (s *stage) startBounded(l limits.Limits, memory string, clusterDNS ...netip.AddrPort) (pid int, port, web uint16, took time.Duration) {
	s.Helper()
	c := s.server.ConfigAs("system:serviceaccount:"+deploy.DefaultNamespace+":"+deploy.ServiceAccountName, "system:serviceaccounts", "system:serviceaccounts:"+deploy.DefaultNamespace)
	p := place{Host: c.Host, Token: c.BearerToken, Impersonate: c.Impersonate, WireGuardPort: freePort(s.T, "udp"), WebPort: freePort(s.T, "tcp"), Limits: l, ClusterDNS: clusterDNS}
	said, err := json.Marshal(p)
	if err != nil {
		s.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"=gateway", "GOMEMLIMIT="+memory)
	cmd.Stdin = bytes.NewReader(said)
	cmd.Stderr = testWriter{s.T}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			s.Errorf("the gateway: %v", err)
		}
	})
	apiserver.Eventually(s.T, 2*time.Minute, "the gateway is ready", func() error {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", p.WebPort))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return errors.New(r.Status)
		}
		return nil
	})
	return cmd.Process.Pid, uint16(p.WireGuardPort), uint16(p.WebPort), time.Since(began)
}

func freePort(t *testing.T, network string) int {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// memory is a line of /proc/PID/status, in MiB.
func memory(t *testing.T, pid int, field string) float64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

// nodeAddr is the address of the nth pod of a node.
func nodeAddr(node, n int) string { return fmt.Sprintf("10.%d.%d.%d", 128+node/256, node%256, n) }

// largeService is a Service and its EndpointSlice as controllers write them.
func largeService(i int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	namespace, name := fmt.Sprintf("team-%d", i%manyNamespaces), fmt.Sprintf("service-%d", i)
	labels := map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name, "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": name + "-1.2.3"}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels,
			Annotations: map[string]string{"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace}},
		Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", 10+i/250, 1+i%250), Selector: map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}, {Name: "metrics", Port: 9090}}},
	}
	yes, no, web, metrics, tcp := true, false, int32(8080), int32(9090), corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-x7k2p", Labels: maps.Clone(labels),
			Annotations:     map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-22T19:00:00Z"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: name, UID: types.UID(uuid(i)), Controller: &yes, BlockOwnerDeletion: &yes}}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &service.Spec.Ports[0].Name, Port: &web, Protocol: &tcp}, {Name: &service.Spec.Ports[1].Name, Port: &metrics, Protocol: &tcp}},
	}
	slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = name, endpointsByController
	for j := range podsPerService {
		pod := i*podsPerService + j
		node := pod % manyNodes
		nodeName, zone := fmt.Sprintf("node-%d", node), "zone-a"
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{nodeAddr(node, 10+pod/manyNodes)}, NodeName: &nodeName, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("%s-5d8f7c9b6d-%05d", name, j), UID: types.UID(uuid(pod))},
		})
	}
	return service, slice
}

func uuid(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// fill makes the large cluster through the API.
func (s *stage) fill() {
	s.Helper()
	began := time.Now()
	for i := range manyNamespaces {
		s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("team-%d", i)}})
	}
	g, ctx := errgroup.WithContext(s.Context())
	g.SetLimit(16)
	for i := range manyNodes {
		cidr := nodeAddr(i, 0) + "/24"
		g.Go(func() error {
			return s.admin.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}})
		})
	}
	for i := range manyServices {
		service, slice := largeService(i)
		g.Go(func() error { return errors.Join(s.admin.Create(ctx, service), s.admin.Create(ctx, slice)) })
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	s.Logf("%d Services with %d endpoints made in %v", manyServices, manyServices*podsPerService, time.Since(began).Round(time.Second))
}

// TestLargeCluster starts a gateway where there are 10,000 Services with 50,000
// endpoints, and changes one.
func TestLargeCluster(t *testing.T) {
	if os.Getenv("PODNET_E2E_LONG") == "" {
		t.Skip("makes 20,000 objects: some minutes; PODNET_E2E_LONG=1 runs it")
	}
	s := setStage(t)
	s.fill()
	pid, port, took := s.startElsewhere()
	measure.AtMost(t, "[38] from the start to ready", took, 20*time.Second)

	l := s.enrol("laptop", 300, "shop")
	web := s.pod("shop", "web", "10.96.1.1")
	l.connectAt(port, netip.PrefixFrom(web.Addr(), 32), netip.MustParsePrefix("10.96.0.0/16"))
	var slice discoveryv1.EndpointSlice
	if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, &slice); err != nil {
		t.Fatal(err)
	}
	var service corev1.Service
	if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, &service); err != nil {
		t.Fatal(err)
	}
	dials := func() error {
		c, err := l.dial(web, 100*time.Millisecond)
		if err != nil {
			return err
		}
		return c.Close()
	}
	resolves := func() error {
		_, err := l.resolve("web.shop.svc.cluster.test.")
		return err
	}
	absent := func(f func() error) func() error {
		return func() error {
			if f() == nil {
				return errors.New("still there")
			}
			return nil
		}
	}
	apiserver.Eventually(t, 10*time.Second, "the pod", dials)
	changes := func(what string) {
		seen := map[string][]time.Duration{}
		for range 5 {
			for _, step := range []struct {
				what  string
				do    func() error
				shows func() error
			}{
				{"deleted slice, policy", func() error { return s.admin.Delete(t.Context(), &slice) }, absent(dials)},
				{"deleted Service, DNS", func() error { return s.admin.Delete(t.Context(), &service) }, absent(resolves)},
				{"new Service, DNS", func() error { service.ResourceVersion = ""; return s.admin.Create(t.Context(), &service) }, resolves},
				{"new slice, policy", func() error { slice.ResourceVersion = ""; return s.admin.Create(t.Context(), &slice) }, dials},
			} {
				if err := step.do(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for step.shows() != nil {
					if time.Since(began) > time.Minute {
						t.Fatalf("%s: not in a minute", step.what)
					}
				}
				seen[step.what] = append(seen[step.what], time.Since(began))
			}
		}
		for step, all := range seen {
			measure.AtMost(t, fmt.Sprintf("[38] %s, %s, the slowest of %d", what, step, len(all)), slices.Max(all), time.Second)
		}
	}
	changes("nothing else changes")

	churning, stop := context.WithCancel(t.Context())
	var churn errgroup.Group
	churn.Go(func() error { return s.churn(churning) })
	changes("20 other slices change each second")
	stop()
	if err := churn.Wait(); err != nil {
		t.Error(err)
	}
	measure.AtMost(t, "[38] memory of the gateway, the most that it ever was", measure.MiB(memory(t, pid, "VmHWM")), 300)
}

// churn has pods of other Services come and go, twenty a second, until ctx ends.
func (s *stage) churn(ctx context.Context) error {
	for i := 0; wake.After(ctx, 50*time.Millisecond); i++ {
		_, slice := largeService(i % manyServices)
		ready := i/manyServices%2 == 1
		slice.Endpoints[0].Conditions.Ready = &ready
		slice.Endpoints = slice.Endpoints[:podsPerService-1]
		if err := s.admin.Update(ctx, slice); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}
