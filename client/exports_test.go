package client

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/wgconf"
)

const gatewayKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

// exportCluster admits whom it is told of, at gateways with these endpoints.
type exportCluster struct {
	*fakeCluster
	endpoints []string
	key       string // the gateway's
	spec      v1alpha1.PeerSpec
}

func newExportCluster(endpoints ...string) *exportCluster {
	return &exportCluster{fakeCluster: newFakeCluster(), endpoints: endpoints, key: gatewayKey}
}

func (f *exportCluster) CreatePeer(ctx context.Context, ns, name string, spec v1alpha1.PeerSpec) error {
	f.spec = spec
	return f.fakeCluster.CreatePeer(ctx, ns, name, spec)
}

func (f *exportCluster) Peer(_ context.Context, ns, name string) (*v1alpha1.Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	renew, there := f.objects["peer "+ns+"/"+name]
	switch {
	case f.away != nil:
		return nil, f.away
	case !there:
		return nil, cluster.ErrGone
	}
	p := status(func(s *v1alpha1.PeerStatus) {
		s.Gateways = []v1alpha1.Gateway{{Pod: "podnet-gateway-0", PublicKey: f.key, Endpoints: f.endpoints}}
	})
	p.Namespace, p.Name, p.Spec.Renew = ns, name, renew
	return p, nil
}

func (f *exportCluster) Await(ctx context.Context, ns, name string, _ []string) (*v1alpha1.Peer, error) {
	return f.Peer(ctx, ns, name)
}

func newTestExports(dir string, f *exportCluster) *Exports {
	return NewExports(ExportsConfig{OpenCluster: func(localapi.Kube) (Cluster, error) { return f, nil }, StateDir: dir, Log: slog.New(slog.DiscardHandler)})
}

func phone(namespaces ...string) localapi.ExportRequest {
	return localapi.ExportRequest{Namespaces: namespaces, GatewayNamespace: "podnet-system", Device: "phone", LeaseSeconds: 24 * 3600, Resolvers: []netip.Addr{netip.MustParseAddr("192.168.1.1")}}
}

// TestExportedDevice lets a phone in, kills the daemon, has the next one renew it,
// and shuts it out again.
func TestExportedDevice(t *testing.T) {
	f, dir := newExportCluster("[2001:db8::7]:31820", "10.244.3.3:31820", "203.0.113.7:31820"), t.TempDir()
	x := newTestExports(dir, f)
	made, err := x.Export(t.Context(), phone("shop", "pay"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := wgconf.Parse(strings.NewReader(made.Config))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, made.Config)
	}
	if c.PrivateKey.Public().String() != f.spec.PublicKey || f.spec.LeaseSeconds != 24*3600 || f.spec.Device != "phone" {
		t.Errorf("the Peer is %+v", f.spec)
	}
	peer := c.Peers[0]
	if peer.Endpoint != "203.0.113.7:31820" || peer.PublicKey.String() != gatewayKey || len(c.Peers) != 1 {
		t.Errorf("led to %+v", c.Peers)
	}
	for _, want := range []string{"10.244.0.0/16", "10.96.0.0/16", "198.18.0.1/32"} {
		if !slices.Contains(peer.AllowedIPs, netip.MustParsePrefix(want)) {
			t.Errorf("%s is not routed: %v", want, peer.AllowedIPs)
		}
	}
	if got, want := strings.Join(c.DNS, " "), "198.18.0.1 192.168.1.1 shop.svc.cluster.local svc.cluster.local cluster.local"; got != want {
		t.Errorf("resolves by %s, want %s", got, want)
	}
	note, err := os.ReadFile(filepath.Join(dir, "exports.json"))
	if err != nil || strings.Contains(string(note), c.PrivateKey.Base64()) || strings.Contains(string(note), c.PrivateKey.Hex()) {
		t.Errorf("the note is %s, %v", note, err)
	}

	x = newTestExports(dir, f)
	if all := x.Exports(); len(all) != 1 || all[0].Renewed || all[0].Text == "" || x.Renewing() || len(x.due(time.Now())) != 0 {
		t.Fatalf("the next daemon knows %+v, and has no credentials yet", all)
	}
	if _, err := x.open(t.Context(), localapi.Kube{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range x.due(time.Now()) {
		x.renew(t.Context(), e)
	}
	if len(f.objects) != 3 {
		t.Fatalf("there are %v", f.objects)
	}
	for key, renew := range f.objects {
		if renew != 2 {
			t.Errorf("%s is at renewal %d", key, renew)
		}
	}
	if all := x.Exports(); len(all) != 1 || !all[0].Renewed || all[0].Text != "" || !x.Renewing() || len(x.due(time.Now())) != 0 {
		t.Errorf("renewed: %+v", all)
	}

	f.key = strings.Replace(gatewayKey, "h", "i", 1) // the gateway starts anew
	if all, err := x.List(t.Context(), localapi.ExportListRequest{}); err != nil || len(all) != 1 || !strings.Contains(all[0].Text, "another key") || !strings.Contains(all[0].Hint, f.key) {
		t.Errorf("listed: %+v, %v", all, err)
	}
	if _, err := x.Revoke(t.Context(), localapi.ExportRevokeRequest{Names: []string{"tablet"}}); httpjson.FromError(err).Code != localapi.CodeNotFound {
		t.Errorf("revoked a tablet: %v", err)
	}
	if names, err := x.Revoke(t.Context(), localapi.ExportRevokeRequest{Names: []string{"phone"}}); err != nil || !slices.Equal(names, []string{made.Export.Name}) {
		t.Errorf("revoked %v, %v", names, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "exports.json")); len(f.objects) != 0 || x.Renewing() || !os.IsNotExist(err) {
		t.Errorf("left %v and a note: %v", f.objects, err)
	}
}

// TestNoExportLeavesNothing: what cannot be, or may not be, leaves no object.
func TestNoExportLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*exportCluster, *localapi.ExportRequest)
		says string
	}{
		"no endpoint":      {func(f *exportCluster, _ *localapi.ExportRequest) { f.endpoints = nil }, "publishes no UDP endpoint"},
		"only inside":      {func(f *exportCluster, _ *localapi.ExportRequest) { f.endpoints = []string{"10.244.1.1:31820"} }, "publishes no UDP endpoint"},
		"not allowed":      {func(f *exportCluster, _ *localapi.ExportRequest) { f.denied["pay"] = true }, "pods/portforward in namespace pay"},
		"too long a lease": {func(_ *exportCluster, r *localapi.ExportRequest) { r.LeaseSeconds = 8 * 24 * 3600 }, "168h"},
		"no name":          {func(_ *exportCluster, r *localapi.ExportRequest) { r.Device = "My Phone" }, "My Phone"},
	} {
		f, req := newExportCluster("203.0.113.7:31820"), phone("shop", "pay")
		c.edit(f, &req)
		x := newTestExports(t.TempDir(), f)
		_, err := x.Export(t.Context(), req)
		if e := httpjson.FromError(err); err == nil || !strings.Contains(e.Message, c.says) || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.objects) != 0 || len(x.Exports()) != 0 {
			t.Errorf("%s: left %v", name, f.objects)
		}
	}
}

