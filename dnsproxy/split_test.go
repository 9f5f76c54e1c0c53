package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/internal/testport"
)

// book answers from lines of a zone file and remembers the questions. A name
// without a line is NXDOMAIN; a name with lines of other types is NODATA.
type book struct {
	mu    sync.Mutex
	lines []string
	down  bool
	asked []string
}

func (b *book) Exchange(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	question := q.Question[0]
	b.asked = append(b.asked, question.Name+" "+dns.TypeToString[question.Qtype])
	if b.down {
		return nil, errors.New("down")
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.Rcode = dns.RcodeNameError
	name := question.Name
	for range 3 {
		next := ""
		for _, line := range b.lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				panic(err)
			}
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			m.Rcode = dns.RcodeSuccess
			if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
			}
			if rr.Header().Rrtype == question.Qtype || next != "" {
				m.Answer = append(m.Answer, rr)
			}
		}
		if name = next; next == "" {
			break
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{SOA("cluster.local.", "cluster.local.", 1, 5)}
	}
	return m, nil
}

func (b *book) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.asked
	b.asked = nil
	return out
}

// listenBoth finds a port that is free for UDP and for TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	pc, ln, err := testport.Both("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return pc, ln
}

// serveOn runs a server for h on loopback until the test ends.
func serveOn(t testing.TB, h Handler, opts Options) (netip.AddrPort, *Server) {
	t.Helper()
	pc, ln := listenBoth(t)
	s := NewServer(h, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.PacketConn{pc}, []net.Listener{ln}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().(*net.TCPAddr).AddrPort(), s
}

// asHandler lets an Exchanger answer for a server.
func asHandler(x Exchanger) Handler {
	return HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		m, err := x.Exchange(ctx, r.Msg)
		if err != nil {
			return nil
		}
		return m
	})
}

type world struct {
	cluster, base *book
	split         *Split
}

func newWorld(t *testing.T) *world {
	w := &world{
		cluster: &book{lines: []string{
			"web.cart.svc.cluster.local. 5 A 10.96.0.20",
			"_http._tcp.web.cart.svc.cluster.local. 5 SRV 0 1 80 web.cart.svc.cluster.local.",
			"api.dev.svc.cluster.local. 5 A 10.96.0.30",
			"six.cart.svc.cluster.local. 5 A 10.96.0.31", "six.cart.svc.cluster.local. 5 AAAA fd00::31",
			"ext.cart.svc.cluster.local. 5 CNAME example.com.", "example.com. 5 A 192.0.2.80", "example.com. 5 AAAA 2001:db8::80",
			"evil.cart.svc.cluster.local. 5 A 127.0.0.1", "evil.cart.svc.cluster.local. 5 A 10.96.0.66", "evil.cart.svc.cluster.local. 5 A 169.254.169.254",
			"evil.cart.svc.cluster.local. 5 A 0.0.0.0", "evil.cart.svc.cluster.local. 5 A 192.168.1.1",
			"rebind.cart.svc.cluster.local. 5 CNAME lo.example.com.", "lo.example.com. 5 A 127.0.0.1",
			"app.cart.svc.cluster.local. 5 A 10.244.0.9", "app-0.app.cart.svc.cluster.local. 5 A 10.244.0.9",
			"20.0.96.10.in-addr.arpa. 5 PTR web.cart.svc.cluster.local.",
		}},
		base: &book{lines: []string{"example.com. 300 A 192.0.2.99", "go.dev. 300 A 192.0.2.98", "nas. 300 A 192.0.2.97", "web.cart. 300 A 192.0.2.96"}},
	}
	addr, _ := serveOn(t, asHandler(w.base), Options{})
	w.split = NewSplit(SplitConfig{
		Namespace: "cart", Namespaces: []string{"cart", "dev"}, Cluster: w.cluster, Base: []netip.AddrPort{addr},
		ReverseZones: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Forbid:       func(a netip.Addr) bool { return a == netip.MustParseAddr("192.168.1.1") },
	})
	t.Cleanup(func() { w.split.Close() })
	return w
}

func (w *world) ask(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	return w.split.ServeDNS(context.Background(), &Request{Msg: q})
}

