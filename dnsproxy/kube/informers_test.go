package kube

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched gives client-go's real informers, list and watch included, over a
// fake API server, the way controller-runtime's cache does.
type watched struct {
	factory informers.SharedInformerFactory
}

func (w watched) GetInformer(_ context.Context, obj client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	switch obj.(type) {
	case *corev1.Namespace:
		return w.factory.Core().V1().Namespaces().Informer(), nil
	case *corev1.Service:
		return w.factory.Core().V1().Services().Informer(), nil
	case *discoveryv1.EndpointSlice:
		return w.factory.Discovery().V1().EndpointSlices().Informer(), nil
	}
	return nil, fmt.Errorf("no informer for %T", obj)
}

// everybody sees everything.
func everybody(netip.Addr, string) bool { return true }

func running(t testing.TB, api *fake.Clientset) *Zone {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	factory := informers.NewSharedInformerFactory(api, 0)
	z := New(Config{Domain: "cluster.local", Informers: watched{factory}, Visible: everybody})
	if m := ask(z, ada, "web.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("before Run: %v", m)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := z.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond) // Run asks for the informers, then they start
	if z.Synced() {
		t.Error("synced before the informers have started")
	}
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); wg.Wait(); factory.Shutdown() })
	eventually(t, "sync", z.Synced)
	return z
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within 10 s", what)
}

func TestEventsChangeAnswers(t *testing.T) {
	yes, no := true, false
	ctx := context.Background()
	api := fake.NewSimpleClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		service("shop", "web", []string{"10.96.0.20"}, port("http", "TCP", 80)),
		// The slice comes before its Service here.
		slice("shop", "db", "v4", map[string]int32{"pg": 5432}, ep(&yes, "db-0", "10.244.1.10")),
	)
	z := running(t, api)
	answers := func(name string, qtype uint16, want string) func() bool {
		return func() bool {
			m := ask(z, ada, name, qtype)
			return dns.RcodeToString[m.Rcode]+fmt.Sprint(text(m.Answer)) == want
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const db = "db.shop.svc.cluster.local."
	eventually(t, "what was there", answers("web.shop.svc.cluster.local.", dns.TypeA, "NOERROR[A 10.96.0.20]"))
	eventually(t, "slice without Service", answers(db, dns.TypeA, "NXDOMAIN[]"))
	eventually(t, "PTR without Service", answers("10.1.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN[]"))

	_, err := api.CoreV1().Services("shop").Create(ctx, service("shop", "db", []string{"None"}, port("pg", "TCP", 5432)), metav1.CreateOptions{})
	must(err)
	eventually(t, "new Service", answers(db, dns.TypeA, "NOERROR[A 10.244.1.10]"))
	eventually(t, "its PTR", answers("10.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR[PTR db-0.db.shop.svc.cluster.local.]"))

	_, err = api.DiscoveryV1().EndpointSlices("shop").Update(ctx,
		slice("shop", "db", "v4", map[string]int32{"pg": 5432}, ep(&no, "db-0", "10.244.1.10"), ep(&yes, "db-1", "10.244.1.11")), metav1.UpdateOptions{})
	must(err)
	eventually(t, "readiness moves", answers(db, dns.TypeA, "NOERROR[A 10.244.1.11]"))
	eventually(t, "old PTR", answers("10.1.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN[]"))
	eventually(t, "new PTR", answers("11.1.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR[PTR db-1.db.shop.svc.cluster.local.]"))
	eventually(t, "SRV", answers("_pg._tcp."+db, dns.TypeSRV, "NOERROR[SRV 0 1 5432 db-1.db.shop.svc.cluster.local.]"))

	// From ClusterIP to ExternalName and to nothing.
	_, err = api.CoreV1().Services("shop").Update(ctx, external("shop", "web", "db.shop.svc.cluster.local"), metav1.UpdateOptions{})
	must(err)
	eventually(t, "ExternalName", answers("web.shop.svc.cluster.local.", dns.TypeA, "NOERROR[A 10.244.1.11 CNAME db.shop.svc.cluster.local.]"))
	eventually(t, "no cluster IP", answers("20.0.96.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN[]"))
	must(api.CoreV1().Services("shop").Delete(ctx, "web", metav1.DeleteOptions{}))
	eventually(t, "deleted Service", answers("web.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN[]"))

	must(api.DiscoveryV1().EndpointSlices("shop").Delete(ctx, "db-v4", metav1.DeleteOptions{}))
	eventually(t, "deleted slice", answers(db, dns.TypeA, "NXDOMAIN[]"))
	must(api.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}))
	eventually(t, "deleted namespace", answers("shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN[]"))
	must(api.CoreV1().Services("shop").Delete(ctx, "db", metav1.DeleteOptions{}))
	eventually(t, "empty index", func() bool {
		z.index.mu.RLock()
		defer z.index.mu.RUnlock()
		return len(z.index.entries) == 0 && len(z.index.reverse) == 0 && len(z.index.namespaces) == 0
	})
}

