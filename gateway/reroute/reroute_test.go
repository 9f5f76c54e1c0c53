package reroute

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	podnet "podnet.dev/api/v1alpha1"
)

var config = Config{Namespace: "podnet-system"}

func service(changes ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web", ResourceVersion: "1", Annotations: map[string]string{"owner": "team"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": "web", "tier": "front"},
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
			}},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func front(address string) Front {
	return Front{Namespace: "podnet-system", Pod: "podnet-gateway-0", PodUID: "uid-gw", Node: "node1",
		Addrs: []netip.Addr{netip.MustParseAddr(address)}, Ports: map[uint16]uint16{80: 19000}}
}

// cluster is what there really is, and the endpointslice controller in it.
type cluster struct {
	t       *testing.T
	service *corev1.Service
	shadow  *corev1.Service
	slices  map[string]*discoveryv1.EndpointSlice
	pods    map[string]bool // addresses, ready or not
	version int
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, service: service(), slices: map[string]*discoveryv1.EndpointSlice{}, pods: map[string]bool{"10.0.0.1": true, "10.0.0.2": true}}
	c.control(c.service)
	return c
}

// state is what a watch tells that is up to date.
func (c *cluster) state() State {
	s := State{Service: c.service.DeepCopy()}
	if c.shadow != nil {
		s.Shadow = c.shadow.DeepCopy()
	}
	for _, name := range slices.Sorted(maps.Keys(c.slices)) {
		s.Slices = append(s.Slices, c.slices[name].DeepCopy())
	}
	return s
}

// control is a round of the endpointslice controller for a Service.
func (c *cluster) control(s *corev1.Service) {
	if s == nil {
		return
	}
	name := s.Name + "-abcde"
	o := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name,
		Labels: map[string]string{discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: byController}}, AddressType: discoveryv1.AddressTypeIPv4}
	if selects := s.Spec.Selector; selects["app"] == "web" && selects[podnet.LabelSteeredBy] == "" {
		for _, p := range s.Spec.Ports {
			to := p.TargetPort.IntVal
			o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &to})
		}
		for _, a := range slices.Sorted(maps.Keys(c.pods)) {
			ready := c.pods[a]
			o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-" + a, Namespace: "shop"}})
		}
	}
	c.slices[name] = o
}

// write carries out a plan.
func (c *cluster) write(p Plan) {
	if p.Shadow != nil {
		c.shadow = p.Shadow.DeepCopy()
	}
	for _, s := range p.Slices {
		c.slices[s.Name] = s.DeepCopy()
	}
	for _, s := range p.Remove {
		delete(c.slices, s.Name)
	}
	if p.Forget != nil {
		delete(c.slices, p.Forget.Name+"-abcde")
		c.shadow = nil
	}
	if p.Patch == nil {
		return
	}
	var patch struct {
		Metadata struct {
			UID, ResourceVersion string
			Annotations          map[string]*string
		}
		Spec struct{ Selector map[string]*string }
	}
	if err := json.Unmarshal(p.Patch, &patch); err != nil {
		c.t.Fatal(err)
	}
	if patch.Metadata.ResourceVersion != c.service.ResourceVersion || patch.Metadata.UID != string(c.service.UID) {
		return // a conflict
	}
	c.change(func(s *corev1.Service) {
		merge(s.Annotations, patch.Metadata.Annotations)
		merge(s.Spec.Selector, patch.Spec.Selector)
	})
}

func (c *cluster) change(f func(*corev1.Service)) {
	c.service = c.service.DeepCopy()
	c.version++
	c.service.ResourceVersion = "v" + strconv.Itoa(c.version)
	f(c.service)
}

func merge(into map[string]string, changes map[string]*string) {
	for k, v := range changes {
		if v == nil {
			delete(into, k)
		} else {
			into[k] = *v
		}
	}
}

