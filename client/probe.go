package client

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/httpjson"
)

// probeTime is for the route and the two questions of a trial.
const probeTime = 5 * time.Second

// trial is what a session is tried with, as it was at one moment.
type trial struct {
	session *Session
	network network
	inward  dnsproxy.Dial
	proxy   netip.AddrPort
	host    helper.Session
	split   *dnsproxy.Split
	wish    osdns.Config
}

// trial is for whoever may look at the session's parts: connect, and then its loop.
func (s *Session) trial() trial {
	return trial{s, s.hosted, s.inward(), netip.AddrPortFrom(s.resolver.listening()[0], 53), s.host, s.resolver.split, s.resolver.wish}
}

// tunnel tries where the host would send a packet, a question to the cluster's DNS
// through the tunnel, for whose answer it gives the time, and one to the proxy.
func (t trial) tunnel(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := t.session.checkRoute(ctx, t.network); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := ask(ctx, t.inward, netip.AddrPortFrom(t.network.dns[0], 53), t.network.domain+"."); err != nil {
		return 0, &localapi.Error{Code: localapi.CodeDNS, Message: "the gateway's DNS does not answer through the tunnel: " + err.Error(),
			Hint: "podnet connect --path apiserver shows whether the path is to blame", Status: http.StatusGatewayTimeout}
	}
	rtt := time.Since(began)
	if err := ask(ctx, t.session.Dial, t.proxy, "kubernetes.default.svc."+t.session.zone()+"."); err != nil {
		return 0, &localapi.Error{Code: localapi.CodeDNS, Message: "the DNS proxy on this machine does not answer: " + err.Error(),
			Hint: "a firewall of this machine may block port 53 on its own addresses", Status: http.StatusGatewayTimeout}
	}
	return rtt, nil
}

// names tries whether programs of this host get the cluster's names. A busy machine
// may be slow once: two noes count.
func (t trial) names(ctx context.Context) error {
	if namesReach(ctx, t.host, t.split, t.wish) == nil {
		return nil
	}
	return namesReach(ctx, t.host, t.split, t.wish)
}

// probe tries once what the user is going to do.
func (s *Session) probe(ctx context.Context) (string, error) {
	t := s.trial()
	rtt, err := t.tunnel(ctx)
	if err != nil {
		return "", err
	}
	s.namesFound(t.names(ctx))
	s.set(func(c *localapi.Connection) {
		c.DNS.Probe = "ok"
		c.Tunnel.RTTMs = milliseconds(rtt)
	})
	return fmt.Sprintf("DNS answered in %.1f ms", milliseconds(rtt)), nil
}

// Probe tries a session that is ready as connecting did at its end.
func (s *Session) Probe(ctx context.Context) (localapi.Probe, error) {
	if !s.ready.Load() {
		return localapi.Probe{}, notReady()
	}
	taken := make(chan trial, 1)
	select {
	case s.wishes <- func() { taken <- s.trial() }:
	case <-ctx.Done():
		return localapi.Probe{}, ctx.Err()
	case <-s.jobs.ctx.Done():
		return localapi.Probe{}, notReady()
	}
	t := <-taken
	rtt, err := t.tunnel(ctx)
	p := localapi.Probe{RTTMs: milliseconds(rtt), Tunnel: httpjson.FromError(err)}
	if err := t.names(ctx); err != nil {
		p.Names = &localapi.Error{Code: localapi.CodeDNS, Message: err.Error(), Hint: "podnet doctor says how this machine resolves names"}
	}
	return p, ctx.Err()
}