// An address that moves from one Service to another must not lose its name.
func TestReverseIndexUnderReuse(t *testing.T) {
	z := newZone(t, nil)
	yes := true
	z.index.setService(service("default", "other", []string{"None"}))
	s := slice("default", "other", "v4", nil, ep(&yes, "host", "10.244.1.10"))
	z.index.setSlice(nil, s)
	const name = "10.1.244.10.in-addr.arpa."
	if got := fmt.Sprint(text(ask(z, ada, name, dns.TypePTR).Answer)); got != "[PTR db-0.db.shop.svc.cluster.local. PTR host.other.default.svc.cluster.local.]" {
		t.Errorf("both: %s", got)
	}
	moved := s.DeepCopy()
	moved.Labels[discoveryv1.LabelServiceName] = "kubernetes"
	z.index.setSlice(s, moved)
	if got := fmt.Sprint(text(ask(z, ada, name, dns.TypePTR).Answer)); got != "[PTR db-0.db.shop.svc.cluster.local. PTR host.kubernetes.default.svc.cluster.local.]" {
		t.Errorf("moved: %s", got)
	}
	z.index.deleteService(serviceKey{"shop", "db"})
	if got := fmt.Sprint(text(ask(z, ada, name, dns.TypePTR).Answer)); got != "[PTR host.kubernetes.default.svc.cluster.local.]" {
		t.Errorf("one deleted: %s", got)
	}
}

// While the controller moves an endpoint, it is in two slices for a moment.
func TestEndpointInTwoSlicesIsOne(t *testing.T) {
	z := newZone(t, nil)
	yes := true
	z.index.setSlice(nil, slice("shop", "db", "moving", map[string]int32{"pg": 5432}, ep(&yes, "db-0", "10.244.1.10")))
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  int
	}{
		{"db.shop.svc.cluster.local.", dns.TypeA, 2},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, 1},
		{"_pg._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, 2},
		{"10.1.244.10.in-addr.arpa.", dns.TypePTR, 1},
	} {
		if m := ask(z, ada, tt.name, tt.qtype); len(m.Answer) != tt.want {
			t.Errorf("%s: %v", tt.name, m.Answer)
		}
	}
}

func TestReadersAndEventsAtOnce(t *testing.T) {
	z := newZone(t, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, name := range []string{"db.shop.svc.cluster.local.", "db-0.db.shop.svc.cluster.local.", "10.1.244.10.in-addr.arpa."} {
					if m := ask(z, ada, name, dns.TypeA); m.Rcode == dns.RcodeServerFailure {
						t.Error(m)
					}
				}
			}
		})
	}
	yes := true
	for i := range 500 {
		z.index.setSlice(nil, slice("shop", "db", "v4", nil, ep(&yes, "db-0", fmt.Sprintf("10.244.1.%d", i%250+1))))
		if i%10 == 0 {
			z.index.deleteService(serviceKey{"shop", "db"})
			z.index.setService(service("shop", "db", []string{"None"}))
		}
	}
	close(stop)
	wg.Wait()
}