// TestGivenAddresses: what the cluster's answers give out somebody hears of before the
// program that asked; what others say is none of that, and neither is a name that
// spells an address.
func TestGivenAddresses(t *testing.T) {
	w := newWorld(t)
	var got []string
	w.split.cfg.Given = func(all iter.Seq[netip.Addr]) {
		for a := range all {
			got = append(got, a.String())
		}
	}
	w.cluster.lines = append(w.cluster.lines, "10-244-0-9.cart.pod.cluster.local. 5 A 10.244.0.9",
		"hints.cart.svc.cluster.local. 5 HTTPS 1 . alpn=h2 ipv4hint=10.96.0.40")
	w.base.lines = append(w.base.lines, "attacker.example. 300 A 10.96.0.20")
	for question, want := range map[string]string{
		"web.cart.svc.cluster.local. A":              "10.96.0.20",
		"web. A":                                     "10.96.0.20",
		"web.cart. A":                                "10.96.0.20", // remembered, and given out once more
		"app.cart. A":                                "10.244.0.9",
		"ext.cart. A":                                "192.0.2.80",
		"evil.cart. A":                               "10.96.0.66",
		"six.cart. AAAA":                             "", // that family is not routed
		"hints.cart.svc.cluster.local. HTTPS":        "10.96.0.40",
		"10-244-0-9.cart.pod. A":                     "",
		"10-244-0-9.cart.pod.cluster.local. A":       "",
		"attacker.example. A":                        "",
		"20.0.96.10.in-addr.arpa. PTR":               "",
		"_http._tcp.web.cart.svc.cluster.local. SRV": "",
		"nope.cart. A":                               "",
	} {
		got = nil
		name, kind, _ := strings.Cut(question, " ")
		w.ask(name, dns.StringToType[kind])
		if given := strings.Join(got, " "); given != want {
			t.Errorf("%s gives out %q, want %q", question, given, want)
		}
	}
}

func lines(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		f := strings.Fields(rr.String())
		out = append(out, f[0]+" "+strings.Join(f[3:], " "))
	}
	slices.Sort(out)
	return out
}

func TestSplit(t *testing.T) {
	one := func(s ...string) []string { return s }
	for _, tt := range []struct {
		what          string
		name          string
		qtype         uint16
		rcode         int
		answer        []string
		cluster, base []string
	}{
		{"a full name", "web.cart.svc.cluster.local.", dns.TypeA, 0, one("web.cart.svc.cluster.local. A 10.96.0.20"),
			one("web.cart.svc.cluster.local. A"), nil},
		{"a short name keeps its owner", "web.cart.", dns.TypeA, 0, one("web.cart. A 10.96.0.20"), one("web.cart.svc.cluster.local. A"), nil},
		{"letters' case", "Web.Cart.SVC.", dns.TypeA, 0, one("Web.Cart.SVC. A 10.96.0.20"), one("web.cart.svc.cluster.local. A"), nil},
		{"one label", "web.", dns.TypeA, 0, one("web. A 10.96.0.20"), one("web.cart.svc.cluster.local. A"), nil},
		{"one label of the network's", "nas.", dns.TypeA, 0, one("nas. A 192.0.2.97"), one("nas.cart.svc.cluster.local. A"), one("nas. A")},
		{"a missing family is an answer", "web.", dns.TypeAAAA, 0, nil, one("web.cart.svc.cluster.local. AAAA"), nil},
		{"SRV", "_http._tcp.web.cart.svc.", dns.TypeSRV, 0, one("_http._tcp.web.cart.svc. SRV 0 1 80 web.cart.svc.cluster.local."),
			one("_http._tcp.web.cart.svc.cluster.local. SRV"), nil},
		{"CNAME keeps the first owner", "ext.cart.", dns.TypeA, 0, one("example.com. A 192.0.2.80", "ext.cart. CNAME example.com."),
			one("ext.cart.svc.cluster.local. A"), nil},
		{"a family that is not routed, outside the zone", "ext.cart.", dns.TypeAAAA, 0, one("example.com. AAAA 2001:db8::80", "ext.cart. CNAME example.com."),
			one("ext.cart.svc.cluster.local. AAAA"), nil},
		{"a family that is not routed", "six.cart.", dns.TypeAAAA, 0, nil, one("six.cart.svc.cluster.local. AAAA"), nil},
		{"reverse", "20.0.96.10.in-addr.arpa.", dns.TypePTR, 0, one("20.0.96.10.in-addr.arpa. PTR web.cart.svc.cluster.local."),
			one("20.0.96.10.in-addr.arpa. PTR"), nil},
		{"reverse of others", "1.2.0.192.in-addr.arpa.", dns.TypePTR, 3, nil, nil, one("1.2.0.192.in-addr.arpa. PTR")},
		{"unknown in the cluster, no leak", "nope.cart.", dns.TypeA, 3, nil, one("nope.cart.svc.cluster.local. A"), nil},
		{"hidden namespace, no leak", "ledger.pay.svc.", dns.TypeA, 3, nil, nil, nil},
		{"namespace that is a top-level domain", "api.dev.", dns.TypeA, 0, one("api.dev. A 10.96.0.30"), one("api.dev.svc.cluster.local. A"), nil},
		{"and the public's name in it", "go.dev.", dns.TypeA, 0, one("go.dev. A 192.0.2.98"), one("go.dev.svc.cluster.local. A"), one("go.dev. A")},
		{"the internet", "example.com.", dns.TypeA, 0, one("example.com. A 192.0.2.99"), nil, one("example.com. A")},
		{"forbidden addresses", "evil.cart.", dns.TypeA, 0, one("evil.cart. A 10.96.0.66"), one("evil.cart.svc.cluster.local. A"), nil},
		{"rebinding through a CNAME", "rebind.cart.", dns.TypeA, 0, one("rebind.cart. CNAME lo.example.com."), one("rebind.cart.svc.cluster.local. A"), nil},
		{"a public name that a search list has completed", "nope.example.com.cart.svc.cluster.local.", dns.TypeA, 3, nil, one("com.cart.svc.cluster.local. A"), nil},
		{"and by svc", "nope.example.com.svc.cluster.local.", dns.TypeA, 3, nil, one("com.svc.cluster.local. A"), nil},
		{"and by the zone", "nope.example.com.cluster.local.", dns.TypeA, 3, nil, one("com.cluster.local. A"), nil},
		{"a member of a Service with a public name", "app-0.app.cart.svc.cluster.local.", dns.TypeA, 0, one("app-0.app.cart.svc.cluster.local. A 10.244.0.9"),
			one("app.cart.svc.cluster.local. A", "app-0.app.cart.svc.cluster.local. A"), nil},
		{"this machine", "localhost.", dns.TypeA, 0, one("localhost. A 127.0.0.1"), nil, nil},
		{"this machine, IPv6", "app.localhost.", dns.TypeAAAA, 0, one("app.localhost. AAAA ::1"), nil, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			m := w.ask(tt.name, tt.qtype)
			if m.Rcode != tt.rcode {
				t.Errorf("rcode %s", dns.RcodeToString[m.Rcode])
			}
			if got := lines(m.Answer); !slices.Equal(got, tt.answer) {
				t.Errorf("answer %q, want %q", got, tt.answer)
			}
			if c, b := w.cluster.take(), w.base.take(); !slices.Equal(c, tt.cluster) || !slices.Equal(b, tt.base) {
				t.Errorf("cluster saw %q, base %q; want %q, %q", c, b, tt.cluster, tt.base)
			}
		})
	}
}

