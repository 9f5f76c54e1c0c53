package kube

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"podnet.dev/dnsproxy"
)

// records are the answers of one Service, made once and never changed: many
// messages share them.
type records struct {
	hostRecords            // of the Service's own name
	cname       *dns.CNAME // of an ExternalName, else nil
	// exists: the Service's own name does. A headless Service without ready
	// endpoints has none (specification 2.4.1), nor has an ExternalName that
	// is an address.
	exists bool

	ports     map[portKey]portRecords
	protocols map[string]bool // that have a named port
	hosts     map[string]hostRecords
	ptr       map[netip.Addr][]string // address to names, endpoints only
	self      map[netip.Addr]bool     // cluster IPs
	name      string
}

// hostRecords are the addresses of one name.
type hostRecords struct{ a, aaaa []dns.RR }

// portKey is a named port, in lower case.
type portKey struct{ port, protocol string }

// portRecords are the SRV records of a port and, as a courtesy, the
// addresses of their targets.
type portRecords struct{ srv, glue []dns.RR }

// maker makes records for one zone.
type maker struct {
	zone string // canonical
	settings
}

// records is pure: what the entry holds decides everything. e.service is set.
func (m maker) records(e *entry) *records {
	svc := e.service
	r := &records{name: strings.ToLower(svc.Name+"."+svc.Namespace) + ".svc." + m.zone}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		m.external(r, svc.Spec.ExternalName)
		return r
	}
	endpoints := m.endpoints(r, e.slices)
	ips := clusterIPs(svc)
	if len(ips) > 0 {
		m.clusterIP(r, svc, ips)
	} else {
		m.headless(r, endpoints)
	}
	return r
}

func (m maker) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: m.ttl}
}

func (m maker) address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: m.header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: m.header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

func (h *hostRecords) add(rr dns.RR) {
	if rr.Header().Rrtype == dns.TypeA {
		h.a = append(h.a, rr)
	} else {
		h.aaaa = append(h.aaaa, rr)
	}
}

func (m maker) external(r *records, target string) {
	if _, err := netip.ParseAddr(target); err == nil {
		return // an address is no name to point at
	}
	target = dnsproxy.Canonical(target)
	if _, ok := dns.IsDomainName(target); !ok || target == "." {
		return
	}
	r.exists = true
	r.cname = &dns.CNAME{Hdr: m.header(r.name, dns.TypeCNAME), Target: target}
}

func (m maker) clusterIP(r *records, svc *corev1.Service, ips []netip.Addr) {
	r.exists = true
	r.self = map[netip.Addr]bool{}
	for _, a := range ips {
		r.self[a] = true
		r.add(m.address(r.name, a))
	}
	for _, p := range svc.Spec.Ports {
		if p.Name != "" {
			r.addPort(m.srv(p.Name, protocolOf(&p.Protocol), r.name, uint16(p.Port)), r.a, r.aaaa)
		}
	}
}

func (m maker) headless(r *records, endpoints []endpoint) {
	seen := map[netip.Addr]bool{}
	type listing struct {
		portKey
		host string
		port int32
	}
	listed := map[listing]bool{}
	for _, ep := range endpoints {
		r.exists = true
		if !seen[ep.addr] {
			seen[ep.addr] = true
			r.add(m.address(r.name, ep.addr))
		}
		for _, p := range ep.ports {
			if p.Name == nil || *p.Name == "" || p.Port == nil {
				continue
			}
			// An endpoint with an address in each family is in two slices,
			// and has one SRV record.
			at := listing{portKey{*p.Name, protocolOf(p.Protocol)}, ep.host, *p.Port}
			if !listed[at] {
				listed[at] = true
				h := r.hosts[ep.host]
				r.addPort(m.srv(*p.Name, at.protocol, r.name, uint16(*p.Port), ep.host), h.a, h.aaaa)
			}
		}
	}
}

// srv makes the SRV record of a port; its target is host in the Service, or
// the Service itself.
func (m maker) srv(port, protocol, service string, number uint16, host ...string) *dns.SRV {
	target := service
	if len(host) > 0 {
		target = host[0] + "." + service
	}
	return &dns.SRV{
		Hdr:    m.header("_"+strings.ToLower(port)+"._"+protocol+"."+service, dns.TypeSRV),
		Weight: 1, Port: number, Target: target,
	}
}

func (r *records) addPort(srv *dns.SRV, glue ...[]dns.RR) {
	if r.ports == nil {
		r.ports = map[portKey]portRecords{}
		r.protocols = map[string]bool{}
	}
	labels := dns.SplitDomainName(srv.Hdr.Name)
	key := portKey{labels[0][1:], labels[1][1:]}
	p := r.ports[key]
	p.srv = append(p.srv, srv)
	for _, rrs := range glue {
		p.glue = append(p.glue, rrs...)
	}
	r.ports[key] = p
	r.protocols[key.protocol] = true
}

func protocolOf(p *corev1.Protocol) string {
	if p == nil || *p == "" {
		return "tcp"
	}
	return strings.ToLower(string(*p))
}

// endpoint is one ready address and its name.
type endpoint struct {
	addr  netip.Addr
	host  string
	ports []discoveryv1.EndpointPort
}

// host is the name of an endpoint at one of its addresses.
func (m maker) host(ep *discoveryv1.Endpoint, addr string) string {
	switch {
	case ep.Hostname != nil && *ep.Hostname != "":
		return strings.ToLower(*ep.Hostname)
	case m.podNames && podOf(ep) != "":
		return podOf(ep)
	}
	return dashed(addr)
}

// podOf is the name of an endpoint's pod, "" where there is none or none that
// is a label.
func podOf(ep *discoveryv1.Endpoint) string {
	if ep.TargetRef == nil || len(ep.TargetRef.Name) > 63 {
		return ""
	}
	return strings.ToLower(ep.TargetRef.Name)
}

// endpoints lists the ready ones in a stable order, and enters their names
// and addresses into r.
func (m maker) endpoints(r *records, all []*discoveryv1.EndpointSlice) []endpoint {
	var out []endpoint
	for _, s := range all {
		for i := range s.Endpoints {
			ep := &s.Endpoints[i]
			if !ready(ep) {
				continue
			}
			for _, text := range ep.Addresses {
				if a, ok := parseAddr(text); ok {
					out = append(out, endpoint{a, m.host(ep, text), s.Ports})
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y endpoint) int {
		return cmp.Or(x.addr.Compare(y.addr), strings.Compare(x.host, y.host))
	})
	r.hosts = make(map[string]hostRecords, len(out))
	r.ptr = make(map[netip.Addr][]string, len(out))
	for i, ep := range out {
		if i > 0 && ep.addr == out[i-1].addr && ep.host == out[i-1].host {
			continue // the same endpoint in two slices
		}
		name := ep.host + "." + r.name
		h := r.hosts[ep.host]
		h.add(m.address(name, ep.addr))
		r.hosts[ep.host] = h
		r.ptr[ep.addr] = append(r.ptr[ep.addr], name)
	}
	return out
}
