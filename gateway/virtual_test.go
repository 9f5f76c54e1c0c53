package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/virtual"
	"podnet.dev/internal/remap"
)

func virtualPrefixes(texts ...string) []podnet.VirtualPrefix {
	var all []podnet.VirtualPrefix
	for _, s := range texts {
		real, virtual, _ := strings.Cut(s, " ")
		all = append(all, podnet.VirtualPrefix{Real: real, Virtual: virtual})
	}
	return all
}

// Only the admitted have maps, each at its own tunnel addresses.
func TestMapsAreOfTheAdmitted(t *testing.T) {
	pods := virtual.Of(virtualPrefixes("10.244.0.0/16 100.64.0.0/16"), ranges.Parse([]string{"10.244.0.0/16"}))
	four, six := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("fd70:6f64:6e65:7400::2")
	got := mapsOf([]enrol.Admitted{{UID: "a", Address4: four, Address6: six}, {UID: "plain", Address6: netip.MustParseAddr("fd70:6f64:6e65:7400::3")}},
		map[string]virtual.Mapping{"a": pods, "expired": pods})
	if len(got) != 2 || !got[four].Equal(pods.Map) || !got[six].Equal(pods.Map) {
		t.Errorf("maps %v", got)
	}
}

func TestStatusTellsOfVirtualAddresses(t *testing.T) {
	p := newPeer()
	p.Generation = 1
	settled(t, p, writer0.entryPatch(p, true), writer0.sharedPatch(p, admission))
	if p.Status.Virtual != nil || len(p.Status.Conditions) != 1 {
		t.Errorf("status of a Peer that maps nothing: %+v", p.Status)
	}
	look := func(spec ...podnet.VirtualPrefix) author {
		p.Spec.Virtual = spec
		p.Generation++
		w := writer0
		w.maps = map[string]virtual.Mapping{"1": virtual.Of(spec, ranges.Parse([]string{"10.244.0.0/16"}))}
		return w
	}
	pods := virtualPrefixes("10.244.0.0/16 100.64.0.0/16")[0]
	w := look(pods)
	settled(t, p, w.sharedPatch(p, admission))
	c := meta.FindStatusCondition(p.Status.Conditions, podnet.ConditionVirtual)
	if !slices.Equal(p.Status.Virtual, p.Spec.Virtual) || c == nil || c.Status != metav1.ConditionTrue || c.Reason != podnet.ReasonMapped {
		t.Fatalf("status %+v", p.Status)
	}
	p.Generation++ // a renewal
	if w.sharedPatch(p, admission) != nil {
		t.Error("what is there is written again")
	}
	w = look(pods, virtualPrefixes("192.0.2.0/24 100.65.0.0/24")[0])
	settled(t, p, w.sharedPatch(p, admission))
	c = meta.FindStatusCondition(p.Status.Conditions, podnet.ConditionVirtual)
	if len(p.Status.Virtual) != 1 || c.Status != metav1.ConditionFalse || c.Reason != podnet.ReasonNotMapped || !strings.Contains(c.Message, "192.0.2.0/24") || c.ObservedGeneration != p.Generation {
		t.Errorf("status %+v", p.Status)
	}
	if w.sharedPatch(p, admission) != nil {
		t.Error("a refusal is written again")
	}
	p.Generation++
	if w.sharedPatch(p, admission) == nil {
		t.Error("whoever asks again is not told that it is refused again")
	}
	w = look()
	if u := w.sharedPatch(p, admission); u == nil || strings.Contains(fmt.Sprint(u.Object), "irtual") {
		t.Errorf("a Peer that maps nothing any more: %v", u)
	}
	over := enrol.Verdict{Reason: podnet.ReasonExpired, Message: "Over.", Renew: 1}
	if u := look(pods).sharedPatch(p, over); u == nil || strings.Contains(fmt.Sprint(u.Object), "irtual") {
		t.Errorf("a Peer whose time is over: %v", u)
	}
}

// atVirtual has the laptop ask for these, and waits for what the gateways map and
// say.
func (l *laptop) atVirtual(want, mapped []podnet.VirtualPrefix, reason string) {
	l.Helper()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"virtual": want}})
	if err != nil {
		l.Fatal(err)
	}
	p := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: l.peer.Namespace, Name: l.name}}
	began := time.Now()
	if err := l.alice.Patch(l.Context(), p, client.RawPatch(types.MergePatchType, patch)); err != nil {
		l.Fatal(err)
	}
	l.await("is told what is mapped", func(p *podnet.Peer) bool {
		c := meta.FindStatusCondition(p.Status.Conditions, podnet.ConditionVirtual)
		told := c == nil && reason == "" || c != nil && c.Reason == reason && (c.Status == metav1.ConditionTrue || c.ObservedGeneration >= p.Generation)
		return told && slices.Equal(p.Status.Virtual, mapped)
	})
	l.Logf("%v: in force after %v", want, time.Since(began).Round(time.Millisecond))
}

// podNetwork makes a node's of the network around a pod, which is this machine's.
func (s *stage) podNetwork(pod netip.Addr) netip.Prefix {
	s.Helper()
	block, err := pod.Prefix(24)
	if err != nil {
		s.Fatal(err)
	}
	s.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node2"}, Spec: corev1.NodeSpec{PodCIDR: block.String(), PodCIDRs: []string{block.String()}}})
	return block
}

