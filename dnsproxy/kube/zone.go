// Package kube is the cluster's zone: it answers Kubernetes DNS-based service
// discovery 1.1.0 from the watch cache, each peer seeing the namespaces it
// may. It does not know who may see what, nor how the cluster is reached; both
// are handed to it.
//
// Specification: https://github.com/kubernetes/dns/blob/master/docs/specification.md
package kube

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
	"podnet.dev/internal/remap"
)

const (
	// DefaultTTL in seconds: systemd-resolved and browsers keep answers, and
	// an address that has moved shall not be missed for long.
	DefaultTTL = 5

	versionTTL = 28800 // seconds; the specification's version changes rarely
	maxChain   = 8     // CNAMEs in a row
)

// How long the cluster's own DNS server is waited for when it is asked to
// confirm that a name does not exist, and left alone when it did not answer:
// a missing name shall not cost a second each time.
const (
	confirmTimeout = 1 * time.Second
	confirmPause   = 5 * time.Second
)

// Config is what a Zone needs. Domain, Visible and either Informers or Unwatched with
// Upstream are required.
type Config struct {
	// Domain is the zone, such as "cluster.local".
	Domain string
	// Informers deliver Services, EndpointSlices and Namespaces: a
	// controller-runtime cache.Cache. Its transform may strip what DNS does
	// not read; the objects must never be changed afterwards.
	Informers Informers
	// Unwatched says that there is nothing to watch: Upstream is asked about each name
	// of a namespace.
	Unwatched bool
	// Visible says whether peer may know of namespace. What it may not know
	// does not exist: names are information too.
	Visible func(peer netip.Addr, namespace string) bool
	// Map says at which addresses peer reaches the cluster's: it is told those,
	// and asks about them. Nil: all at their own.
	Map func(peer netip.Addr) remap.Map
	// MayAsk says whether peer may have Upstream asked for a name outside the zone,
	// and Beside whether for the name of an address that is not the cluster's. Nil:
	// for none.
	MayAsk func(peer netip.Addr, name string) bool
	Beside func(peer, a netip.Addr) bool
	// Behind says for how long nothing has been heard of the cluster, which may
	// have changed since; 0: it is being heard of. Nil: always.
	Behind func() time.Duration
	// Upstream is the cluster's own DNS server, asked for what the watch
	// cannot know: targets of ExternalName Services outside the zone, and
	// names that only its own configuration has. Wrap it in a
	// dnsproxy.Cache. Nil: nobody is asked.
	Upstream dnsproxy.Exchanger
	// Quota is what each peer may have Upstream asked; none by default.
	Quota Quota
	// Addresses are where this zone is served: ns.dns.<zone>.
	Addresses []netip.Addr
	// TTL of records in seconds at most; 0 means DefaultTTL. Where Upstream
	// says less, that counts.
	TTL uint32
	Log *slog.Logger
}

// Zone is a dnsproxy.Handler for the cluster's zone, for the reverse names of its
// addresses, and for what a peer may have beside them. It refuses all others.
type Zone struct {
	cfg   Config
	zone  string // canonical
	log   *slog.Logger
	maker atomic.Pointer[maker]
	index *index

	accounts *accounts
	synced   atomic.Bool
}

var _ dnsproxy.Prompt = (*Zone)(nil)

// fewRecords is how many records an answer may have that holds up the next
// question: a headless Service may have thousands, a UDP message has room for 70.
const fewRecords = 64

// New makes a Zone. Run fills it; until then it answers SERVFAIL.
func New(cfg Config) *Zone {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	z := &Zone{cfg: cfg, zone: dnsproxy.Canonical(cfg.Domain), log: cfg.Log, accounts: newAccounts(cfg.Quota)}
	z.index = newIndex(func(e *entry) *records { return z.maker.Load().records(e) })
	z.set(settings{echo: true, ttl: cfg.TTL})
	return z
}

// answer is what is known about a name and type.
type answer struct {
	rcode int
	rrs   []dns.RR
	extra []dns.RR
	apex  string // whose SOA goes with an empty answer
	soa   dns.RR // which one, when it is not ours
	// confirm: the watch does not know the name, but the cluster's own DNS
	// server might. blind: and without that server's word there is none.
	confirm, blind bool
	// hosts: of that server's word only addresses are told.
	hosts bool
	// follow is the CNAME target at the end of rrs, still to be resolved.
	follow string
	why    *reason // nil: nothing to explain
}

// over has ended: there is no time to ask anybody.
var over = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

// ServeNow implements dnsproxy.Prompt: what the watch knows, and what Upstream has
// said a moment ago.
func (z *Zone) ServeNow(r *dnsproxy.Request) *dns.Msg { return z.ServeDNS(over, r) }

