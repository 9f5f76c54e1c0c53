package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// How often the cluster's own DNS server is asked how it is set up, and how
// soon again when it did not answer.
const (
	settingsEvery = 1 * time.Minute
	settingsAgain = 5 * time.Second
)

// settings are what the cluster's own DNS server was told that changes its
// answers (CoreDNS, plugin kubernetes). A laptop shall see what pods see.
type settings struct {
	// podNames: an endpoint without a hostname has its pod's name
	// (endpoint_pod_names), else its dashed address.
	podNames bool
	// echo: the dashed name of a pod answers with the address that it spells,
	// whether there is such a pod or not (pods insecure, as kubeadm has it).
	// Else only that server knows.
	echo bool
	// ttl of records in seconds, at least 1: with 0 a laptop's cache is of no
	// use.
	ttl uint32
}

// follow keeps to the settings of the cluster's own DNS server until ctx ends.
// They are found by asking, not by reading its configuration: that needs no
// permission, and is true for servers that are not CoreDNS.
func (z *Zone) follow(ctx context.Context) {
	if z.cfg.Upstream == nil {
		return
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		was := z.maker.Load().settings
		now, err := z.detect(ctx, was)
		if err != nil {
			z.log.Debug("cluster dns did not tell its settings", "err", err)
			next.Reset(settingsAgain)
			continue
		}
		if now != was {
			z.log.Info("cluster dns settings", "pod_names", now.podNames, "echo", now.echo, "ttl", now.ttl)
			z.set(now)
		}
		next.Reset(settingsEvery)
	}
}

// set makes the answers from now on follow s.
func (z *Zone) set(s settings) {
	z.maker.Store(&maker{zone: z.zone, settings: s})
	z.index.recompile()
}

// detect asks for names whose answers tell the settings. What they do not
// tell stays as it was. With an error nothing is known.
func (z *Zone) detect(ctx context.Context, s settings) (settings, error) {
	var failed error
	ask := func(name string, qtype uint16) *dns.Msg {
		ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
		defer cancel()
		q := new(dns.Msg)
		q.SetQuestion(name, qtype)
		m, err := z.cfg.Upstream.Exchange(ctx, q)
		switch {
		case err != nil:
		case m.Rcode == dns.RcodeSuccess, m.Rcode == dns.RcodeNameError:
			return m
		default:
			err = errors.New(dns.RcodeToString[m.Rcode])
		}
		failed = errors.Join(failed, fmt.Errorf("ask for %s: %w", name, err))
		return new(dns.Msg)
	}
	// The start of authority has the option ttl for its minimum, which caches
	// do not count down.
	soa, ok := startOf(ask(z.zone, dns.TypeSOA).Answer).(*dns.SOA)
	if !ok {
		return s, failed // not a server of this zone
	}
	s.ttl = max(1, min(soa.Minttl, z.cfg.TTL))
	// No pod has an address of TEST-NET-1, and every cluster has a namespace
	// of this name.
	const nobody = "192-0-2-1.default.pod."
	s.echo = holds(ask(nobody+z.zone, dns.TypeA), netip.AddrFrom4([4]byte{192, 0, 2, 1}))
	for _, e := range z.index.unnamed(4) {
		qtype := dns.TypeA
		if e.addr.Is6() {
			qtype = dns.TypeAAAA
		}
		service := "." + e.of.name + "." + e.of.namespace + ".svc." + z.zone
		if holds(ask(e.pod+service, qtype), e.addr) {
			s.podNames = true
			break
		}
		if holds(ask(e.dashed+service, qtype), e.addr) {
			s.podNames = false
			break
		}
	}
	return s, failed
}

// holds says whether a is among the addresses of m.
func holds(m *dns.Msg, a netip.Addr) bool {
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		var got netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			got, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			got, _ = netip.AddrFromSlice(rr.AAAA)
		}
		return got.Unmap() == a
	})
}