func TestDeadTunnelDoesNotLeak(t *testing.T) {
	w := newWorld(t)
	w.cluster.down = true
	for _, name := range []string{"web.", "web.cart.", "api.dev.", "web.cart.svc.cluster.local."} {
		if m := w.ask(name, dns.TypeA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v", name, m)
		}
	}
	if b := w.base.take(); len(b) > 0 {
		t.Errorf("base saw %q", b)
	}
}

func TestSwitchNamespaceLive(t *testing.T) {
	w := newWorld(t)
	w.ask("web.", dns.TypeA)
	w.split.SetNamespaces("dev", []string{"dev"})
	w.cluster.take()
	if m := w.ask("api.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("api: %v", m)
	}
	if m := w.ask("web.", dns.TypeA); len(m.Answer) != 0 {
		t.Errorf("web is still of the old namespace: %v", m)
	}
	// A namespace that is no longer seen is nobody's short form.
	w.base.take()
	if m := w.ask("web.cart.", dns.TypeA); len(m.Answer) != 1 || !slices.Equal(w.base.take(), []string{"web.cart. A"}) {
		t.Errorf("web.cart: %v", m)
	}
}

func TestChangeBaseLive(t *testing.T) {
	w := newWorld(t)
	w.ask("example.com.", dns.TypeA)
	other := &book{lines: []string{"example.com. 300 A 192.0.2.1"}}
	addr, _ := serveOn(t, asHandler(other), Options{})
	w.split.SetBase([]netip.AddrPort{addr})
	if got := lines(w.ask("example.com.", dns.TypeA).Answer); !slices.Equal(got, []string{"example.com. A 192.0.2.1"}) {
		t.Errorf("answer %q", got)
	}
	w.split.SetBase(nil)
	if m := w.ask("example.com.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("nobody to ask: %v", m)
	}
}

