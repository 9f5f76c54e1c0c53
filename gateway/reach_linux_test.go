package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/e2e/apiserver"
	"podnet.dev/e2e/wiretap"
)

// TestNoPacketLeaves has a laptop that may reach shop send everywhere else while all
// packets of the machine are kept: none of them goes there.
func TestNoPacketLeaves(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root hears what leaves the gateway")
	}
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "till"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.201.1", Ports: []corev1.ServicePort{{Port: 80}}}})
	port := int32(8080)
	s.create(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "pay", Name: "till", Labels: map[string]string{discoveryv1.LabelServiceName: "till", discoveryv1.LabelManagedBy: endpointsByController}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.201.9"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "pay", Name: "till-0"}}},
	})
	var node corev1.Node
	if err := s.admin.Get(t.Context(), client.ObjectKey{Name: "node1"}, &node); err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "203.0.113.201"}}
	if err := s.admin.Status().Update(t.Context(), &node); err != nil {
		t.Fatal(err)
	}
	g, _ := s.start("podnet-gateway-0")
	l, other := s.enrol("laptop", 300, "shop"), s.enrol("other", 300)
	l.connect(g, netip.MustParsePrefix("0.0.0.0/0"))

	tap, err := wiretap.Open()
	if err != nil {
		t.Fatal(err)
	}
	const needle, outside = "it is heard what leaves the gateway", "198.51.100.202:9"
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(needle)); err != nil {
		t.Fatal(err)
	}
	var direct net.Conn
	if direct, err = net.Dial("udp", outside); err != nil {
		t.Skip("nothing leaves this machine at all: ", err)
	}
	defer direct.Close()
	if _, err := direct.Write([]byte("from the machine itself")); err != nil {
		t.Skip("nothing leaves this machine at all: ", err)
	}

	targets := map[netip.Addr]string{}
	for addr, what := range map[string]string{
		"10.244.201.9": "a pod of pay", "10.96.201.1": "pay's Service", "10.96.0.1": "the API server's Service", "203.0.113.201": "a node",
		"169.254.169.254": "cloud metadata", other.peer.Status.Address4: "another peer", "198.51.100.201": "the internet",
	} {
		targets[netip.MustParseAddr(addr)] = what
	}
	ports := []uint16{22, 53, 80, 443, 2379, 6443, 8080, 8081, 9090, 10250, 10255, 30000, 51820, 51821}
	var all errgroup.Group
	all.SetLimit(32)
	for addr, what := range targets {
		for _, port := range ports {
			at := netip.AddrPortFrom(addr, port)
			all.Go(func() error {
				if u, err := l.stack.DialUDP(at); err == nil {
					_, _ = u.Write([]byte("anybody there?"))
					_ = u.Close()
				}
				if c, err := l.dial(at, 2*time.Second); err == nil {
					_ = c.Close()
					return fmt.Errorf("%s can be reached at %s", what, at)
				}
				return nil
			})
		}
	}
	for what, port := range map[string]int{"stream listener": g.streamPort(), "probes": g.HTTPAddr().(*net.TCPAddr).Port} {
		all.Go(func() error {
			if c, err := l.dial(netip.AddrPortFrom(loopback, uint16(port)), time.Second); err == nil {
				_ = c.Close()
				return fmt.Errorf("the gateway's %s can be reached at its loopback", what)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	left := func(to netip.Addr) (n int) {
		for _, p := range tap.Packets() {
			if len(p) >= 20 && p[0]>>4 == 4 && netip.AddrFrom4([4]byte(p[16:20])) == to {
				n++
			}
		}
		return n
	}
	apiserver.Eventually(t, 5*time.Second, "what may leave is heard", func() error {
		if wiretap.Holding(tap.Packets(), []byte(needle)) == 0 || left(netip.MustParseAddrPort(outside).Addr()) == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	for addr, what := range targets {
		if n := left(addr); n > 0 {
			t.Errorf("%d packets have left for %s at %s", n, what, addr)
		}
	}
	t.Logf("MEASURED [13] packets that left the gateway for %d places that the peer may not reach, %d ports each by TCP and UDP  0 of %d heard", len(targets), len(ports), len(tap.Packets()))
}

// TestSpoofedSource has one laptop send from another's tunnel address: nothing is
// forwarded, and all is counted.
func TestSpoofedSource(t *testing.T) {
	t.Parallel()
	s := setStage(t)
	e := s.ear()
	g, _ := s.start("podnet-gateway-0")
	ada, eve := s.enrol("ada", 300, "shop"), s.enrol("eve", 300, "shop")
	const hers, own = 7, 8
	for _, l := range []*laptop{ada, eve} {
		l.connect(g, netip.PrefixFrom(e.at.Addr(), 32))
	}
	say := func(from netip.Addr, number uint32) {
		t.Helper()
		c, err := eve.stack.DialUDPFrom(from, e.at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, number)); err != nil {
			t.Fatal(err)
		}
	}
	at, adas := netip.MustParseAddr(eve.peer.Status.Address4), netip.MustParseAddr(ada.peer.Status.Address4)
	apiserver.Eventually(t, 10*time.Second, "eve's packets arrive", func() error {
		say(at, own)
		if e.heard(own).IsZero() {
			return errors.New("none has")
		}
		return nil
	})
	if err := eve.stack.AddAddress(adas); err != nil {
		t.Fatal(err)
	}
	const tries = 100
	for range tries {
		say(adas, hers)
	}
	// What is sent behind them comes behind them.
	after := time.Now()
	apiserver.Eventually(t, 10*time.Second, "eve's packets arrive still", func() error {
		say(at, own)
		if !e.heard(own).After(after) {
			return errors.New("none does")
		}
		return nil
	})
	if !e.heard(hers).IsZero() {
		t.Error("a packet from another peer's address was forwarded")
	}
	text, err := fetch(g, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	counted := -1
	for line := range strings.Lines(text) {
		_, _ = fmt.Sscanf(line, spoofedPackets.name+" %d", &counted)
	}
	if counted != tries {
		t.Errorf("the gateway has counted %d of %d", counted, tries)
	}
	t.Logf("MEASURED [16] packets with another peer's inner source that were forwarded  0 of %d; counted %d", tries, counted)
}
