package dnsproxy

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// SplitConfig is what the laptop's side needs to know.
type SplitConfig struct {
	// Domain is the cluster's zone; default "cluster.local".
	Domain string
	// Namespace is where single labels are looked up first; "": nowhere.
	Namespace string
	// Namespaces are the ones this session sees: their short forms are the
	// cluster's, those of all others are not.
	Namespaces []string
	// Alias is the zone below AliasZone whose names are the cluster's whoever is
	// primary; "": none.
	Alias string
	// Secondary says that another cluster is primary: single labels, short forms
	// and names in Domain are not this one's.
	Secondary bool
	// Group has the Splits of this machine's other clusters; nil: there are none.
	Group *Group
	// Also are domains beside the cluster whose names it is asked for as well.
	Also []string
	// Cluster is asked for cluster names: a Forwarder through the tunnel.
	Cluster Exchanger
	// Base are the resolvers the machine had before podnet came.
	Base []netip.AddrPort
	// BaseDial defaults to the host's network.
	BaseDial Dial
	// ReverseZones are the routed prefixes: PTR questions in them go to the
	// cluster, and address families without any are not answered from it.
	ReverseZones []netip.Prefix
	// Forbid names addresses that the cluster's answers may not point at,
	// besides those that never leave a machine or a link; nil: no others.
	Forbid func(netip.Addr) bool
	// Given hears of the addresses in an answer of the cluster's before anybody else
	// does; nil: nobody. See give.
	Given func(iter.Seq[netip.Addr])
	Log   *slog.Logger
}

// Split is the laptop's Handler: cluster names to the cluster, all others to
// the base resolvers, and never a name to the wrong side. Short forms are
// completed here and not by the OS, since no resolver on a laptop completes
// dotted names the way a pod's does (systemd-resolved never, musl never).
type Split struct {
	cfg     SplitConfig
	log     *slog.Logger
	cluster *Cache
	classes [len(classNames)]atomic.Uint64
	recent  recent

	view  atomic.Pointer[view]
	base  atomic.Pointer[baseResolver]
	check atomic.Pointer[check] // nil: none yet

	mu sync.Mutex // one Set at a time
}

// baseResolver is the way to one list of base servers.
type baseResolver struct {
	forward *Forwarder
	cache   *Cache
}

// NewSplit makes the handler. Close it when its server has ended.
func NewSplit(cfg SplitConfig) *Split {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Group == nil {
		cfg.Group = new(Group)
	}
	s := &Split{cfg: cfg, log: cfg.Log, cluster: NewCache(cfg.Cluster)}
	v := newView(cfg.Domain, cfg.Namespace, cfg.Namespaces, cfg.ReverseZones)
	if v.secondary = cfg.Secondary; cfg.Alias != "" {
		v.alias = Canonical(cfg.Alias)
	}
	for _, domain := range cfg.Also {
		v.also = append(v.also, Canonical(domain))
	}
	s.view.Store(v)
	s.SetBase(cfg.Base)
	cfg.Group.add(s)
	return s
}

// SetNamespaces changes which namespace single labels mean and which ones the
// session sees.
func (s *Split) SetNamespaces(current string, all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.view.Load()
	v := newView(old.zone, current, all, old.reverse)
	v.alias, v.secondary, v.also = old.alias, old.secondary, old.also
	s.view.Store(v)
	s.Flush()
}

// SetSecondary says whether another cluster is primary from now on.
func (s *Split) SetSecondary(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *s.view.Load()
	v.secondary = yes
	s.view.Store(&v)
	s.Flush()
}

// SetReverseZones changes the routed prefixes. The same ones again change nothing.
func (s *Split) SetReverseZones(prefixes []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.view.Load()
	if slices.Equal(old.reverse, prefixes) {
		return
	}
	old.reverse = prefixes
	s.view.Store(&old)
	s.Flush()
}

// SetBase changes the resolvers for everything that is not the cluster's. It
// may be called often: the same ones again change nothing.
func (s *Split) SetBase(servers []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.base.Load(); old != nil && slices.Equal(old.forward.cfg.Servers, servers) {
		return
	}
	f := NewForwarder(ForwarderConfig{Servers: servers, Dial: s.cfg.BaseDial, Log: s.log})
	if old := s.base.Swap(&baseResolver{f, NewCache(f)}); old != nil {
		old.forward.Close()
	}
}

