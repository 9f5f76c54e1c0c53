package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Explanation is an answer and how it came about, in words and numbers that
// need no DNS library.
type Explanation struct {
	Name, Type string // what was asked for
	Rcode      string // NOERROR, NXDOMAIN, ...
	Answers    []Record
	// Class is what the name is: other, zone, alias, short, single, reverse,
	// localhost or nowhere.
	Class string
	// Steps are whom we asked, in order. None: we knew by ourselves.
	Steps []Step
	Took  time.Duration
}

// Record is one of an answer.
type Record struct {
	Name, Type, Data string
	TTL              uint32 // seconds
}

// Step is one question that we asked.
type Step struct {
	Side   string // cluster, or base: the resolvers that the machine had before
	Name   string // in full
	Rcode  string // "" when nobody answered
	Server netip.AddrPort
	Cached bool // that server said so earlier
	Err    error
	Took   time.Duration
}

// Sides of a Step.
const (
	SideCluster = "cluster"
	SideBase    = "base"
)

// Explain answers a question as the server would. name may lack its final dot.
// Without a qtype it is A, and PTR where name is an address. The error says
// what is wrong with name or qtype.
func (s *Split) Explain(ctx context.Context, name, qtype string) (Explanation, error) {
	if qtype == "" {
		qtype = "A"
		if reverse, err := dns.ReverseAddr(name); err == nil {
			name, qtype = reverse, "PTR"
		}
	}
	number, ok := dns.StringToType[strings.ToUpper(qtype)]
	if !ok {
		return Explanation{}, fmt.Errorf("%q is no type of DNS records", qtype)
	}
	full := dns.Fqdn(name)
	if _, ok := dns.IsDomainName(full); !ok || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return Explanation{}, fmt.Errorf("%q is no DNS name", name)
	}
	q := new(dns.Msg)
	q.SetQuestion(full, number)
	began := time.Now()
	resp := refusal(q)
	var tr trace
	if resp == nil {
		resp = s.serve(ctx, &Request{Msg: q}, &tr)
	}
	return Explanation{Name: name, Type: dns.Type(number).String(), Rcode: dns.RcodeToString[resp.Rcode], Answers: records(resp.Answer),
		Class: tr.class.String(), Steps: tr.steps, Took: time.Since(began)}, nil
}

// records are rrs in words.
func records(rrs []dns.RR) []Record {
	var out []Record
	for _, rr := range rrs {
		h := rr.Header()
		out = append(out, Record{
			Name: h.Name, Type: dns.Type(h.Rrtype).String(), TTL: h.Ttl,
			Data: strings.TrimPrefix(rr.String(), h.String()),
		})
	}
	return out
}

// trace collects what an Explanation tells.
type trace struct {
	// by is who answers; nil: nobody had to.
	by    *Split
	class class
	steps []Step
}

func (t *trace) is(by *Split, c class) { t.by, t.class = by, c }

// exchange asks c on a side, and notes it.
func (t *trace) exchange(ctx context.Context, side string, c *Cache, q *dns.Msg) (*dns.Msg, error) {
	began := time.Now()
	m, from, err := c.ask(ctx, q)
	step := Step{Side: side, Name: q.Question[0].Name, Server: from.server, Cached: from.cached, Err: err, Took: time.Since(began)}
	if err == nil {
		step.Rcode = dns.RcodeToString[m.Rcode]
	}
	t.steps = append(t.steps, step)
	return m, err
}
