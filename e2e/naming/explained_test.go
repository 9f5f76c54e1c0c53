package naming

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy/kube"
)

// explanations are the differences that we want, by their keys, in the words
// of docs/dns.md.
var explanations = map[string]string{
	"ttl":       "TTL: CoreDNS's, but 5 s at most and 1 s at least.",
	"soa":       "An SOA question for a name that does not exist: NXDOMAIN, as for every other type. CoreDNS: NODATA.",
	"exists":    "Any type of a name that exists, the zone, `svc`, a namespace and `dns-version` among them: NODATA where there is no such record. CoreDNS: NXDOMAIN for some types (TXT of a namespace, A of `dns-version`).",
	"reverse":   "Other types than PTR of an address that has a name: NODATA. CoreDNS: NXDOMAIN.",
	"protocol":  "`_tcp.web.shop.svc`, below which ports have names: NODATA. CoreDNS: NXDOMAIN.",
	"port":      "A and AAAA of a port's name, `_http._tcp.web.shop.svc`: NODATA, the name has an SRV record only. CoreDNS: the Service's addresses.",
	"srv":       "SRV of a name that is no port's: NODATA. CoreDNS: a record for each port of the Service or the endpoint, and for a pod one with port 0.",
	"pod":       "A name below a pod's, `a.10-244-1-40.shop.pod`: NXDOMAIN. CoreDNS: the pod's records.",
	"server":    "The zone's name server is `ns.dns.<zone>`, at the gateway's addresses. CoreDNS: its own Service or address.",
	"orphan":    "An address in an EndpointSlice whose Service does not exist has no name. CoreDNS: a PTR record to a name that it does not resolve.",
	"elsewhere": "A PTR record that only the cluster's own server has: NXDOMAIN. The gateway tells addresses' names from the watch alone, or a laptop could list the names of networks behind the cluster.",
	"alias":     "An ExternalName whose target lacks the type: the CNAME alone. CoreDNS: NODATA without the CNAME.",
	"gone":      "An ExternalName whose target does not exist: the CNAME and NXDOMAIN (RFC 6604). CoreDNS: NOERROR.",
	"loop":      "An ExternalName that leads back to itself: SERVFAIL. CoreDNS: NODATA.",
	"corefile":  "NODATA for a name that only the cluster's own server has comes with an SOA record of the zone. CoreDNS's plugin `hosts`: without one.",
}

// differ says in which ways two answers to q are not the same: keys of
// explanations, or plain words.
func differ(q dns.Question, domain string, ours, theirs answer) []string {
	var all []string
	switch {
	case ours.rcode != theirs.rcode || !slices.Equal(ours.answers, theirs.answers):
		if why := explain(q, domain, ours, theirs); why != "" {
			return []string{why}
		}
		all = append(all, "the answers differ")
	case ours.start != theirs.start && theirs.start == "" && under(q.Name, "legacy.shop.svc.", domain):
		return []string{"corefile"}
	case ours.start != theirs.start:
		all = append(all, "the authorities differ")
	case ours.authoritative != theirs.authoritative:
		all = append(all, "only one is authoritative")
	}
	forwarded := under(q.Name, "legacy.shop.svc.", domain) || under(q.Name, "10-244-1-40.shop.pod.", domain) // and counted down
	switch {
	case len(ours.answers) == 0 || len(all) > 0 || ours.ttl == theirs.ttl || forwarded && ours.ttl <= theirs.ttl:
	case ours.ttl == max(1, min(theirs.ttl, kube.DefaultTTL)):
		all = append(all, "ttl")
	default:
		all = append(all, fmt.Sprintf("TTL %d, not %d", ours.ttl, theirs.ttl))
	}
	if !slices.Equal(ours.glue, theirs.glue) {
		all = append(all, "the glue differs")
	}
	return all
}

func explain(q dns.Question, domain string, ours, theirs answer) string {
	name := strings.TrimSuffix(strings.TrimSuffix(q.Name, domain+"."), ".")
	labels := strings.Split(name, ".")
	first, kind := labels[0], labels[len(labels)-1]
	alias := len(ours.answers) > 0 && strings.Contains(ours.answers[0], " cname ")
	switch {
	case q.Qtype == dns.TypeSOA && ours.missing() && theirs.nodata():
		return "soa"
	case kind == "arpa" && q.Qtype != dns.TypePTR && ours.nodata() && theirs.missing():
		return "reverse"
	case kind == "arpa" && q.Qtype == dns.TypePTR && ours.missing() && len(theirs.answers) == 1 && strings.Contains(theirs.answers[0], ".orphan.shop.svc."):
		return "orphan"
	case q.Name == "80.2.0.192.in-addr.arpa." && ours.missing() && len(theirs.answers) == 1 && strings.HasSuffix(theirs.answers[0], " example.com."):
		return "elsewhere"
	case kind == "svc" && len(labels) == 4 && slices.Contains([]string{"_tcp", "_udp", "_sctp"}, first) && ours.nodata() && theirs.missing():
		return "protocol"
	case kind == "svc" && len(labels) == 5 && first[0] == '_' && ours.nodata() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA):
		return "port"
	case first[:min(1, len(first))] != "_" && q.Qtype == dns.TypeSRV && ours.nodata() && len(theirs.answers) > 0:
		return "srv"
	case kind == "pod" && len(labels) > 3 && ours.missing():
		return "pod"
	case (name == "" && q.Qtype == dns.TypeNS || name == "ns.dns") && len(ours.answers) > 0 && theirs.nodata():
		return "server"
	case slices.Contains([]string{"", "svc", "pod", "dns", "ns.dns", "dns-version"}, name) && ours.nodata() && theirs.missing():
		return "exists"
	case len(labels) == 2 && (kind == "svc" || kind == "pod") && ours.nodata() && theirs.missing():
		return "exists"
	case first == "loop" && ours.rcode == "SERVFAIL" && theirs.nodata():
		return "loop"
	case alias && ours.rcode == "NXDOMAIN" && theirs.rcode == "NOERROR":
		return "gone"
	case alias && ours.rcode == "NOERROR" && theirs.nodata():
		return "alias"
	}
	return ""
}

func (a answer) missing() bool { return a.rcode == "NXDOMAIN" && len(a.answers) == 0 }
func (a answer) nodata() bool  { return a.rcode == "NOERROR" && len(a.answers) == 0 }

func under(name, child, domain string) bool { return strings.EqualFold(name, child+domain+".") }