// TestRefusedRenewalEndsAnExport: a permission that is gone shuts the device out,
// long before its lease ends. One no may be an API server that starts.
func TestRefusedRenewalEndsAnExport(t *testing.T) {
	f := newExportCluster("203.0.113.7:31820")
	x := newTestExports(t.TempDir(), f)
	if _, err := x.Export(t.Context(), phone("shop", "pay")); err != nil {
		t.Fatal(err)
	}
	e := x.held[0]
	f.denied["pay"] = true
	x.renew(t.Context(), e)
	if got := x.Exports()[0]; len(got.Namespaces) != 2 || !strings.Contains(got.Text, "namespace pay") {
		t.Errorf("after the first no: %+v", got)
	}
	x.renew(t.Context(), e)
	if got := x.Exports()[0]; !slices.Equal(got.Namespaces, []string{"shop"}) || got.Text != "" || len(f.objects) != 2 {
		t.Errorf("after the second: %+v, %v", got, f.objects)
	}
	f.away = &cluster.UnreachableError{Err: os.ErrDeadlineExceeded}
	x.renew(t.Context(), e)
	x.renew(t.Context(), e)
	if all := x.Exports(); len(all) != 1 || all[0].Text == "" {
		t.Errorf("an API server that is away: %+v", all)
	}
	f.away, f.denied["shop"] = nil, true
	x.renew(t.Context(), e)
	f.denied["shop"] = false
	x.renew(t.Context(), e) // a yes in between
	f.denied["shop"] = true
	x.renew(t.Context(), e)
	if len(x.Exports()) != 1 {
		t.Fatal("ended by one no")
	}
	x.renew(t.Context(), e)
	if len(f.objects) != 0 || len(x.Exports()) != 0 {
		t.Errorf("left %v and %v", f.objects, x.Exports())
	}
}

func TestExportTrouble(t *testing.T) {
	p := status(func(s *v1alpha1.PeerStatus) {
		s.Gateways = []v1alpha1.Gateway{{Pod: "podnet-gateway-0", PublicKey: "k"}}
	})
	if text, _ := exportTrouble(p, "u1", "podnet-gateway-0", "k"); text != "" {
		t.Errorf("all is well, and it says %q", text)
	}
	if text, hint := exportTrouble(p, "u1", "podnet-gateway-1", "k"); !strings.Contains(text, "not there") || hint == "" {
		t.Errorf("no gateway: %q, %q", text, hint)
	}
	p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonLimitReached, Message: "alice has 5."}}
	if text, _ := exportTrouble(p, "u1", "podnet-gateway-0", "k"); !strings.Contains(text, "alice has 5") {
		t.Errorf("cut: %q", text)
	}
}

func TestExportRenewal(t *testing.T) {
	for lease, want := range map[time.Duration]time.Duration{time.Minute: 20 * time.Second, 15 * time.Minute: time.Minute, 24 * time.Hour: time.Hour} {
		if got := exportRenewal(lease); got != want {
			t.Errorf("a lease of %v is renewed every %v, want %v", lease, got, want)
		}
	}
}