// Flush forgets all answers.
func (s *Split) Flush() {
	s.cluster.Flush()
	s.base.Load().cache.Flush()
}

// Close leaves the Group and gives back the sockets to the base resolvers.
func (s *Split) Close() error {
	s.cfg.Group.remove(s)
	return s.base.Load().forward.Close()
}

// Classes counts the questions since the start by the class of their name.
func (s *Split) Classes() map[string]uint64 {
	out := map[string]uint64{}
	for i := range s.classes {
		out[class(i).String()] = s.classes[i].Load()
	}
	return out
}

func (s *Split) serve(ctx context.Context, r *Request, tr *trace) *dns.Msg {
	if o := s.cfg.Group.owner(s, r.Name()); o != nil {
		s = o
	}
	if m := s.checked(r); m != nil {
		return m
	}
	v := s.view.Load()
	rt := v.classify(r.Name())
	s.classes[rt.class].Add(1)
	tr.is(s, rt.class)
	switch rt.class {
	case classLocalhost:
		return localhost(r.Question())
	case classNowhere:
		if Under(r.Name(), AliasZone) {
			return nowhere(AliasZone)
		}
		return nowhere(v.zone)
	case classOther:
		return s.askBase(ctx, r, Refuse(dns.RcodeServerFailure), tr)
	case classZone:
		if above, ok := v.searched(rt.target); ok {
			if m := s.askAbove(ctx, r, above, tr); m != nil {
				return m
			}
		}
	}
	resp, err := tr.exchange(ctx, SideCluster, s.cluster, Query(r.Msg, rt.target))
	if err != nil {
		s.log.Debug("cluster did not answer a dns question", "err", err)
		return Refuse(dns.RcodeServerFailure)
	}
	out := filter(resp, rt.target, v, s.cfg.Forbid)
	s.give(v, rt.target, out)
	if resp.Rcode == dns.RcodeNameError && rt.orBase {
		return s.askBase(ctx, r, out, tr)
	}
	if rt.class == classAlias || rt.class == classReverse && v.secondary && v.alias != "" {
		rename(out, v.zone, v.alias)
		rt.target, _ = moved(rt.target, v.zone, v.alias)
	}
	out.Answer = withOwner(out.Answer, rt.target, r.Question().Name)
	return out
}

// askBase asks the base resolvers. Where there are none, alone is the answer.
func (s *Split) askBase(ctx context.Context, r *Request, alone *dns.Msg, tr *trace) *dns.Msg {
	resp, err := tr.exchange(ctx, SideBase, s.base.Load().cache, Query(r.Msg, r.Name()))
	if errors.Is(err, ErrNoServers) {
		return alone
	}
	if err != nil {
		s.log.Debug("base resolvers did not answer a dns question", "err", err)
		return Refuse(dns.RcodeServerFailure)
	}
	return resp
}

// localhost answers for this machine without asking anybody.
func localhost(q dns.Question) *dns.Msg {
	m := new(dns.Msg)
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 3600}
	switch q.Qtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: netip.AddrFrom4([4]byte{127, 0, 0, 1}).AsSlice()}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: netip.IPv6Loopback().AsSlice()}}
	}
	return m
}

// nowhere is NXDOMAIN on our own authority.
func nowhere(zone string) *dns.Msg {
	m := Refuse(dns.RcodeNameError)
	m.Ns = []dns.RR{SOA(zone, zone, 1, 5)}
	return m
}

// SOA is the start of authority owner of the cluster's zone, in the form that
// cluster DNS servers give it. ttl is in seconds and also the minimum: how
// long a negative answer may be kept.
func SOA(owner, zone string, serial, ttl uint32) *dns.SOA {
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: min(ttl, 300)},
		Ns:      "ns.dns." + zone,
		Mbox:    "hostmaster." + zone,
		Serial:  serial,
		Refresh: 7200,
		Retry:   1800,
		Expire:  86400,
		Minttl:  ttl,
	}
}
