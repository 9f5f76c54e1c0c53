// Package dnsproxy answers DNS for podnet: in the gateway on the tunnel's
// service address, on the laptop on the TUN's own address. It has the server
// edge (sockets, limits, EDNS, truncation), the forwarder, the cache and the
// laptop's split between cluster and internet. It knows miekg/dns and nothing
// of Kubernetes, of the operating system or of WireGuard; dnsproxy/kube has
// the cluster's names.
package dnsproxy

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Request is one question of one client. The edge has checked it: opcode
// QUERY, class IN, exactly one question, EDNS version 0 if any.
type Request struct {
	// Msg is the query as it came. Handlers never change it.
	Msg *dns.Msg
	// Client is the address the query came from, unmapped.
	Client netip.Addr
	// Stream says that the query came over TCP.
	Stream bool
}

// Question is the one question.
func (r *Request) Question() dns.Question { return r.Msg.Question[0] }

// Name is the question's name in canonical form: lower case, with its final
// dot.
func (r *Request) Name() string { return Canonical(r.Msg.Question[0].Name) }

// Handler answers questions. ServeDNS returns the answer; the edge fills in
// ID, question, the letters' case, EDNS and truncation. The answer's records
// may be shared with other answers: whoever wants to change one copies it
// first. A nil answer is sent as SERVFAIL. ctx ends when the server does.
type Handler interface {
	ServeDNS(ctx context.Context, r *Request) *dns.Msg
}

// Prompt is a Handler that has many of its answers ready.
type Prompt interface {
	Handler
	// ServeNow is ServeDNS for answers that nobody has to be asked for and that
	// are made in microseconds: whoever reads the socket waits for it. Nil:
	// ServeDNS is to be called. r and its message are another question's once
	// ServeNow has returned.
	ServeNow(r *Request) *dns.Msg
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(ctx context.Context, r *Request) *dns.Msg

// ServeDNS calls f.
func (f HandlerFunc) ServeDNS(ctx context.Context, r *Request) *dns.Msg { return f(ctx, r) }

// Exchanger asks somebody else. The answer's ID and question are those of the
// query; of its OPT record only Extended DNS Errors mean anything further. As with
// a Handler, the answer's records may be shared: copy before changing one. The
// query stays as it was.
type Exchanger interface {
	Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error)
}

// ExchangerFunc makes an Exchanger of a function.
type ExchangerFunc func(ctx context.Context, q *dns.Msg) (*dns.Msg, error)

// Exchange calls f.
func (f ExchangerFunc) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) { return f(ctx, q) }

// Canonical is name in lower case and with its final dot. It allocates only
// when something has to change.
func Canonical(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			name = strings.ToLower(name)
			break
		}
	}
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	return name
}

// Under says whether the canonical name is zone itself or below it.
func Under(name, zone string) bool {
	if zone == "." {
		return true
	}
	if !strings.HasSuffix(name, zone) {
		return false
	}
	rest := len(name) - len(zone)
	return rest == 0 || name[rest-1] == '.'
}

// Refuse is an empty answer with the given rcode.
func Refuse(rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.Rcode = rcode
	return m
}

// Query is a fresh recursive query for the same type, with the same DO, CD
// and AD wishes as r, for another name.
func Query(r *dns.Msg, name string) *dns.Msg {
	q := new(dns.Msg)
	q.Id = dns.Id()
	q.RecursionDesired = true
	q.CheckingDisabled = r.CheckingDisabled
	q.AuthenticatedData = r.AuthenticatedData
	q.Question = []dns.Question{{Name: name, Qtype: r.Question[0].Qtype, Qclass: r.Question[0].Qclass}}
	if opt := r.IsEdns0(); opt != nil && opt.Do() {
		q.SetEdns0(UDPSize, true)
	}
	return q
}

// withOwner returns rrs with the owner name from replaced by to, copying only
// the records it changes. Letters' case is ignored in from.
func withOwner(rrs []dns.RR, from, to string) []dns.RR {
	var out []dns.RR
	for i, rr := range rrs {
		owner := rr.Header().Name
		if owner == to || len(owner) != len(from) || !strings.EqualFold(owner, from) {
			continue
		}
		if out == nil {
			out = append([]dns.RR(nil), rrs...)
		}
		out[i] = dns.Copy(rr)
		out[i].Header().Name = to
	}
	if out == nil {
		return rrs
	}
	return out
}
