package dnsproxy

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

// searched says that a name of the zone looks like a public one with a search
// domain behind it, as the C library and Go make them of a name that does not
// exist: "nope.example.com" becomes "nope.example.com.shop.svc.cluster.local".
// above is the part of it that says nothing of what was looked for:
// "com.shop.svc.cluster.local". Where the cluster has no such name it has none
// below it either (RFC 8020), and need not be shown more.
func (v *view) searched(name string) (above string, ok bool) {
	stem, suffix := strings.TrimSuffix(name, "."+v.zone), v.zone
	if rest, below := strings.CutSuffix(stem, ".svc"); below {
		stem, suffix = rest, "svc."+suffix
		if at := strings.LastIndexByte(stem, '.'); at >= 0 && v.namespaces[stem[at+1:]] {
			stem, suffix = stem[:at], stem[at+1:]+"."+suffix
		}
	}
	at := strings.LastIndexByte(stem, '.')
	if at < 0 || !topLevel(stem[at+1:]) {
		return "", false
	}
	return stem[at+1:] + "." + suffix, true
}

// askAbove is the answer to a question for a name that was searched for, nil if
// the cluster has to be asked for the name itself.
func (s *Split) askAbove(ctx context.Context, r *Request, above string, tr *trace) *dns.Msg {
	resp, err := tr.exchange(ctx, SideCluster, s.cluster, Query(r.Msg, above))
	switch {
	case err != nil:
		s.log.Debug("cluster did not answer a dns question", "err", err)
		return Refuse(dns.RcodeServerFailure)
	case resp.Rcode == dns.RcodeSuccess:
		return nil
	}
	out := Refuse(resp.Rcode)
	out.Ns = keep(resp.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
	return out
}
