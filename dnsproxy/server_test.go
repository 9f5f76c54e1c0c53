package dnsproxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// many answers every A question with n addresses.
func many(n int) Handler {
	return HandlerFunc(func(_ context.Context, r *Request) *dns.Msg {
		m := new(dns.Msg)
		for i := range n {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: r.Name(), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5},
				A:   net.IPv4(10, 244, byte(i>>8), byte(i)),
			})
		}
		m.Extra = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "glue.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 200)}}}
		return m
	})
}

func exchange(t testing.TB, network string, addr netip.AddrPort, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 3 * time.Second, UDPSize: 4096}
	m, _, err := c.Exchange(q, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTruncation(t *testing.T) {
	for _, tt := range []struct {
		what    string
		records int
		size    uint16 // EDNS; 0: without
		network string
		tc      bool
		glue    bool
	}{
		{"small", 1, 0, "udp", false, true},
		{"glue goes before TC is set", 20, 0, "udp", false, false},
		{"too large for 512", 60, 0, "udp", true, false},
		{"fits with EDNS", 60, 1232, "udp", false, true},
		{"a large offer is not taken", 200, 4096, "udp", true, false},
		{"an offer below 512 counts as 512", 20, 100, "udp", false, false},
		{"TCP takes all", 1000, 0, "tcp", false, true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			addr, _ := serveOn(t, many(tt.records), Options{})
			q := new(dns.Msg)
			q.SetQuestion("big.example.", dns.TypeA)
			if tt.size > 0 {
				q.SetEdns0(tt.size, true)
			}
			m := exchange(t, tt.network, addr, q)
			m.Compress = true
			limit := int(max(min(tt.size, UDPSize), 512))
			if tt.network == "udp" && m.Len() > limit {
				t.Errorf("%d bytes, limit %d", m.Len(), limit)
			}
			if m.Truncated != tt.tc || (!tt.tc && len(m.Answer) != tt.records) {
				t.Errorf("TC %v with %d records", m.Truncated, len(m.Answer))
			}
			opt := m.IsEdns0()
			if (opt != nil) != (tt.size > 0) || opt != nil && (opt.UDPSize() != UDPSize || !opt.Do()) {
				t.Errorf("OPT %v", opt)
			}
			glue := false
			for _, rr := range m.Extra {
				glue = glue || rr.Header().Rrtype == dns.TypeTXT
			}
			if glue != tt.glue {
				t.Errorf("glue %v", glue)
			}
		})
	}
}

