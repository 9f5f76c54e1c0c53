package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/status"
	"podnet.dev/internal/key"
)

// TestOlderCRD has a gateway find Peers whose CRD lacks what it would tell: it says so
// once, lets a laptop in, and is not at it for ever.
func TestOlderCRD(t *testing.T) {
	s := setStage(t)
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	if err := s.admin.Get(t.Context(), client.ObjectKey{Name: "peers." + podnet.GroupVersion.Group}, crd); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	inStatus := []string{"schema", "openAPIV3Schema", "properties", "status", "properties"}
	older := func(path ...string) {
		t.Helper()
		at := append(append([]string{}, inStatus...), path...)
		if _, there, err := unstructured.NestedFieldNoCopy(versions[0].(map[string]any), at...); err != nil || !there {
			t.Fatalf("the CRD has no %v: %v", at, err)
		}
		unstructured.RemoveNestedField(versions[0].(map[string]any), at...)
	}
	older("gateways", "items", "properties", "version")
	older("gateways", "items", "properties", "limits")
	older("network", "properties", "dnsAddresses")
	older("observedRenew")
	if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	secret, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	p := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "probe"},
		Spec: podnet.PeerSpec{User: "alice", PublicKey: secret.Public().String(), LeaseSeconds: 60, Renew: 1}}
	if err := s.alice.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	sa := s.server.As(t, "system:serviceaccount:"+deploy.DefaultNamespace+":"+deploy.ServiceAccountName, "system:serviceaccounts", "system:serviceaccounts:"+deploy.DefaultNamespace)
	apiserver.Eventually(t, 20*time.Second, "the CRD is an older one", func() error {
		probe := status.Patch("Peer", p, map[string]any{"observedRenew": int64(1)})
		err := sa.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(probe), client.FieldOwner("probe"), client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), "field not declared in schema") {
			return errors.Join(errors.New("not yet"), err)
		}
		return nil
	})

	if err := s.admin.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}

	var said logged
	var writes atomic.Int64
	web := s.pod("shop", "web", "10.96.1.1")
	g, _ := s.startWith("podnet-gateway-0", func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&said, nil))
		o.REST.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrips(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/peers/") {
					writes.Add(1)
				}
				return next.RoundTrip(r)
			})
		})
	})
	l := s.enrol("laptop", 300, "shop")
	if len(l.peer.Status.Gateways) != 1 || l.peer.Status.Network == nil || l.peer.Status.Network.DNSDomain != "cluster.test" {
		t.Errorf("status %+v", l.peer.Status)
	}
	l.connect(g, netip.PrefixFrom(web.Addr(), 32))
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second) // what was just written may be written once more, see write.Writer
	before := writes.Load()
	for range 30 { // looks
		g.world.LookAgain()
		time.Sleep(100 * time.Millisecond)
	}
	if n := writes.Load() - before; n > 1 {
		t.Errorf("%d writes of what cannot be said", n)
	}
	if n := g.admit.write.Errors(); n > 0 {
		t.Errorf("%d writes have failed", n)
	}
	text := said.String()
	for _, field := range []string{"status.gateways.version", "status.network.dnsAddresses", "status.observedRenew"} {
		if n := strings.Count(text, field); n != 1 {
			t.Errorf("%s is told %d times:\n%s", field, n, text)
		}
	}
}

// logged is what a log has.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// roundTrips is an http.RoundTripper.
type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
