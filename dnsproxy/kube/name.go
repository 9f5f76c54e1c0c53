package kube

import (
	"net/netip"
	"strings"
)

// kind is what a name in the cluster's zone is about.
type kind uint8

const (
	kindUnknown   kind = iota // nothing this zone has by itself
	kindApex                  // the zone
	kindVersion               // dns-version
	kindServer                // ns.dns
	kindEmpty                 // a name that exists only because others are below it
	kindNamespace             // <ns>.svc or <ns>.pod
	kindService               // <svc>.<ns>.svc
	kindProtocol              // _<proto>.<svc>.<ns>.svc
	kindPort                  // _<port>._<proto>.<svc>.<ns>.svc
	kindHost                  // <hostname>.<svc>.<ns>.svc
	kindPod                   // <a-b-c-d>.<ns>.pod
	kindBelowPod              // anything below that: nothing
)

// question is a parsed name. Fields that its kind has no use for are empty.
type question struct {
	kind      kind
	namespace string
	service   string
	host      string // of an endpoint
	port      string // name, without its underscore
	protocol  string // without its underscore
	pod       string
	// scoped: the name lies below a namespace, seen or not.
	scoped bool
	// zonal: the name is a Service's in some of the cluster's zones,
	// <zone>.pin._zone.<svc>.<ns>.svc, which CoreDNS can do and we leave to it.
	zonal bool
}

// parse reads prefix, which is a canonical name without the zone and without
// the dot before it. Names deeper than the specification knows are
// kindUnknown, but keep their namespace and Service: whether one may be told
// about them depends on it.
func parse(prefix string) question {
	switch prefix {
	case "":
		return question{kind: kindApex}
	case "dns-version":
		return question{kind: kindVersion}
	case "ns.dns":
		return question{kind: kindServer}
	case "dns", "svc", "pod":
		return question{kind: kindEmpty}
	}
	rest, last := cutLast(prefix)
	switch last {
	case "svc":
		return parseService(rest)
	case "pod":
		return parsePod(rest)
	}
	return question{}
}

func parseService(prefix string) question {
	prefix, ns := cutLast(prefix)
	q := question{namespace: ns, scoped: true}
	if prefix == "" {
		q.kind = kindNamespace
		return q
	}
	prefix, q.service = cutLast(prefix)
	if prefix == "" {
		q.kind = kindService
		return q
	}
	prefix, label := cutLast(prefix)
	protocol, underscored := strings.CutPrefix(label, "_")
	switch {
	case !underscored && prefix == "":
		q.kind, q.host = kindHost, label
	case underscored && prefix == "":
		q.kind, q.protocol = kindProtocol, protocol
	case label == "_zone":
		q.zonal = strings.Contains(prefix, ".")
	case underscored && !strings.Contains(prefix, "."):
		port, ok := strings.CutPrefix(prefix, "_")
		if ok {
			q.kind, q.port, q.protocol = kindPort, port, protocol
		}
	}
	return q
}

func parsePod(prefix string) question {
	prefix, ns := cutLast(prefix)
	q := question{namespace: ns, scoped: true}
	switch {
	case prefix == "":
		q.kind = kindNamespace
	case !strings.Contains(prefix, "."):
		q.kind, q.pod = kindPod, prefix
	default:
		q.kind = kindBelowPod
	}
	return q
}

// trimZone takes zone, and the dot before it, off a name under it.
func trimZone(name, zone string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, zone), ".")
}

// cutLast splits the last label off.
func cutLast(name string) (rest, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// parseDashed reads an address with dashes for dots or colons, as in the
// names of pods.
func parseDashed(s string) (netip.Addr, bool) {
	sep := ":"
	if strings.Count(s, "-") == 3 && !strings.Contains(s, "--") {
		sep = "."
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(s, "-", sep))
	return a, err == nil && a.Zone() == ""
}

var dashes = strings.NewReplacer(".", "-", ":", "-")

// dashed is the name of an endpoint that has no hostname. The specification
// leaves its form open; this is the one that CoreDNS gives, so pods and
// laptops see the same: the address as the slice spells it. A label must not
// end in a dash (RFC 1123), hence the zero.
func dashed(addr string) string {
	s := dashes.Replace(strings.ToLower(addr))
	if strings.HasSuffix(s, "-") {
		s += "0"
	}
	return s
}