func TestQuestionsThatNoHandlerSees(t *testing.T) {
	addr, s := serveOn(t, HandlerFunc(func(_ context.Context, r *Request) *dns.Msg {
		t.Errorf("handler saw %v", r.Msg)
		return nil
	}), Options{})
	question := func(change func(*dns.Msg)) *dns.Msg {
		q := new(dns.Msg)
		q.SetQuestion("web.cart.", dns.TypeA)
		change(q)
		return q
	}
	for _, tt := range []struct {
		what  string
		q     *dns.Msg
		rcode int
	}{
		{"EDNS version 1", question(func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"class CHAOS", question(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"class ANY", question(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"zone transfer", question(func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"notify", question(func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"update", question(func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"two questions", question(func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }), dns.RcodeFormatError},
		{"no question", question(func(q *dns.Msg) { q.Question = nil }), dns.RcodeFormatError},
		{"two OPT", question(func(q *dns.Msg) { q.SetEdns0(1232, false); q.SetEdns0(1232, false) }), dns.RcodeFormatError},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if m := exchange(t, network, addr, tt.q); m.Rcode != tt.rcode || m.Id != tt.q.Id || !m.Response {
				t.Errorf("%s over %s: %v", tt.what, network, m)
			}
		}
	}

	// Answers, and what is no message at all, get no word.
	conn, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, _ := question(func(q *dns.Msg) { q.Response = true }).Pack()
	for _, b := range [][]byte{answer, {}, {0}, bytes.Repeat([]byte{0xff}, 11)} {
		conn.Write(b)
	}
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 512)); err == nil {
		t.Errorf("got %d bytes", n)
	}
	if st := s.Stats(); st.Malformed < 4 || st.Rcodes["REFUSED"] != 6 || st.Panics != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestKeepsQuestionAsAsked(t *testing.T) {
	shared := &dns.A{Hdr: dns.RR_Header{Name: "web.cart.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(10, 0, 0, 1)}
	addr, _ := serveOn(t, HandlerFunc(func(context.Context, *Request) *dns.Msg { return &dns.Msg{Answer: []dns.RR{shared}} }), Options{})
	q := new(dns.Msg)
	q.SetQuestion("wEb.CarT.", dns.TypeA)
	q.CheckingDisabled = true
	m := exchange(t, "udp", addr, q)
	if m.Question[0].Name != "wEb.CarT." || m.Answer[0].Header().Name != "wEb.CarT." || !m.CheckingDisabled || !m.RecursionDesired {
		t.Errorf("%v", m)
	}
	if shared.Hdr.Name != "web.cart." {
		t.Error("the shared record was changed")
	}
}

func TestHandlerPanicCostsOneAnswer(t *testing.T) {
	addr, s := serveOn(t, HandlerFunc(func(_ context.Context, r *Request) *dns.Msg {
		if r.Name() == "boom." {
			panic("bug")
		}
		return new(dns.Msg)
	}), Options{})
	for name, rcode := range map[string]int{"boom.": dns.RcodeServerFailure, "fine.": dns.RcodeSuccess} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		if m := exchange(t, "udp", addr, q); m.Rcode != rcode {
			t.Errorf("%s: %v", name, m)
		}
	}
	if s.Stats().Panics != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

// A slow answer holds up neither the next one on its TCP connection nor the
// end of the server.
func TestStreamAnswersOutOfOrder(t *testing.T) {
	release := make(chan struct{})
	addr, _ := serveOn(t, HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		if r.Name() == "slow." {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return new(dns.Msg)
	}), Options{})
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, name := range []string{"slow.", "fast."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.Id = uint16(i + 1)
		b, _ := q.Pack()
		if err := writeFrame(conn, b); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	for _, want := range []uint16{2, 1} {
		b, err := readFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		if id := binary.BigEndian.Uint16(b); id != want {
			t.Errorf("answer %d, want %d", id, want)
		}
		if want == 2 {
			close(release)
		}
	}
	// A frame that is no question ends the connection.
	conn.Write([]byte{0, 3, 1, 2, 3})
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after garbage: %v", err)
	}
}

func TestFloodOfOneClientLeavesRoom(t *testing.T) {
	s := NewServer(nil, Options{MaxInFlight: 4, MaxPerClient: 2})
	a, b := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.3")
	got := fmt.Sprint(s.enter(a), s.enter(a), s.enter(a), s.enter(b), s.enter(b), s.enter(b))
	if got != "true true false true true false" {
		t.Error(got)
	}
	s.leave(a)
	if s.enter(b) || !s.enter(a) || s.enter(a) {
		t.Error("after a has left once")
	}
}

func TestStrangersHearNothing(t *testing.T) {
	var asked atomic.Value
	addr, s := serveOn(t, many(1), Options{Allow: func(a netip.Addr) bool { asked.Store(a); return false }})
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: 200 * time.Millisecond}
		if m, _, err := c.Exchange(query("web.cart.", dns.TypeA), addr.String()); err == nil {
			t.Errorf("%s: %v", network, m)
		}
	}
	if st := s.Stats(); st.Dropped != 2 || st.Queries != 0 || asked.Load() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%+v, asked about %v", st, asked.Load())
	}
}

func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not here")
	}
	addr, _ := serveOn(t, many(100), Options{})
	for _, args := range []string{"", "+tcp", "+noedns", "+bufsize=4096", "+dnssec", "+cookie"} {
		cmd := exec.Command(dig, append([]string{"@127.0.0.1", "-p", fmt.Sprint(addr.Port()), "+short", "+time=2", "+tries=1", "big.example", "A"}, strings.Fields(args)...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		if n := bytes.Count(out, []byte("10.244.")); n != 100 {
			t.Errorf("dig %s: %d records\n%s", args, n, out)
		}
	}
}

func FuzzEdge(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("web.cart.svc.cluster.local.", dns.TypeA)
	b, _ := q.Pack()
	f.Add(b)
	q.SetEdns0(1232, true)
	b, _ = q.Pack()
	f.Add(b)
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0xc0, 0x0c, 0, 1, 0, 1})
	s := NewServer(many(50), Options{})
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, stream := range []bool{false, true} {
			out := s.answer(context.Background(), wire, netip.Addr{}, stream, make([]byte, UDPSize*4))
			if out == nil {
				continue
			}
			if s.Stats().Panics > 0 {
				t.Fatal("panic")
			}
			if !stream && len(out) > UDPSize {
				t.Errorf("%d bytes over UDP", len(out))
			}
			m := new(dns.Msg)
			if err := m.Unpack(out); err != nil {
				t.Fatalf("answer does not unpack: %v", err)
			}
			if !m.Response || m.Id != binary.BigEndian.Uint16(wire) {
				t.Errorf("%v", m)
			}
		}
	})
}

// FuzzFilter holds the answers of a hostile cluster against what may pass.
func FuzzFilter(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("evil.cart.svc.cluster.local.", dns.TypeA)
	for _, s := range []string{"evil.cart.svc.cluster.local. 5 A 127.0.0.1", "evil.cart.svc.cluster.local. 5 CNAME x.", "x. 5 AAAA ::ffff:127.0.0.1", "y. 5 A 10.0.0.1"} {
		rr, _ := dns.NewRR(s)
		m.Answer = append(m.Answer, rr)
	}
	b, _ := m.Pack()
	f.Add(b)
	v := testView()
	f.Fuzz(func(t *testing.T, wire []byte) {
		resp := new(dns.Msg)
		if resp.Unpack(wire) != nil {
			return
		}
		target := "evil.cart.svc.cluster.local."
		out := filter(resp, target, v, nil)
		chain := chainFrom(out.Answer, target)
		for _, rr := range append(out.Answer, out.Extra...) {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if ip != nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast()) {
				t.Errorf("passed %v", rr)
			}
		}
		for _, rr := range out.Answer {
			if !chain[Canonical(rr.Header().Name)] {
				t.Errorf("passed %v, which is not on the way", rr)
			}
		}
	})
}