// leads are where a port of the Service leads, by what kube-proxy sees.
func (c *cluster) leads(port string) (all []string) {
	for _, s := range c.slices {
		if s.Labels[discoveryv1.LabelServiceName] != "web" {
			continue
		}
		for _, p := range s.Ports {
			if *p.Name != port {
				continue
			}
			for _, e := range s.Endpoints {
				if *e.Conditions.Ready && !slices.Contains(all, e.Addresses[0]) {
					all = append(all, e.Addresses[0])
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// settle plans, writes and controls until nothing changes.
func (c *cluster) settle(w Wish) (p Plan) {
	c.t.Helper()
	for range 20 {
		before := c.state()
		p = config.Plan(c.state(), w)
		c.write(p)
		c.control(c.service)
		c.control(c.shadow)
		if reflect.DeepEqual(before, c.state()) {
			return p
		}
	}
	c.t.Fatalf("it never rests; last %+v", p)
	return p
}

func (c *cluster) want(port string, leads ...string) {
	c.t.Helper()
	if got := c.leads(port); !slices.Equal(got, leads) {
		c.t.Errorf("%s leads to %v, want %v", port, got, leads)
	}
}

func wish(address string) Wish {
	return Wish{Steer: true, Ports: []uint16{80}, Front: front(address), Begin: true, Switch: true}
}

// TestThereAndBack is the life of a Service with a rule for one of its two ports.
func TestThereAndBack(t *testing.T) {
	c := newCluster(t)
	before := c.state()

	w := wish("10.1.0.9")
	w.Begin = false
	if p := c.settle(w); p.Settled {
		t.Error("settled before it may begin")
	}
	c.want("http", "10.0.0.1", "10.0.0.2")
	if c.shadow == nil || c.shadow.Name != "podnet-web" || c.shadow.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Errorf("shadow %+v", c.shadow)
	}
	w.Begin = true
	if p := c.settle(w); !p.Settled {
		t.Errorf("not settled: %+v", p)
	}
	c.want("http", "10.1.0.9")
	c.want("dns", "10.0.0.1", "10.0.0.2")
	if want := `{"app":"web","tier":"front"}`; c.service.Annotations[podnet.AnnotationSelector] != want || !maps.Equal(c.service.Spec.Selector, map[string]string{podnet.LabelSteeredBy: "podnet-system"}) {
		t.Errorf("annotations %v, selector %v", c.service.Annotations, c.service.Spec.Selector)
	}
	if got, want := c.state().Selector(), before.Service.Spec.Selector; !maps.Equal(got, want) {
		t.Errorf("selector %v, want %v", got, want)
	}

	c.pods["10.0.0.2"], c.pods["10.0.0.3"] = false, true
	c.settle(w)
	c.want("http", "10.1.0.9")
	c.want("dns", "10.0.0.1", "10.0.0.3")
	at := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
	if got, want := c.state().Pods(), (map[uint16][]netip.AddrPort{80: {at("10.0.0.1:8080"), at("10.0.0.3:8080")}}); !reflect.DeepEqual(got, want) {
		t.Errorf("pods %v, want %v", got, want)
	}

	w = wish("10.1.0.10") // another gateway leads
	w.Switch = false
	c.settle(w)
	c.want("http", "10.1.0.9")
	w.Switch = true
	if p := c.settle(w); !p.Settled {
		t.Error("not settled")
	}
	c.want("http", "10.1.0.10")
	if got := c.state().Leads(); len(got) != 1 || got[0].String() != "10.1.0.10" {
		t.Errorf("leads to %v", got)
	}

	c.settle(Wish{})
	c.pods["10.0.0.2"] = true
	delete(c.pods, "10.0.0.3")
	c.settle(Wish{})
	after := c.state()
	if !after.Idle() {
		t.Errorf("left behind: %+v", after)
	}
	after.Service.ResourceVersion = before.Service.ResourceVersion
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// A second rule comes for another port, and the first one goes: both lead to the
// gateway until all is over.
func TestPortsJoin(t *testing.T) {
	c := newCluster(t)
	c.change(func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Protocol: corev1.ProtocolTCP, Port: 81, TargetPort: intstr.FromInt32(8081)})
	})
	c.control(c.service)
	w := wish("10.1.0.9")
	c.settle(w)
	c.want("admin", "10.0.0.1", "10.0.0.2")
	w.Ports = []uint16{81}
	if p := c.settle(w); p.Settled && slices.Contains(c.state().Carried(w.Ports), 81) && len(c.leads("admin")) != 2 {
		t.Errorf("the front does not listen for it yet, and it leads to %v", c.leads("admin"))
	}
	w.Front.Ports = map[uint16]uint16{80: 19000, 81: 19001}
	if p := c.settle(w); !p.Settled {
		t.Errorf("not settled: %+v", p)
	}
	c.want("http", "10.1.0.9")
	c.want("admin", "10.1.0.9")
	c.want("dns", "10.0.0.1", "10.0.0.2")
	if got := c.state().Carried(nil); !slices.Equal(got, []uint16{80, 81}) {
		t.Errorf("carried %v", got)
	}
	c.settle(Wish{})
	c.want("admin", "10.0.0.1", "10.0.0.2")
}

func TestWhatPeopleDoMeanwhile(t *testing.T) {
	steered := func(t *testing.T) *cluster {
		c := newCluster(t)
		c.settle(wish("10.1.0.9"))
		return c
	}
	selects := func(c *cluster, want ...string) {
		t.Helper()
		c.settle(Wish{})
		var got []string
		for k, v := range c.service.Spec.Selector {
			got = append(got, k+"="+v)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || !c.state().Idle() {
			t.Errorf("selects %v, want %v; idle %v", got, want, c.state().Idle())
		}
	}
	t.Run("they merge another selector into it", func(t *testing.T) {
		c := steered(t)
		c.change(func(s *corev1.Service) { s.Spec.Selector["app"] = "web2" })
		if Overruled(c.service) {
			t.Error("it is still steered")
		}
		c.settle(wish("10.1.0.9"))
		if c.shadow.Spec.Selector["app"] != "web2" {
			t.Errorf("the shadow selects %v", c.shadow.Spec.Selector)
		}
		selects(c, "app=web2")
	})
	t.Run("they give it a selector", func(t *testing.T) {
		c := steered(t)
		c.change(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web", "track": "a"} })
		if !Overruled(c.service) {
			t.Error("nobody notices")
		}
		c.control(c.service)
		selects(c, "app=web", "track=a")
	})
	t.Run("they drop the note", func(t *testing.T) {
		c := steered(t)
		c.change(func(s *corev1.Service) { delete(s.Annotations, podnet.AnnotationSelector) })
		selects(c, "app=web", "tier=front")
	})
	t.Run("they drop the note and the shadow", func(t *testing.T) {
		c := steered(t)
		c.change(func(s *corev1.Service) { delete(s.Annotations, podnet.AnnotationSelector) })
		c.shadow = nil
		if p := config.Plan(c.state(), Wish{}); p.Trouble == "" || p.Patch != nil {
			t.Errorf("got %+v", p)
		}
		if p := config.Plan(c.state(), wish("10.1.0.9")); p.Trouble == "" {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("they delete the slice", func(t *testing.T) {
		c := steered(t)
		delete(c.slices, "podnet-web-front-ipv4")
		c.settle(wish("10.1.0.9"))
		c.want("http", "10.1.0.9")
	})
	t.Run("they delete the Service", func(t *testing.T) {
		c := steered(t)
		s := c.state()
		s.Service = nil
		for _, w := range []Wish{{}, wish("10.1.0.9")} {
			if p := config.Plan(s, w); !reflect.DeepEqual(p, Plan{}) {
				t.Errorf("got %+v", p)
			}
		}
	})
	t.Run("other gateways steer it", func(t *testing.T) {
		c := steered(t)
		c.change(func(s *corev1.Service) { s.Spec.Selector[podnet.LabelSteeredBy] = "elsewhere" })
		if p := config.Plan(c.state(), Wish{}); !reflect.DeepEqual(p, Plan{}) {
			t.Errorf("got %+v", p)
		}
	})
}

// Whatever comes when: each port of the Service leads somewhere that answers at
// every moment, and in the end it is steered, or as it was.
func TestNoMomentWithoutEndpoints(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 11))
		c := newCluster(t)
		w := wish("10.1.0.9")
		others := func() { // between any two writes
			for range r.IntN(3) {
				switch r.IntN(4) {
				case 0:
					c.control(c.service)
				case 1:
					c.control(c.shadow)
				case 2:
					w.Begin = r.IntN(4) > 0
				case 3:
					c.pods["10.0.0.2"] = r.IntN(2) > 0
				}
				for _, port := range []string{"http", "dns"} {
					if len(c.leads(port)) == 0 {
						t.Fatalf("seed %d: %s leads nowhere", seed, port)
					}
				}
			}
		}
		for range 2 + r.IntN(4) {
			for range 1 + r.IntN(12) {
				p := config.Plan(c.state(), w)
				for _, part := range []Plan{{Shadow: p.Shadow}, {Slices: p.Slices}, {Remove: p.Remove}, {Patch: p.Patch}, {Forget: p.Forget}} {
					c.write(part)
					others()
				}
			}
			w.Steer = !w.Steer
		}
		w.Begin = true
		p := c.settle(w)
		if w.Steer != p.Settled || !w.Steer && !c.state().Idle() {
			t.Fatalf("seed %d: steer %v, settled %v, idle %v", seed, w.Steer, p.Settled, c.state().Idle())
		}
	}
}

func TestRefuse(t *testing.T) {
	local, addrs := corev1.ServiceInternalTrafficPolicyLocal, []netip.Addr{netip.MustParseAddr("10.1.0.9")}
	for want, c := range map[string]struct {
		port   uint16
		change func(*corev1.Service)
	}{
		"":                 {80, func(*corev1.Service) {}},
		"no such port":     {81, func(*corev1.Service) {}},
		"speaks UDP":       {53, func(*corev1.Service) {}},
		"ExternalName":     {80, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }},
		"headless":         {80, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }},
		"no selector":      {80, func(s *corev1.Service) { s.Spec.Selector = nil }},
		"session affinity": {80, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }},
		"policy is Local":  {80, func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }},
		"(its traffic":     {80, func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local }},
		"in namespace elsewhere already": {80, func(s *corev1.Service) {
			s.Spec.Selector = map[string]string{podnet.LabelSteeredBy: "elsewhere"}
		}},
		"podnet's own":     {80, func(s *corev1.Service) { s.Namespace = "podnet-system" }},
		"is podnet's own.": {80, func(s *corev1.Service) { s.Labels = map[string]string{podnet.LabelShadow: "x"} }},
		"IPv6 clients":     {80, func(s *corev1.Service) { s.Spec.IPFamilies = append(s.Spec.IPFamilies, corev1.IPv6Protocol) }},
		"is gone":          {80, func(s *corev1.Service) { s.DeletionTimestamp = &metav1.Time{} }},
	} {
		got := config.Refuse(State{Service: service(c.change)}, c.port, addrs)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	foreign := State{Service: service(), Shadow: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "podnet-web"}}}
	if got := config.Refuse(foreign, 80, addrs); !strings.Contains(got, "podnet-web") {
		t.Errorf("got %q", got)
	}
	if got := config.Refuse(State{}, 80, addrs); !strings.Contains(got, "gone") {
		t.Errorf("got %q", got)
	}
}

func TestShadowName(t *testing.T) {
	long := strings.Repeat("w", 63)
	seen := map[string]bool{}
	for _, name := range []string{"web", strings.Repeat("w", 56), strings.Repeat("w", 57), long, long[:62] + "x"} {
		got := ShadowName(name)
		if len(got) > 63 || !strings.HasPrefix(got, "podnet-w") || seen[got] {
			t.Errorf("%s: %s (%d bytes)", name, got, len(got))
		}
		seen[got] = true
	}
	if got := ShadowName("web"); got != "podnet-web" {
		t.Error(fmt.Sprint(got))
	}
}
