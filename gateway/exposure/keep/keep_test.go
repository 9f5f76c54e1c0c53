package keep

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// wishes are what a Keeper wants to have written.
type wishes struct {
	status  map[string]*unstructured.Unstructured
	applied []string
	removed []string
}

func (w *wishes) Status(_ context.Context, key string, patches ...write.Patch) {
	w.status[key] = patches[0].Object
}

func (w *wishes) Object(_ context.Context, key, manager string, _ runtime.ApplyConfiguration) {
	w.applied = append(w.applied, manager+" "+key)
}

func (w *wishes) Remove(_ context.Context, o client.Object) {
	w.removed = append(w.removed, o.GetName())
}

func (w *wishes) forget() { *w = wishes{status: map[string]*unstructured.Unstructured{}} }

// TestSlicesFollowTheLaptop: of two gateways the one that has the laptop leads to
// it, and only the one that leads writes what both share.
func TestSlicesFollowTheLaptop(t *testing.T) {
	laptop := key.Public{1}
	shook := map[string]time.Time{}
	probed := time.Time{}
	var got wishes
	keeperAt := func(pod, at string) *Keeper {
		x := New(Config{Namespace: "podnet-system", Pod: pod, PodUID: "uid-" + pod, PodIPs: []netip.Addr{netip.MustParseAddr(at)},
			DNSDomain: "cluster.test", Keep: time.Hour, Log: slog.New(slog.DiscardHandler), Write: &got, Changed: func() {},
			Stats: func() ([]tunnel.PeerStats, error) {
				return []tunnel.PeerStats{{PublicKey: laptop, LastHandshake: shook[pod]}}, nil
			},
			ID:     func(key.Public) probe.ID { return probe.ID{} },
			Probed: func(probe.ID) (time.Time, transport.Kind) { return probed, "" },
		})
		t.Cleanup(x.server.Close)
		return x
	}
	first, second := keeperAt("podnet-gateway-0", "127.0.0.21"), keeperAt("podnet-gateway-1", "127.0.0.22")
	object := &podnet.Exposure{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "my-api", UID: "0123456789ab-cdef"}, Spec: podnet.ExposureSpec{User: "alice", Peer: "laptop",
		Renew: 1, Local: "3000", Ports: []podnet.ExposurePort{{Port: 80, Protocol: podnet.ExposureTCP, RelayPort: 20000}}}}
	const name = "podnet-x-0123456789ab"
	peer := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "laptop"}, Spec: podnet.PeerSpec{User: "alice", LeaseSeconds: 300}}
	w := world.Snapshot{Peers: []world.Peer{{Object: peer, Peer: world.PeerOf(peer)}}, Exposures: []world.Exposure{{Object: object, Exposure: world.ExposureOf(object)}}}
	admitted := []enrol.Admitted{{Name: "laptop", User: "alice", Key: laptop}}
	look := func(x *Keeper, leads bool) *wishes {
		now := time.Now()
		x.poll()
		p := x.Look(now, w, enrol.World{PolicyHolds: true, Connected: true, Leader: leads}, admitted)
		got.forget()
		x.Report(t.Context(), now, leads, p, w)
		return &got
	}
	want := func(what string, w *wishes, applied, removed string) {
		t.Helper()
		if got := strings.Join(w.applied, ","); got != applied {
			t.Errorf("%s: applies %q, want %q", what, got, applied)
		}
		if got := strings.Join(w.removed, ","); got != removed {
			t.Errorf("%s: removes %q, want %q", what, got, removed)
		}
	}

	shook["podnet-gateway-1"] = time.Now()
	want("there is no Service yet", look(second, false), "", "")
	if len(got.status) != 0 {
		t.Error("a gateway that does not lead writes status")
	}
	want("the leader writes it", look(first, true), "podnet-gateway service/"+name, "")
	if len(got.status) != 0 {
		t.Error("somebody is told of a name that is not there")
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: name, UID: "s", Labels: map[string]string{podnet.LabelExposure: string(object.UID)}},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "tcp-80", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(20000)}}}}
	w.ExposedBy.Services = []*corev1.Service{service}
	want("the leader without the laptop", look(first, true), "", "")
	if got.status["exposure/"+string(object.UID)] == nil {
		t.Error("the status is not written")
	}
	want("the one with the laptop", look(second, false), "podnet-gateway-1 slice/"+name+"-podnet-gateway-1-ipv4", "")

	written := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: name + "-podnet-gateway-1-ipv4", Labels: service.Labels}}
	w.ExposedBy.Slices = []*discoveryv1.EndpointSlice{written}
	want("while the slice is another's", look(second, false), "podnet-gateway-1 slice/"+name+"-podnet-gateway-1-ipv4", "")
	want("another's slice of a live exposure", look(first, true), "", "")
	probed = time.Now().Add(-time.Minute)
	want("the laptop has left by its probes", look(second, false), "", written.Name)
	probed = time.Now()
	got.forget()
	second.Retire(t.Context(), w)
	want("it stops", &got, "", written.Name)
	shook["podnet-gateway-1"] = time.Now().Add(-time.Hour)
	want("the laptop has left by its handshake", look(second, false), "", written.Name)
	if _, err := (laptopDialer{x: second}).DialTCP(context.Background(), netip.AddrPortFrom(laptop.RelayAddress6(), 20000)); !errors.Is(err, errNotHere) {
		t.Errorf("it is dialled: %v", err)
	}
	w.Exposures = nil
	want("the exposure is gone", look(first, true), "", name+","+written.Name)
}