// ServeDNS implements dnsproxy.Handler. Once ctx has ended it asks nobody and gives
// nil where it would have to.
func (z *Zone) ServeDNS(ctx context.Context, r *dnsproxy.Request) *dns.Msg {
	name := r.Name()
	reverse := strings.HasSuffix(name, ".in-addr.arpa.") || strings.HasSuffix(name, ".ip6.arpa.")
	beyond := !reverse && !dnsproxy.Under(name, z.zone)
	if beyond && (z.cfg.MayAsk == nil || z.cfg.Upstream == nil || !z.cfg.MayAsk(r.Client, name)) {
		return dnsproxy.Explain(dnsproxy.Refuse(dns.RcodeRefused), dns.ExtendedErrorCodeNotAuthoritative, "not a name of "+z.zone)
	}
	if !z.Synced() {
		return dnsproxy.Explain(dnsproxy.Refuse(dns.RcodeServerFailure), dns.ExtendedErrorCodeNotReady, "the gateway does not know the cluster yet")
	}
	var ans answer
	switch {
	case reverse:
		ans = z.reverse(ctx, r, name)
	case beyond:
		ans = z.outside(ctx, r, name, nil)
	default:
		ans = z.resolve(ctx, r, name)
	}
	if ans.why == later {
		return nil
	}
	m := dnsproxy.Refuse(ans.rcode)
	m.Authoritative = !beyond
	m.Answer, m.Extra = ans.rrs, ans.extra
	if as := z.mapOf(r.Client); !as.IsZero() {
		m.Answer, m.Extra = virtual(m.Answer, as), virtual(m.Extra, as)
	}
	switch {
	case ans.soa != nil:
		m.Ns = []dns.RR{ans.soa}
	case empty(ans):
		m.Ns = []dns.RR{z.soa(ans.apex)}
	}
	switch {
	case ans.why != nil:
		dnsproxy.Explain(m, ans.why.code, ans.why.text)
	case z.cfg.Behind != nil && !beyond:
		stale(m, z.cfg.Behind())
	}
	return m
}

// empty says whether ans needs the SOA record that tells how long it holds. Of
// what others have said we know no zone: a record of an owner without a name would
// be no message at all.
func empty(ans answer) bool {
	return ans.apex != "" && (ans.rcode == dns.RcodeNameError || ans.rcode == dns.RcodeSuccess && len(ans.rrs) == 0)
}

// resolve follows CNAMEs inside the zone by itself and leaves it through
// Upstream.
func (z *Zone) resolve(ctx context.Context, r *dnsproxy.Request, name string) answer {
	qtype := r.Question().Qtype
	var chain []dns.RR
	for range maxChain {
		ans := z.lookup(r.Client, name, qtype)
		switch {
		case ans.confirm:
			ans = z.confirmed(ctx, r, name, ans)
		case len(ans.rrs) > fewRecords && ctx.Err() != nil:
			return answer{why: later}
		default:
			ans.rrs = rotate(ans.rrs)
		}
		if chain != nil {
			ans.rrs = append(chain, ans.rrs...)
		}
		if ans.follow == "" {
			return ans
		}
		chain, name = ans.rrs, ans.follow
		if !dnsproxy.Under(name, z.zone) {
			return z.outside(ctx, r, name, chain)
		}
	}
	z.log.Debug("cname chain is too long", "name", name)
	return answer{rcode: dns.RcodeServerFailure}
}

// lookup answers from the watch alone.
func (z *Zone) lookup(peer netip.Addr, name string, qtype uint16) answer {
	q := parse(trimZone(name, z.zone))
	m := z.maker.Load()
	none := answer{rcode: dns.RcodeNameError, apex: z.zone}
	nodata := answer{apex: z.zone}
	if q.scoped && !z.cfg.Visible(peer, q.namespace) {
		// The same, word for word, where there is no such namespace.
		none.why = &reason{dns.ExtendedErrorCodeProhibited, "no access to namespace " + q.namespace}
		return none
	}
	if q.scoped && z.cfg.Unwatched {
		none.confirm, none.blind, none.hosts = true, true, q.kind == kindPod
		return none
	}
	if q.scoped && !z.index.hasNamespace(q.namespace) {
		_, recent := z.index.lookup(serviceKey{q.namespace, q.service})
		none.confirm = !recent
		return none
	}
	switch q.kind {
	case kindApex:
		return z.apex(qtype)
	case kindVersion:
		if qtype == dns.TypeTXT {
			h := m.header(name, dns.TypeTXT)
			h.Ttl = versionTTL
			nodata.rrs = []dns.RR{&dns.TXT{Hdr: h, Txt: []string{"1.1.0"}}}
		}
		return nodata
	case kindServer:
		var h hostRecords
		for _, a := range z.cfg.Addresses {
			h.add(m.address(name, a))
		}
		nodata.rrs = h.of(qtype)
		return nodata
	case kindEmpty, kindNamespace:
		return nodata
	case kindPod:
		a, ok := parseDashed(q.pod)
		if !ok {
			return none
		}
		if !m.echo {
			none.confirm, none.blind, none.hosts = true, true, true
			return none
		}
		var h hostRecords
		h.add(m.address(name, a))
		nodata.rrs = h.of(qtype)
		return nodata
	case kindBelowPod:
		return none
	}
	r, recent := z.index.lookup(serviceKey{q.namespace, q.service})
	if r == nil || q.zonal {
		none.confirm = !recent || q.zonal && r != nil
		return none
	}
	return z.service(r, q, qtype)
}

