package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/world/worldtest"
)

func TestAbsentGatewaysAreSwept(t *testing.T) {
	w := testWorld(func(o *Options) { o.PodUID = "u0" })
	p := newPeer()
	p.Status.Gateways = gatewaysOf("podnet-gateway-0/u0", "podnet-gateway-1/u1", "podnet-gateway-2/u2")
	m, now := absences{}, then
	look := func() (gone []string, next time.Duration) {
		s := w.Snapshot()
		at := m.note(now, []world.Peer{{Object: p}}, s.Gateways)
		for _, g := range p.Status.Gateways {
			if m.gone(now, g) {
				gone = append(gone, g.Pod)
			}
		}
		if !at.IsZero() {
			next = at.Sub(now)
		}
		return gone, next
	}
	running := func(pods ...string) {
		s := worldtest.Gateways()
		s.Labels[discoveryv1.LabelServiceName] = deploy.StatefulSetName
		for _, g := range gatewaysOf(pods...) {
			ready := false // it counts that there is a pod
			e := worldtest.Gateways(g.Pod).Endpoints[0]
			e.Conditions.Ready, e.TargetRef.UID = &ready, types.UID(g.PodUID)
			s.Endpoints = append(s.Endpoints, e)
		}
		w.Set(s)
	}
	want := func(what string, next time.Duration, gone ...string) {
		t.Helper()
		got, at := look()
		if !slices.Equal(got, gone) || at != next {
			t.Errorf("%s: %v are gone, next look after %v; want %v, %v", what, got, at, gone, next)
		}
	}
	want("a cluster that tells nothing", 0)
	running("podnet-gateway-1/u1")
	want("a list without us proves nothing", 0)
	running("podnet-gateway-0/u0", "podnet-gateway-1/u1", "podnet-gateway-2/u2")
	want("all run", 0)
	running("podnet-gateway-0/u0", "podnet-gateway-1/new")
	want("one was replaced, one is gone", goneAfter)
	now = now.Add(goneAfter - time.Second)
	p.Status.Gateways[1].PodUID = "new" // it has written itself
	want("one is back", time.Second)
	now = now.Add(time.Second)
	want("and one is not", 0, "podnet-gateway-2")
	running("podnet-gateway-0/u0", "podnet-gateway-1/new", "podnet-gateway-2/u2")
	want("an old pod that was only cut off", 0)
}

// gatewaysOf makes entries of pod/UID.
func gatewaysOf(pods ...string) []podnet.Gateway {
	var all []podnet.Gateway
	for _, text := range pods {
		pod, uid, _ := strings.Cut(text, "/")
		all = append(all, podnet.Gateway{Pod: pod, PodUID: uid, PublicKey: "k", StreamPort: StreamPort})
	}
	return all
}
