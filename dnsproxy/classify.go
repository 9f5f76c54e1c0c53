package dnsproxy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/net/publicsuffix"
)

// class is what a name is, seen from a laptop that has joined a cluster.
type class uint8

const (
	classOther     class = iota // the base resolvers' business
	classZone                   // in the cluster's zone
	classShort                  // a short form: web.shop, web.shop.svc
	classSingle                 // one label: web
	classReverse                // an address of a routed prefix
	classLocalhost              // this machine (RFC 6761 section 6.3)
	classNowhere                // would be a cluster name, but not one for us
	classAlias                  // in the zone that is the cluster's whoever is primary
	classAlso                   // in a domain that the cluster is asked for as well
)

var classNames = [...]string{"other", "zone", "short", "single", "reverse", "localhost", "nowhere", "alias", "also"}

func (c class) String() string { return classNames[c] }

// route says whom to ask for a name.
type route struct {
	class class
	// target is the name to ask the cluster for; "" means not to ask it.
	target string
	// orBase: when the cluster says that there is no such name, the base
	// resolvers get their turn.
	orBase bool
}

// view is what classification depends on. It never changes once made.
type view struct {
	zone       string // canonical
	namespace  string // of single labels; "": none
	namespaces map[string]bool
	reverse    []netip.Prefix
	alias      string // canonical; "": none
	// secondary says that short names and the zone are another cluster's.
	secondary bool
	also      []string // canonical domains
}

func newView(domain, namespace string, namespaces []string, reverse []netip.Prefix) *view {
	if domain == "" {
		domain = "cluster.local"
	}
	v := &view{
		zone:       Canonical(domain),
		namespace:  strings.ToLower(namespace),
		namespaces: map[string]bool{},
		reverse:    reverse,
	}
	for _, ns := range namespaces {
		v.namespaces[strings.ToLower(ns)] = true
	}
	return v
}

// classify decides about a canonical name. A name that could be the
// cluster's never goes to the base resolvers first, and one that could not is
// never shown to the cluster.
func (v *view) classify(name string) route {
	switch {
	case Under(name, AliasZone):
		return v.aliased(name)
	case Under(name, v.zone):
		if v.secondary {
			return route{class: classNowhere}
		}
		return route{class: classZone, target: name}
	case v.asksAlso(name):
		return route{class: classAlso, target: name}
	}
	if strings.HasSuffix(name, ".arpa.") {
		if v.routed(name) {
			return route{class: classReverse, target: name}
		}
		return route{class: classOther}
	}
	if name == "." {
		return route{class: classOther}
	}
	if Under(name, "localhost.") {
		return route{class: classLocalhost}
	}
	labels := dns.SplitDomainName(name)
	n := len(labels)
	last := labels[n-1]
	switch {
	case n == 1:
		return v.single(name, last)
	case last == "svc", last == "pod":
		if v.namespaces[labels[n-2]] && !v.secondary {
			return v.short(name, v.zone, false)
		}
		// No such top-level domain exists, so nobody outside needs to see
		// which Services of which namespaces this laptop looks for.
		return route{class: classNowhere}
	case v.namespaces[last] && !v.secondary:
		public := topLevel(last)
		if public && !shortForm(labels) {
			return route{class: classOther}
		}
		return v.short(name, "svc."+v.zone, public)
	}
	return route{class: classOther}
}

// aliased is for names of the zone of aliases, where nobody else answers.
func (v *view) aliased(name string) route {
	if v.alias == "" || !Under(name, v.alias) {
		return route{class: classNowhere}
	}
	target, ok := moved(name, v.alias, v.zone)
	if !ok {
		return route{class: classNowhere}
	}
	return route{class: classAlias, target: target}
}

// asksAlso says whether a name is in a domain beside the cluster that it is asked for.
func (v *view) asksAlso(name string) bool {
	return slices.ContainsFunc(v.also, func(domain string) bool { return Under(name, domain) })
}

// single is for names of one label, which the OS has not completed: the
// session's namespace is tried before the network's own hosts. wpad and
// isatap configure a laptop's proxy and network: no cluster may claim them.
func (v *view) single(name, label string) route {
	if v.secondary || v.namespace == "" || label == "wpad" || label == "isatap" {
		return route{class: classOther}
	}
	r := v.short(name, v.namespace+".svc."+v.zone, true)
	if r.class == classShort {
		r.class = classSingle
	}
	return r
}

// short completes name with suffix.
func (v *view) short(name, suffix string, orBase bool) route {
	target := name + suffix
	if _, ok := dns.IsDomainName(target); !ok {
		return route{class: classNowhere} // longer than a name can be
	}
	return route{class: classShort, target: target, orBase: orBase}
}

// shortForm says whether labels, the last of which is a namespace, have the
// form of a Service, one of its endpoints, or a port of either. Deeper ones
// below a namespace that is also a public domain belong to the public.
func shortForm(labels []string) bool {
	n := len(labels)
	if n >= 4 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_") {
		n -= 2
	}
	return n <= 3
}

// routed says whether name, or what it is below of, stands for addresses
// inside one of the routed prefixes.
func (v *view) routed(name string) bool {
	for rest := name; rest != ""; {
		if p := ParseReversePrefix(rest); p.IsValid() {
			for _, r := range v.reverse {
				if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
					return true
				}
			}
			return false
		}
		_, rest, _ = strings.Cut(rest, ".")
	}
	return false
}

// topLevel says whether label is a domain that somebody outside the cluster
// may answer for: delegated in the public root, or in common use at home and
// at work.
func topLevel(label string) bool {
	switch label {
	case "test", "example", "invalid", "local", "localdomain", "lan", "home", "corp", "internal", "intranet", "private", "mail", "onion", "alt":
		return true
	}
	// The rule for a name below, because some domains are listed by the
	// wildcard for their children only.
	_, icann := publicsuffix.PublicSuffix("x." + label)
	return icann
}