// service answers names of and below a Service.
func (z *Zone) service(r *records, q question, qtype uint16) answer {
	none := answer{rcode: dns.RcodeNameError, apex: z.zone}
	out := answer{apex: z.zone}
	switch q.kind {
	case kindService:
		if !r.exists {
			return none
		}
		if r.cname != nil {
			out.rrs = []dns.RR{r.cname}
			if qtype != dns.TypeCNAME && qtype != dns.TypeANY {
				out.follow = r.cname.Target
			}
			return out
		}
		out.rrs = r.of(qtype)
	case kindHost:
		h, ok := r.hosts[q.host]
		if !ok {
			return none
		}
		out.rrs = h.of(qtype)
	case kindProtocol:
		if !r.protocols[q.protocol] {
			return none
		}
	case kindPort:
		p, ok := r.ports[portKey{q.port, q.protocol}]
		if !ok {
			return none
		}
		if qtype == dns.TypeSRV {
			out.rrs, out.extra = p.srv, p.glue
		}
	default:
		return none
	}
	return out
}

func (h hostRecords) of(qtype uint16) []dns.RR {
	switch qtype {
	case dns.TypeA:
		return h.a
	case dns.TypeAAAA:
		return h.aaaa
	}
	return nil
}

// rotate begins somewhere else each time, so that clients that take the first
// address spread over all.
func rotate(rrs []dns.RR) []dns.RR {
	if len(rrs) < 2 {
		return rrs
	}
	at := rand.IntN(len(rrs))
	out := make([]dns.RR, 0, len(rrs))
	return append(append(out, rrs[at:]...), rrs[:at]...)
}

func (z *Zone) apex(qtype uint16) answer {
	out := answer{apex: z.zone}
	switch qtype {
	case dns.TypeSOA:
		out.rrs = []dns.RR{z.soa(z.zone)}
	case dns.TypeNS:
		out.rrs = []dns.RR{&dns.NS{Hdr: z.maker.Load().header(z.zone, dns.TypeNS), Ns: "ns.dns." + z.zone}}
	}
	return out
}

func (z *Zone) soa(apex string) *dns.SOA {
	return dnsproxy.SOA(apex, apex, z.index.version(), z.maker.Load().ttl)
}

// reverse answers PTR. A cluster IP has the name of its Service; the address
// of an endpoint has one name per Service that it serves. An address beside the
// cluster that the peer may reach has the name that Upstream knows.
func (z *Zone) reverse(ctx context.Context, r *dnsproxy.Request, name string) answer {
	peer, qtype := r.Client, r.Question().Qtype
	apex := "in-addr.arpa."
	if strings.HasSuffix(name, ".ip6.arpa.") {
		apex = "ip6.arpa."
	}
	out := answer{apex: apex}
	a, whole := dnsproxy.ParseReverse(name)
	if !whole {
		if !dnsproxy.ParseReversePrefix(name).IsValid() {
			out.rcode = dns.RcodeNameError
		}
		return out // names may well exist below
	}
	if real, virtual := z.mapOf(peer).Real(a); virtual {
		a = real
	}
	if z.cfg.Beside != nil && z.cfg.Upstream != nil && z.cfg.Beside(peer, a) {
		return z.beside(ctx, r, name, a)
	}
	if ctx.Err() != nil && z.index.crowded(a, fewRecords) {
		return answer{why: later}
	}
	var service, endpoints []string
	for key, r := range z.index.owners(a) {
		switch {
		case !z.cfg.Visible(peer, key.namespace):
		case r.self[a]:
			service = append(service, r.name)
		default:
			endpoints = append(endpoints, r.ptr[a]...)
		}
	}
	names := service
	if len(names) == 0 {
		names = endpoints
	}
	if len(names) == 0 {
		out.rcode = dns.RcodeNameError
		return out
	}
	if qtype == dns.TypePTR {
		for _, target := range names {
			out.rrs = append(out.rrs, &dns.PTR{Hdr: z.maker.Load().header(name, dns.TypePTR), Ptr: target})
		}
	}
	return out
}
