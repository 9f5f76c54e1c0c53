package kube

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// reason is why an answer is no better, as clients that speak EDNS are told.
type reason struct {
	code uint16 // dns.ExtendedErrorCode...
	text string
}

var (
	silent = &reason{dns.ExtendedErrorCodeNoReachableAuthority, "the cluster's DNS server does not answer"}
	// later: nobody was asked, there being no time to wait for an answer.
	later = &reason{dns.ExtendedErrorCodeOther, "the question has come too late"}
	busy  = &reason{dns.ExtendedErrorCodeOther, "too many questions at once that only the cluster's DNS server can answer"}
)

// confirmed asks the cluster's own DNS server about a name that the watch
// does not know. Without an answer the watch is right: it is complete for
// everything but that server's own configuration, and pods.
func (z *Zone) confirmed(ctx context.Context, r *dnsproxy.Request, name string, local answer) answer {
	q := dnsproxy.Query(r.Msg, name)
	start := q.Question[0].Qtype == dns.TypeSOA
	if start {
		// CoreDNS has NODATA for this type whether there is such a name or not.
		q.Question[0].Qtype = dns.TypeA
	}
	resp, why := z.ask(ctx, r.Client, q)
	local.why = why
	switch {
	case why == busy || why == later, resp == nil && local.blind,
		resp != nil && local.blind && resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError:
		return answer{rcode: dns.RcodeServerFailure, why: why}
	case resp == nil || resp.Rcode != dns.RcodeSuccess:
		return local
	}
	out := answer{apex: z.zone}
	if start {
		return out
	}
	for _, rr := range resp.Answer {
		if !z.mayTell(r.Client, rr) {
			return local
		}
		if t := rr.Header().Rrtype; local.hosts && t != dns.TypeA && t != dns.TypeAAAA {
			continue // CoreDNS makes SRV records of pods
		}
		out.rrs = append(out.rrs, rr)
	}
	return out
}

// outside resolves the target of an ExternalName, or a name that the peer may ask
// for, as the cluster sees it, which may differ from what the laptop sees.
func (z *Zone) outside(ctx context.Context, r *dnsproxy.Request, name string, chain []dns.RR) answer {
	if z.cfg.Upstream == nil {
		return answer{rrs: chain}
	}
	resp, why := z.exchange(ctx, r.Client, dnsproxy.Query(r.Msg, name))
	if why != nil {
		return answer{rcode: dns.RcodeServerFailure, why: why}
	}
	for _, rr := range resp.Answer {
		if !z.mayTell(r.Client, rr) {
			break // the way leads back into what this peer may not see
		}
		chain = append(chain, rr)
	}
	return answer{rcode: resp.Rcode, rrs: chain, soa: startOf(resp.Ns)}
}

// beside is the name of an address beside the cluster, which the peer may have at a
// virtual one: that server is asked for the real one's.
func (z *Zone) beside(ctx context.Context, r *dnsproxy.Request, name string, a netip.Addr) answer {
	real, err := dns.ReverseAddr(a.String())
	if err != nil {
		return answer{rcode: dns.RcodeServerFailure}
	}
	ans := z.outside(ctx, r, real, nil)
	for i, rr := range ans.rrs {
		if name != real && dnsproxy.Canonical(rr.Header().Name) == real {
			ans.rrs[i] = dns.Copy(rr)
			ans.rrs[i].Header().Name = name
		}
	}
	return ans
}

// stale notes in m that the cluster may have changed since it was last heard of, so
// long ago.
func stale(m *dns.Msg, silence time.Duration) {
	code := dns.ExtendedErrorCodeStaleAnswer
	switch {
	case silence <= 0 || m.Rcode == dns.RcodeServerFailure:
		return
	case m.Rcode == dns.RcodeNameError:
		code = dns.ExtendedErrorCodeStaleNXDOMAINAnswer
	}
	dnsproxy.Explain(m, code, fmt.Sprintf("the API server has been silent for %v: the cluster may have changed since", silence.Round(time.Second)))
}

// startOf is the start of authority in rrs, or nil: it tells how long it holds
// that a target has no such record.
func startOf(rrs []dns.RR) dns.RR {
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeSOA {
			return rr
		}
	}
	return nil
}

// ask gives nil when nobody answers, and at once while nobody did a moment
// ago.
func (z *Zone) ask(ctx context.Context, peer netip.Addr, q *dns.Msg) (*dns.Msg, *reason) {
	if z.cfg.Upstream == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	if z.accounts.paused(peer) && z.known(q) == nil {
		return nil, silent
	}
	resp, why := z.exchange(ctx, peer, q)
	if why == silent {
		z.log.Warn("cluster dns does not answer, going on without", "peer", peer, "name", q.Question[0].Name)
		z.accounts.pause(peer)
	}
	return resp, why
}

// exchange asks Upstream for a peer, as far as its quota goes.
func (z *Zone) exchange(ctx context.Context, peer netip.Addr, q *dns.Msg) (*dns.Msg, *reason) {
	if m := z.known(q); m != nil {
		return m, nil
	}
	if ctx.Err() != nil {
		return nil, later
	}
	leave, ok := z.accounts.enter(ctx, peer)
	if !ok {
		return nil, busy
	}
	defer leave()
	resp, err := z.cfg.Upstream.Exchange(ctx, q)
	if err != nil {
		z.log.Debug("cluster dns did not answer", "name", q.Question[0].Name, "err", err)
		return nil, silent
	}
	return resp, nil
}

// known is what Upstream can say without asking anybody, or nil.
func (z *Zone) known(q *dns.Msg) *dns.Msg {
	if cache, ok := z.cfg.Upstream.(interface{ Known(*dns.Msg) *dns.Msg }); ok {
		return cache.Known(q)
	}
	return nil
}

// mayTell says whether peer may see a record of the cluster's own DNS server:
// none that names a namespace it may not know of.
func (z *Zone) mayTell(peer netip.Addr, rr dns.RR) bool {
	if !z.seen(peer, rr.Header().Name) {
		return false
	}
	switch rr := rr.(type) {
	case *dns.CNAME:
		return z.seen(peer, rr.Target)
	case *dns.SRV:
		return z.seen(peer, rr.Target)
	case *dns.PTR:
		return z.seen(peer, rr.Ptr)
	}
	return true
}

func (z *Zone) seen(peer netip.Addr, name string) bool {
	name = dnsproxy.Canonical(name)
	if !dnsproxy.Under(name, z.zone) {
		return true
	}
	q := parse(trimZone(name, z.zone))
	return !q.scoped || z.cfg.Visible(peer, q.namespace)
}
