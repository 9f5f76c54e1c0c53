package namespaced

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway"
	"podnet.dev/gateway/ground"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/testport"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		// gVisor's clocks outlive a closed stack for a moment.
		goleak.IgnoreAnyFunction("internal/poll.runtime_pollWait"))
}

// names is a cluster's DNS server with what is told of it.
type names struct {
	mu      sync.Mutex
	records []string
	at      netip.AddrPort
}

func serveNames(t *testing.T) *names {
	n := &names{}
	packets, streams, err := testport.Both("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.at = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: dns.HandlerFunc(n.answer)}, {Listener: streams, Handler: dns.HandlerFunc(n.answer)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return n
}

func (n *names) set(records ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records = records
}

func (n *names) answer(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeNameError)
	for _, text := range n.records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	_ = w.WriteMsg(m)
}

// ownAddress is an address of this machine that policy does not always deny.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, _ := netip.AddrFromSlice(n.IP.To4()); ip.IsValid() && ip.IsGlobalUnicast() {
				return ip
			}
		}
	}
	t.Skip("this machine has no IPv4 address but loopback")
	return netip.Addr{}
}

// echoes serves an echo at an address.
func echoes(t *testing.T, at netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(at.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { _, _ = io.Copy(c, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return netip.AddrPortFrom(at, uint16(l.Addr().(*net.TCPAddr).Port))
}

// start runs a gateway of the namespace shop.
func start(t *testing.T, n *names, change func(*Options)) (*Gateway, func()) {
	t.Helper()
	o := Options{Options: gateway.Options{Namespace: "shop", Pod: "podnet-gateway-0", PodUID: "uid", DNSDomain: "cluster.test", ClusterDNS: []netip.AddrPort{n.at},
		PodIPs: []netip.Addr{netip.MustParseAddr("10.244.0.5")}, Log: slog.New(slog.DiscardHandler), WireGuardPort: -1, StreamPort: -1, HTTPPort: -1},
		DeskPort: -1, APIServer: netip.MustParseAddr("10.96.0.1")}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g, err := New(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("the gateway: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the gateway does not stop")
			}
		})
	}
	t.Cleanup(stop)
	return g, stop
}

// call makes a Call as a laptop would, over what is a port-forward elsewhere.
func call(t *testing.T, g *Gateway, c desk.Call) desk.Answer {
	t.Helper()
	conn, err := net.Dial("tcp", g.DeskAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var a desk.Answer
	if err := errors.Join(desk.Write(conn, c), desk.Read(conn, &a)); err != nil {
		t.Fatal(err)
	}
	return a
}

// machine is a laptop in this process.
type machine struct {
	t     *testing.T
	call  desk.Call
	key   key.Private
	stack *netstack.Stack
}

func join(t *testing.T, g *Gateway, name string) *machine {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, key: private, call: laptop(t, name)}
	m.call.Spec.PublicKey = private.Public().String()
	a := call(t, g, m.call)
	if a.Error != nil || !ready(a.Status) {
		t.Fatalf("%+v", a)
	}
	if m.stack, err = netstack.New(netstack.Config{}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{a.Status.Address4, a.Status.Address6} {
		if err := m.stack.AddAddress(netip.MustParseAddr(text)); err != nil {
			t.Fatal(err)
		}
	}
	tun, err := tunnel.New(m.stack.Device(), transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: private, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tun.Close(); _ = m.stack.Close() })
	public, err := key.ParsePublic(a.Status.Gateways[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), key.Prefix6}
	if err := tun.SetPeers([]tunnel.Peer{{PublicKey: public, Endpoint: fmt.Sprintf("127.0.0.1:%d", g.ground.Tunnel.ListenPort()), AllowedIPs: everything}}); err != nil {
		t.Fatal(err)
	}
	return m
}

// reach opens a connection through the tunnel and has a line come back.
func (m *machine) reach(to netip.AddrPort, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	c, err := m.stack.DialTCP(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

// resolver asks the gateway's DNS through the tunnel.
func (m *machine) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		at := netip.AddrPortFrom(ground.Service4, 53)
		if strings.HasPrefix(network, "udp") {
			return m.stack.DialUDP(at)
		}
		return m.stack.DialTCP(ctx, at)
	}}
}