// moved is an address in another prefix.
func moved(t *testing.T, at netip.AddrPort, pairs []podnet.VirtualPrefix) netip.AddrPort {
	t.Helper()
	all := virtual.Of(pairs, []netip.Prefix{netip.PrefixFrom(at.Addr(), at.Addr().BitLen())})
	a, ok := all.Virtual(at.Addr())
	if !ok {
		t.Fatalf("%v does not map %s: %s", pairs, at, all.Refused)
	}
	return netip.AddrPortFrom(a, at.Port())
}

// TestLaptopWithAPodNetworkOfItsOwn reaches the cluster at virtual addresses, and
// nothing more than at the real ones.
func TestLaptopWithAPodNetworkOfItsOwn(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "till"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.2.1", Ports: []corev1.ServicePort{{Port: 80}}}})
	block := s.podNetwork(web.Addr())
	g, _ := s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300, "shop")
	// No machine that runs this has such addresses.
	services := "10.96.0.0/16 240.96.0.0/16"
	pods := block.String() + " 240.64.7.0/24"
	l.atVirtual(virtualPrefixes(pods, services), virtualPrefixes(pods, services), podnet.ReasonMapped)
	l.connect(g, netip.MustParsePrefix("240.0.0.0/4"))

	if got, err := l.resolve("web.shop.svc.cluster.test."); err != nil || !slices.Equal(got, []string{"240.96.1.1"}) {
		t.Errorf("web.shop is %v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, a := range []string{"240.96.1.1", "10.96.1.1"} {
		if got, err := l.resolver().LookupAddr(ctx, a); err != nil || !slices.Equal(got, []string{"web.shop.svc.cluster.test."}) {
			t.Errorf("%s is %v, %v", a, got, err)
		}
	}
	var notFound *net.DNSError
	if got, err := l.resolve("till.pay.svc.cluster.test."); !errors.As(err, &notFound) || !notFound.IsNotFound {
		t.Errorf("till.pay is %v, %v, want no such name", got, err)
	}
	if got, err := l.resolver().LookupAddr(ctx, "240.96.2.1"); err == nil {
		t.Errorf("till's virtual address is %v", got)
	}

	open := func(at netip.AddrPort) net.Conn {
		t.Helper()
		c, err := l.dial(at, 5*time.Second)
		if err != nil {
			t.Fatalf("dial the pod at %s: %v", at, err)
		}
		if err := echo(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := open(moved(t, web, virtualPrefixes(pods)))
	for what, to := range map[string]string{"pay's Service": "240.96.2.1:80", "the API server's Service": "240.96.0.1:443", "another port of the Service": "240.96.1.1:81", "what nobody has": "240.127.0.1:80"} {
		began := time.Now()
		if c, err := l.dial(netip.MustParseAddrPort(to), 5*time.Second); err == nil {
			_ = c.Close()
			t.Errorf("%s can be reached", what)
		} else if took := time.Since(began); took > 4*time.Second { // nobody says no
			t.Errorf("%s is refused only after %v: %v", what, took, err)
		}
	}

	// Another prefix for the pods: what is open there ends.
	other := block.String() + " 240.65.7.0/24"
	l.atVirtual(virtualPrefixes(other, services), virtualPrefixes(other, services), podnet.ReasonMapped)
	if err := echo(first); err == nil {
		t.Error("a flow to an address that stands for nothing any more goes on")
	}
	second := open(moved(t, web, virtualPrefixes(other)))

	// A pair that is refused does not take the others away.
	foreign := "203.0.113.0/24 240.66.0.0/24" // this machine may be in 192.0.2.0/24
	l.atVirtual(virtualPrefixes(other, services, foreign), virtualPrefixes(other, services), podnet.ReasonNotMapped)
	if err := echo(second); err != nil {
		t.Errorf("a flow to what is still mapped: %v", err)
	}
	if m := mapOf(t, g, l); m.IsZero() {
		t.Error("nothing is mapped")
	}

	// Every gateway maps alike, also one that starts later.
	another, _ := s.start("podnet-gateway-1")
	apiserver.Eventually(t, 30*time.Second, "the other gateway maps as well", func() error {
		if !mapOf(t, another, l).Equal(mapOf(t, g, l)) {
			return fmt.Errorf("%v, not %v", mapOf(t, another, l).Pairs(), mapOf(t, g, l).Pairs())
		}
		return nil
	})

	// Pairs that make no sense are refused whole, and no pairs are no mapping.
	l.atVirtual(virtualPrefixes(other, "10.96.0.0/16 240.65.0.0/16"), nil, podnet.ReasonNotMapped)
	if err := echo(second); err == nil {
		t.Error("a flow goes on though nothing is mapped")
	}
	l.atVirtual([]podnet.VirtualPrefix{}, nil, "")
	if got, err := l.resolve("web.shop.svc.cluster.test."); err != nil || !slices.Equal(got, []string{"10.96.1.1"}) {
		t.Errorf("web.shop is %v, %v", got, err)
	}
}

func mapOf(t *testing.T, g *Gateway, l *laptop) remap.Map {
	t.Helper()
	return g.forward.Map(netip.MustParseAddr(l.peer.Status.Address4))
}
