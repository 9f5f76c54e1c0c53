package dnsproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// scripted is a server whose UDP answers the test writes byte by byte.
func scripted(t *testing.T, udp func(q *dns.Msg, reply func(*dns.Msg))) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(b[:n]) != nil {
				continue
			}
			udp(q, func(m *dns.Msg) {
				out, _ := m.Pack()
				pc.WriteTo(out, from)
			})
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func forwarder(t *testing.T, cfg ForwarderConfig) *Forwarder {
	f := NewForwarder(cfg)
	t.Cleanup(func() { f.Close() })
	return f
}

func query(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	return q
}

// dials counts the connections by network.
type dials struct {
	mu    sync.Mutex
	count map[string]int
	ports map[string]bool
}

func (d *dials) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.count == nil {
		d.count, d.ports = map[string]int{}, map[string]bool{}
	}
	d.count[network]++
	if err == nil {
		d.ports[c.LocalAddr().String()] = true
	}
	return c, err
}

func TestForwardFollowsTruncationOverOneConnection(t *testing.T) {
	addr, _ := serveOn(t, many(500), Options{})
	var d dials
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{addr}, Dial: d.dial})
	for range 5 {
		m, err := f.Exchange(context.Background(), query("big.example.", dns.TypeA))
		if err != nil || len(m.Answer) != 500 || m.Truncated {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if d.count["tcp"] != 1 || d.count["udp"] != 1 {
		t.Errorf("dialled %v", d.count)
	}
}

// A and AAAA at the same time from one port meet kube-proxy's conntrack race.
func TestForwardUsesOwnPortForEachQuestionInFlight(t *testing.T) {
	const n = 20
	var ready sync.WaitGroup
	ready.Add(n)
	addr, _ := serveOn(t, HandlerFunc(func(context.Context, *Request) *dns.Msg {
		ready.Done()
		ready.Wait() // all are in flight now
		return new(dns.Msg)
	}), Options{})
	var d dials
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{addr}, Dial: d.dial})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := f.Exchange(context.Background(), query("web.cart.", dns.TypeA)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(d.ports) != n {
		t.Errorf("%d ports for %d questions", len(d.ports), n)
	}
}

func TestForwardSkipsForgeries(t *testing.T) {
	addr := scripted(t, func(q *dns.Msg, reply func(*dns.Msg)) {
		wrong := new(dns.Msg)
		wrong.SetReply(q)
		wrong.Id++
		reply(wrong)
		wrong.Id--
		wrong.Question = []dns.Question{{Name: "other.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		reply(wrong)
		reply(q) // not even an answer
		right := new(dns.Msg)
		right.SetReply(q)
		right.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(10, 0, 0, 1)}}
		reply(right)
	})
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{addr}})
	q := query("web.cart.", dns.TypeA)
	m, err := f.Exchange(context.Background(), q)
	if err != nil || len(m.Answer) != 1 || m.Id != q.Id {
		t.Errorf("%v, %v", m, err)
	}
}

func TestForwardPassesOverBadServers(t *testing.T) {
	silent := scripted(t, func(*dns.Msg, func(*dns.Msg)) {})
	failing, _ := serveOn(t, HandlerFunc(func(context.Context, *Request) *dns.Msg { return nil }), Options{})
	good, _ := serveOn(t, many(1), Options{})
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{silent, failing, good}, Timeout: 100 * time.Millisecond})
	begin := time.Now()
	for i := range 5 {
		m, err := f.Exchange(context.Background(), query("web.cart.", dns.TypeA))
		if err != nil || len(m.Answer) != 1 {
			t.Fatalf("question %d: %v, %v", i, m, err)
		}
	}
	if d := time.Since(begin); d > 480*time.Millisecond {
		t.Errorf("5 questions took %v: the silent server was asked more than once", d)
	}
	all := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{failing}})
	if m, err := all.Exchange(context.Background(), query("web.cart.", dns.TypeA)); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("all servers fail: %v, %v", m, err)
	}
}

func TestForwardGivesUp(t *testing.T) {
	silent := scripted(t, func(*dns.Msg, func(*dns.Msg)) {})
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{silent}, Timeout: 50 * time.Millisecond})
	begin := time.Now()
	if _, err := f.Exchange(context.Background(), query("web.cart.", dns.TypeA)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), silent.String()) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(begin); d < 90*time.Millisecond || d > time.Second {
		t.Errorf("took %v, want two tries", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	slow := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{silent}})
	begin = time.Now()
	if _, err := slow.Exchange(ctx, query("web.cart.", dns.TypeA)); err == nil || time.Since(begin) > time.Second {
		t.Errorf("cancelled: %v after %v", err, time.Since(begin))
	}
	if _, err := NewForwarder(ForwarderConfig{}).Exchange(context.Background(), query("web.cart.", dns.TypeA)); !errors.Is(err, ErrNoServers) {
		t.Errorf("nobody to ask: %v", err)
	}
}

// A server that restarts closes the kept connection; nobody notices.
// TestForwardLeavesServerThatIsGone has a server behind an address that goes without a
// word, as a pod behind a Service does, and another in its place.
func TestForwardLeavesServerThatIsGone(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			var mu sync.Mutex
			gone := map[net.Conn]bool{} // connections to the first server
			moved := false
			dial := func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				mu.Lock()
				gone[far] = !moved
				mu.Unlock()
				go func() {
					c := &pooled{Conn: far, stream: network == "tcp"}
					for {
						b, err := c.receive()
						if err != nil {
							return
						}
						mu.Lock()
						silent := moved && gone[far]
						mu.Unlock()
						q := new(dns.Msg)
						if silent || q.Unpack(b) != nil {
							continue
						}
						out, _ := new(dns.Msg).SetReply(q).Pack()
						_ = c.send(out)
					}
				}()
				t.Cleanup(func() { far.Close() })
				return near, nil
			}
			f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Dial: dial, StreamsOnly: network == "tcp"})
			var many sync.WaitGroup
			for range 8 { // connections that will be kept
				many.Go(func() {
					if _, err := f.Exchange(t.Context(), query("a.", dns.TypeA)); err != nil {
						t.Error(err)
					}
				})
			}
			many.Wait()
			mu.Lock()
			moved = true
			mu.Unlock()
			// One try's time is enough, however many had been kept.
			ctx, cancel := context.WithTimeout(t.Context(), TryTimeout)
			defer cancel()
			if _, err := f.Exchange(ctx, query("b.", dns.TypeA)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestForwardSurvivesServerRestart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	f := forwarder(t, ForwarderConfig{Servers: []netip.AddrPort{addr}, StreamsOnly: true})
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- NewServer(many(1), Options{}).Serve(ctx, nil, []net.Listener{ln}) }()
		if m, err := f.Exchange(context.Background(), query("web.cart.", dns.TypeA)); err != nil || len(m.Answer) != 1 {
			t.Errorf("%v, %v", m, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if ln, err = net.Listen("tcp", addr.String()); err != nil {
			t.Fatal(err)
		}
	}
	ln.Close()
}