// Nobody else to ask: then the cluster's word is the last one, at once.
func TestNoBaseResolver(t *testing.T) {
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := free.LocalAddr().(*net.UDPAddr).AddrPort()
	free.Close()
	for what, base := range map[string][]netip.AddrPort{"none known": nil, "none there": {gone}} {
		w := newWorld(t)
		w.split.SetBase(base)
		begin := time.Now()
		for name, rcode := range map[string]int{"nope.": dns.RcodeNameError, "nope.dev.": dns.RcodeNameError, "example.com.": dns.RcodeServerFailure} {
			if m := w.ask(name, dns.TypeA); m.Rcode != rcode {
				t.Errorf("%s, %s: %v", what, name, m)
			}
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: took %v", what, d)
		}
	}
}

// The proxy knows its own question when it comes back, and nobody else is asked.
func TestCheckOfTheWayHere(t *testing.T) {
	w := newWorld(t)
	name, want := w.split.Check("cluster.local")
	again, other := w.split.Check("cluster.local")
	if name == again {
		t.Errorf("twice %s", name)
	}
	m := w.ask(strings.ToUpper(again), dns.TypeA)
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != other.String() || m.Answer[0].Header().Ttl != 0 {
		t.Errorf("%s: %v, want %s", again, m, other)
	}
	if m := w.ask(again, dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Errorf("%s AAAA: %v", again, m)
	}
	if c, b := w.cluster.take(), w.base.take(); len(c)+len(b) > 0 {
		t.Errorf("cluster saw %q, base %q", c, b)
	}
	if m := w.ask(name, dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("an old one, for %s: %v", want, m)
	}
}

// A name server on this machine that takes its upstreams from resolv.conf asks
// us what we ask it, and so does a kind cluster's: no question goes round.
func TestBaseThatLeadsBack(t *testing.T) {
	w := newWorld(t)
	here, _ := serveOn(t, w.split, Options{})
	back := NewForwarder(ForwarderConfig{Servers: []netip.AddrPort{here}})
	defer back.Close()
	var mu sync.Mutex
	came := 0
	local, _ := serveOn(t, HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		mu.Lock()
		came++
		mu.Unlock()
		m, err := back.Exchange(ctx, r.Msg)
		if err != nil {
			return nil
		}
		return m
	}), Options{})
	good := w.split.base.Load().forward.cfg.Servers
	w.split.SetBase(append([]netip.AddrPort{local}, good...))
	if got := lines(w.ask("example.com.", dns.TypeA).Answer); !slices.Equal(got, []string{"example.com. A 192.0.2.99"}) {
		t.Errorf("answer %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if came > 2 {
		t.Errorf("%d questions went round", came)
	}
}

// The cluster's DNS server may ask us in its turn, as that of a kind cluster on
// this machine does for names that are not in its zone: nothing goes round.
func TestClusterThatLeadsBack(t *testing.T) {
	w := newWorld(t)
	here, _ := serveOn(t, w.split, Options{})
	back := NewForwarder(ForwarderConfig{Servers: []netip.AddrPort{here}})
	defer back.Close()
	var came atomic.Int32
	kind, _ := serveOn(t, HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		came.Add(1)
		q := Query(r.Msg, "loop.cart.") // an ExternalName Service that is called loop
		m, err := back.Exchange(ctx, q)
		if err != nil {
			return nil
		}
		return m
	}), Options{})
	cluster := NewForwarder(ForwarderConfig{Servers: []netip.AddrPort{kind}, Timeout: 200 * time.Millisecond})
	defer cluster.Close()
	w.split.cluster = NewCache(cluster) // whom kind leads back to
	q := new(dns.Msg)
	q.SetQuestion("loop.cart.", dns.TypeA)
	if m := w.split.ServeDNS(t.Context(), &Request{Msg: q}); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("answer %v", m)
	}
	if n := came.Load(); n > 2 {
		t.Errorf("%d questions went round", n)
	}
}

// A server may send as many aliases as a message holds, the last one first.
func TestChainOfAThousandAliases(t *testing.T) {
	var rrs []dns.RR
	name := func(i int) string { return fmt.Sprintf("n%d.shop.svc.cluster.local.", i) }
	for i := 999; i >= 0; i-- {
		rrs = append(rrs, &dns.CNAME{Hdr: dns.RR_Header{Name: strings.ToUpper(name(i)), Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: name(i + 1)})
	}
	if chain := chainFrom(rrs, name(500)); len(chain) != 501 || !chain[name(1000)] || chain[name(499)] {
		t.Errorf("%d names", len(chain))
	}
	if chain := chainFrom(rrs, "other."); len(chain) != 1 {
		t.Errorf("%v", chain)
	}
}
