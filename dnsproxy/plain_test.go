package dnsproxy

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ready is a Prompt whose answers of now need nobody.
type ready struct {
	Handler
	now func(r *Request) *dns.Msg
}

func (h ready) ServeNow(r *Request) *dns.Msg { return h.now(r) }

// A question that somebody has to be asked holds up none that nobody has to be, even
// if there is no room for another one like it.
func TestPromptAnswersPassSlowOnes(t *testing.T) {
	release := make(chan struct{})
	addr, s := serveOn(t, ready{
		HandlerFunc(func(context.Context, *Request) *dns.Msg { <-release; return Refuse(dns.RcodeNameError) }),
		func(r *Request) *dns.Msg {
			if r.Name() == "slow." {
				return nil
			}
			return many(1).ServeDNS(t.Context(), r)
		},
	}, Options{MaxInFlight: 1})
	conn, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	c := &dns.Conn{Conn: conn}
	want := func(name string, rcode int) {
		t.Helper()
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if m.Question[0].Name != name || m.Rcode != rcode {
			t.Errorf("%v", m)
		}
	}
	for _, name := range []string{"slow.", "fast.", "slow.", "Fast.Again."} {
		if err := c.WriteMsg(query(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	want("fast.", dns.RcodeSuccess)
	want("Fast.Again.", dns.RcodeSuccess)
	close(release)
	want("slow.", dns.RcodeNameError)
	if st := s.Stats(); st.Queries != 4 || st.Dropped != 1 || st.Rcodes["NOERROR"] != 2 {
		t.Errorf("%+v", st)
	}
}

// TestPlainAnswersTakeNoMemory: only the name is made for each question.
func TestPlainAnswersTakeNoMemory(t *testing.T) {
	m := many(3).ServeDNS(t.Context(), &Request{Msg: query("web.shop.svc.cluster.local.", dns.TypeA)})
	m.Extra = nil
	s := NewServer(ready{now: func(*Request) *dns.Msg { return m }}, Options{})
	q := query("web.shop.svc.cluster.local.", dns.TypeA)
	q.SetEdns0(1232, false)
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	p, buf := new(plain), make([]byte, UDPSize)
	if n := testing.AllocsPerRun(1000, func() {
		if out, later := s.answerNow(p, wire, netip.Addr{}, buf); out == nil || later != nil {
			t.Error("no answer")
		}
	}); n > 1 {
		t.Errorf("%v allocations for each answer", n)
	}
}

// FuzzPlain holds questions that are read, and answers that are written, without
// miekg/dns against what it makes of them.
func FuzzPlain(f *testing.F) {
	for _, name := range []string{"web.shop.svc.cluster.local.", "WEB._tcp.0-1.", `a\.b.`, "."} {
		q := query(name, dns.TypeA)
		for _, edns := range []func(){func() {}, func() { q.SetEdns0(512, false) }, func() { q.IsEdns0().SetDo() }, func() { q.Question[0].Qtype = dns.TypeAAAA }} {
			edns()
			wire, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire, uint8(1))
			f.Add(wire, uint8(40))
		}
	}
	p := new(plain)
	f.Fuzz(func(t *testing.T, wire []byte, n uint8) {
		r := p.read(wire, netip.Addr{})
		if r == nil {
			return
		}
		q := new(dns.Msg)
		if inspect(wire) != accept || q.Unpack(wire) != nil || refusal(q) != nil {
			t.Fatalf("%x is no question", wire)
		}
		if r.Msg.String() != q.String() {
			t.Fatalf("read %v\nwant %v", r.Msg, q)
		}
		m := new(dns.Msg)
		m.Authoritative = n&1 == 0
		for i := range n {
			name := Canonical(q.Question[0].Name)
			if i > 100 {
				name = "other.example."
			}
			if h := (dns.RR_Header{Name: name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: uint32(i)}); h.Rrtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(10, 0, 0, i)})
			} else {
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: net.ParseIP("fd00::1")})
			}
		}
		out := p.write(m, make([]byte, 0, UDPSize))
		want, _ := finish(q, m, false, nil)
		if out != nil && !bytes.Equal(out, want) {
			t.Fatalf("wrote %x\nwant  %x", out, want)
		}
		if truncated := want[2]&0x02 != 0; out == nil && n <= 100 && !truncated {
			t.Fatalf("did not write %v", m)
		}
	})
}
