package fronts

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// Rules that come and go by the second leave no more fronts behind than there may be.
func TestDroppedFrontsAreBounded(t *testing.T) {
	gateway, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	f := New(Config{
		Namespace: "podnet-system", PodIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Log: slog.New(slog.DiscardHandler), Changed: func() {},
		Self: func() control.Gateway {
			return control.Gateway{PublicKey: gateway.Public(), Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}}
		},
	})
	defer f.running.Wait()
	defer f.end()
	var all []*fronted
	for i := range maxFronts + 10 {
		name := types.NamespacedName{Namespace: "shop", Name: fmt.Sprintf("web-%d", i)}
		o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: types.UID(name.Name)},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
		f.key(o.UID)
		one := f.all[o.UID]
		if at := f.serve(time.Now(), o.UID, one, world.Service{Name: name, State: reroute.State{Service: o}}, []uint16{80}); at.Ports[80] == 0 {
			t.Fatalf("front %d does not listen", i)
		}
		f.drop(o.UID)
		all = append(all, one)
	}
	alive := func() (n int) {
		for _, one := range all {
			if !one.dead.Load() {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(10 * time.Second); alive() > maxFronts && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := alive(); n != maxFronts {
		t.Errorf("%d of %d fronts are there yet", n, len(all))
	}
	if !all[9].dead.Load() || all[10].dead.Load() {
		t.Error("it was not the oldest that ended")
	}
}
