package dnsproxy

import (
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// AliasZone has below it a zone for each cluster that this machine has joined,
// with the same names as the cluster's own: web.shop.svc.blue.podnet.internal is
// web.shop.svc.cluster.local of blue. The domain internal is for private use.
const AliasZone = "podnet.internal."

// Group is the Splits of one machine. Whichever of them is asked, the one that
// knows a name by its alias, or an address by its routes, answers.
type Group struct {
	mu  sync.RWMutex
	all []*Split
}

func (g *Group) add(s *Split) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, s)
}

func (g *Group) remove(s *Split) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = slices.DeleteFunc(g.all, func(o *Split) bool { return o == s })
}

// owner is who answers for a name that not everybody answers for, asked first if
// it is one of his; nil: whoever was asked does.
func (g *Group) owner(asked *Split, name string) *Split {
	if asked.owns(name) {
		return nil
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.all {
		if s.owns(name) {
			return s
		}
	}
	return nil
}

func (s *Split) owns(name string) bool {
	v := s.view.Load()
	return v.alias != "" && Under(name, v.alias) || strings.HasSuffix(name, ".arpa.") && v.routed(name) || v.asksAlso(name)
}

// moved is a name below one zone, or that zone itself, below another. ok is false
// where there can be no such name.
func moved(name, from, to string) (_ string, ok bool) {
	if !Under(Canonical(name), from) {
		return name, true
	}
	name = name[:len(name)-len(from)] + to
	_, ok = dns.IsDomainName(name)
	return name, ok
}

// rename says in m's records to where they say from. It changes m, and copies the
// records that it changes. What cannot be said is left out.
func rename(m *dns.Msg, from, to string) {
	m.Answer, m.Ns, m.Extra = renamed(m.Answer, from, to), renamed(m.Ns, from, to), renamed(m.Extra, from, to)
}

func renamed(rrs []dns.RR, from, to string) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		rr = dns.Copy(rr)
		said := true
		for _, name := range namesIn(rr) {
			var ok bool
			*name, ok = moved(*name, from, to)
			said = said && ok
		}
		if said {
			out = append(out, rr)
		}
	}
	return out
}

// namesIn are the names in a record of the kinds that clusters have.
func namesIn(rr dns.RR) []*string {
	names := []*string{&rr.Header().Name}
	switch rr := rr.(type) {
	case *dns.CNAME:
		names = append(names, &rr.Target)
	case *dns.SRV:
		names = append(names, &rr.Target)
	case *dns.PTR:
		names = append(names, &rr.Ptr)
	case *dns.SOA:
		names = append(names, &rr.Ns, &rr.Mbox)
	case *dns.NS:
		names = append(names, &rr.Ns)
	case *dns.MX:
		names = append(names, &rr.Mx)
	}
	return names
}
