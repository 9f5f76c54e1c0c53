package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// huge answers with as many addresses as a stream carries.
func huge(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	const addresses = 4000
	m := new(dns.Msg)
	m.SetReply(q)
	for i := range addresses {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30},
			A: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).AsSlice()})
	}
	return m, nil
}

// TestHugeAnswersAreNotHoarded: a page that has its browser look for name after name of a
// domain of its own, whose servers say as much as they can, costs this machine no memory.
func TestHugeAnswersAreNotHoarded(t *testing.T) {
	c := NewCache(ExchangerFunc(huge))
	for i := range 100 {
		q := new(dns.Msg)
		q.SetQuestion(fmt.Sprintf("n%d.example.", i), dns.TypeA)
		if m, err := c.Exchange(t.Context(), q); err != nil || len(m.Answer) != 4000 {
			t.Fatal(err)
		}
		if i == 99 {
			if m := c.Known(q); m == nil || len(m.Answer) != 4000 {
				t.Error("the last answer is not known")
			}
		}
	}
	kept := 0
	for _, e := range c.entries {
		kept += len(e.msg.Answer)
	}
	if kept > cacheBytes/128 {
		t.Errorf("%d records are kept", kept)
	}

	s := NewSplit(SplitConfig{Cluster: ExchangerFunc(huge)})
	defer s.Close()
	for i := range 100 {
		q := new(dns.Msg)
		q.SetQuestion(fmt.Sprintf("n%d.default.svc.cluster.local.", i), dns.TypeA)
		if m := s.ServeDNS(t.Context(), &Request{Msg: q}); len(m.Answer) != 4000 {
			t.Fatalf("%d records are answered", len(m.Answer))
		}
	}
	kept = 0
	asked, _ := s.Asked(0)
	for _, a := range asked {
		kept += len(a.Answers)
	}
	if len(asked) != 100 || kept != 100*keptRecords {
		t.Errorf("%d questions and %d records are remembered", len(asked), kept)
	}
}
