package dnsproxy

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// check is a question to which only this proxy knows the answer.
type check struct {
	name   string // canonical
	answer netip.Addr
}

// Check makes up a name below a domain, and the address that this proxy, and
// nobody else, gives for it from now on, until the next Check. Whoever gets the
// address for the name has asked here. The address is in 198.19.0.0/16, a
// network for measurements that no host has (RFC 2544): nobody is to use it.
func (s *Split) Check(domain string) (name string, answer netip.Addr) {
	text := rand.Text()
	n := binary.BigEndian.AppendUint16([]byte{198, 19}, binary.BigEndian.Uint16([]byte(rand.Text())))
	c := &check{name: Canonical(strings.ToLower(text) + ".podnet-check." + domain)}
	c.answer, _ = netip.AddrFromSlice(n)
	s.check.Store(c)
	return c.name, c.answer
}

// checked answers the question of the last Check, and nil to all others.
func (s *Split) checked(r *Request) *dns.Msg {
	c := s.check.Load()
	if c == nil || r.Name() != c.name {
		return nil
	}
	q := r.Question()
	m := new(dns.Msg)
	if q.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: c.answer.AsSlice()}}
		return m
	}
	zone := s.view.Load().zone
	m.Ns = []dns.RR{SOA(zone, zone, 1, 1)}
	return m
}