func reverseOf(t *testing.T, a netip.Addr) string {
	t.Helper()
	name, err := dns.ReverseAddr(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// shop is what the cluster's DNS server knows: a Service of shop at a, one of pay.
func shop(t *testing.T, a netip.Addr) []string {
	return []string{
		"web.shop.svc.cluster.test. 5 IN A " + a.String(),
		"_http._tcp.web.shop.svc.cluster.test. 5 IN SRV 0 100 80 web.shop.svc.cluster.test.",
		reverseOf(t, a) + " 5 IN PTR web.shop.svc.cluster.test.",
		"till.pay.svc.cluster.test. 5 IN A 10.77.0.9",
		"9.0.77.10.in-addr.arpa. 5 IN PTR till.pay.svc.cluster.test.",
	}
}

func TestOneNamespaceAndNothingElse(t *testing.T) {
	n := serveNames(t)
	at := echoes(t, ownAddress(t))
	n.set(shop(t, at.Addr())...)
	g, _ := start(t, n, nil)
	m := join(t, g, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	names := m.resolver()
	if got, err := names.LookupHost(ctx, "web.shop.svc.cluster.test"); err != nil || !slices.Equal(got, []string{at.Addr().String()}) {
		t.Fatalf("web.shop is %v (%v)", got, err)
	}
	// Whose the address is was found out before the answer came.
	if belongs, known := g.claims.Belongs(netip.MustParseAddr("198.18.0.2"), at.Addr()); !belongs || !known {
		t.Error("the name is known before its address is")
	}
	if err := m.reach(at, 5*time.Second); err != nil {
		t.Errorf("web.shop: %v", err)
	}
	if _, srv, err := names.LookupSRV(ctx, "http", "tcp", "web.shop.svc.cluster.test"); err != nil || len(srv) != 1 || srv[0].Port != 80 {
		t.Errorf("SRV: %v (%v)", srv, err)
	}
	if got, err := names.LookupAddr(ctx, at.Addr().String()); err != nil || !slices.Equal(got, []string{"web.shop.svc.cluster.test."}) {
		t.Errorf("PTR: %v (%v)", got, err)
	}
	for _, name := range []string{"till.pay.svc.cluster.test.", "kubernetes.default.svc.cluster.test.", "nothing.shop.svc.cluster.test."} {
		var none *net.DNSError
		if got, err := names.LookupHost(ctx, name); !errors.As(err, &none) || !none.IsNotFound {
			t.Errorf("%s is %v (%v)", name, got, err)
		}
	}
	if got, err := names.LookupAddr(ctx, "10.77.0.9"); err == nil {
		t.Errorf("a name of another namespace is told: %v", got)
	}
	if _, err := names.LookupHost(ctx, "example.org."); err == nil {
		t.Error("the internet's names are answered")
	}
	// The second time it is known whose they are, and the answer is no at once.
	for what, to := range map[string]netip.AddrPort{
		"another namespace's": netip.MustParseAddrPort("10.77.0.9:80"), "nobody's": netip.MustParseAddrPort("10.77.0.10:80"), "a node's kubelet": netip.AddrPortFrom(at.Addr(), 10250),
	} {
		_ = m.reach(to, 100*time.Millisecond)
		settled, cancel := context.WithTimeout(ctx, 5*time.Second)
		g.claims.Settle(settled, netip.MustParseAddr("198.18.0.2"), []netip.Addr{to.Addr()})
		cancel()
		began := time.Now()
		if err := m.reach(to, 5*time.Second); err == nil || time.Since(began) > 4*time.Second {
			t.Errorf("%s: %v after %v", what, err, time.Since(began))
		}
	}
}

func TestAddressWithoutItsName(t *testing.T) {
	n := serveNames(t)
	at := echoes(t, ownAddress(t))
	n.set(shop(t, at.Addr())...)
	g, _ := start(t, n, nil)
	m := join(t, g, "a")
	if err := m.reach(at, 10*time.Second); err != nil { // its first packet has it asked for
		t.Errorf("by the address alone: %v", err)
	}
}

func TestAddressThatPassesOn(t *testing.T) {
	n := serveNames(t)
	at := echoes(t, ownAddress(t))
	n.set(shop(t, at.Addr())...)
	g, _ := start(t, n, nil)
	m := join(t, g, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := m.resolver().LookupHost(ctx, "web.shop.svc.cluster.test"); err != nil {
		t.Fatal(err)
	}
	c, err := m.stack.DialTCP(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.set(reverseOf(t, at.Addr())+" 5 IN PTR web.pay.svc.cluster.test.", "web.pay.svc.cluster.test. 5 IN A "+at.Addr().String())
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the flow goes on to another namespace: %v", err)
	}
}

func TestWhoLeavesIsCut(t *testing.T) {
	n := serveNames(t)
	at := echoes(t, ownAddress(t))
	n.set(shop(t, at.Addr())...)
	g, _ := start(t, n, nil)
	m, other := join(t, g, "a"), join(t, g, "b")
	for _, l := range []*machine{m, other} {
		if err := l.reach(at, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := m.stack.DialTCP(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	gone := m.call
	gone.Verb, gone.Spec = desk.Delete, nil
	if a := call(t, g, gone); a.Error != nil {
		t.Fatal(a.Error)
	}
	if err := m.reach(at, 2*time.Second); err == nil {
		t.Error("who has left reaches the namespace")
	}
	if err := other.reach(at, 5*time.Second); err != nil {
		t.Errorf("who has stayed does not: %v", err)
	}
}

func TestBadCalls(t *testing.T) {
	g, _ := start(t, serveNames(t), nil)
	for name, text := range map[string]string{"nonsense": "\x00\x00\x00\x03xyz", "too long": "\xff\xff\xff\xff", "HTTP": "GET / HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("tcp", g.DeskAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, text)
		var a desk.Answer
		if err := desk.Read(c, &a); err != nil || a.Error == nil || a.Error.Code != desk.CodeInvalid {
			t.Errorf("%s: %+v (%v)", name, a, err)
		}
		_ = c.Close()
	}
	old := laptop(t, "a")
	old.Version = "desk/v0"
	if a := call(t, g, old); a.Error == nil || a.Error.Code != desk.CodeVersion {
		t.Errorf("%+v", a)
	}
	beside := laptop(t, "a")
	beside.Spec.AlsoRoutes = []string{"10.20.0.0/16"}
	if a := call(t, g, beside); a.Error == nil || a.Error.Code != desk.CodeInvalid {
		t.Errorf("%+v", a)
	}
	// Nobody who says nothing keeps the others out.
	var silent []net.Conn
	for range atOnce / 2 {
		c, err := net.Dial("tcp", g.DeskAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	if a := call(t, g, laptop(t, "a")); a.Error != nil {
		t.Errorf("%+v", a)
	}
	for _, c := range silent {
		_ = c.Close()
	}
}

func TestWhatLaptopsAreTold(t *testing.T) {
	g, stop := start(t, serveNames(t), func(o *Options) {
		o.HostIPs, o.NodePort, o.Advertise = []netip.Addr{netip.MustParseAddr("172.18.0.2")}, 31820, []string{"203.0.113.7:51820"}
		o.ServiceCIDRs = []string{"10.96.0.0/16"}
	})
	a := call(t, g, laptop(t, "a"))
	if a.Error != nil {
		t.Fatal(a.Error)
	}
	s := a.Status
	if e := s.Gateways[0]; e.Pod != "podnet-gateway-0" || !slices.Equal(e.Endpoints, []string{"203.0.113.7:51820", "172.18.0.2:31820"}) || int(e.StreamPort) != ground.Port(g.streams[0]) {
		t.Errorf("%+v", e)
	}
	want := podnet.Network{PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"}, DNSDomain: "cluster.test"}
	if w := s.Network; !slices.Equal(w.PodCIDRs, want.PodCIDRs) || !slices.Equal(w.ServiceCIDRs, want.ServiceCIDRs) || w.DNSDomain != want.DNSDomain {
		t.Errorf("%+v", w)
	}
	r, err := http.Get("http://127.0.0.1:" + fmt.Sprint(ground.Port(g.http)) + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK || !strings.Contains(string(text), "namespace mode: shop") {
		t.Errorf("%s: %s", r.Status, text)
	}
	stop()
	for name, spoil := range map[string]func(*Options){
		"no namespace": func(o *Options) { o.Namespace = "" },
		"advertised":   func(o *Options) { o.Advertise = []string{"here"} },
		"pods":         func(o *Options) { o.PodCIDRs = []string{"0.0.0.0/0"} },
		"Services":     func(o *Options) { o.ServiceCIDRs = []string{"10.96.0.1/16"} },
		"no DNS":       func(o *Options) { o.ClusterDNS = []netip.AddrPort{} },
	} {
		o := g.o
		spoil(&o)
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
