package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

const (
	// watchEvery is how often a ready session looks after itself.
	watchEvery = 2 * time.Second
	// retryRenew is how soon a renewal is tried again that did not get through.
	retryRenew = 10 * time.Second
	// staleHandshake is when a session is overdue: WireGuard renews a session
	// in use every 120 s and gives it up after 180 s.
	staleHandshake = 150 * time.Second
)

// keep renews the lease and looks after the path until the session ends.
func (s *Session) keep(ctx context.Context) error {
	lease := time.Duration(s.Request.LeaseSeconds) * time.Second
	renewed := time.Now()
	renewal := int64(1)
	renew := time.NewTimer(jitter(lease / 3))
	defer renew.Stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	w := watch{base: s.baseNow(), redials: s.gateway.Status().Active.Redials}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.broken:
			return err
		case <-s.tunnel.Done():
			return errors.New("the tunnel's device is gone")
		case <-renew.C:
			renewal++
			err := s.renewAll(ctx, renewal)
			switch {
			case err == nil:
				renewed = time.Now()
				s.set(func(c *localapi.Connection) { c.Lease.Renewed, c.Lease.Error = &renewed, "" })
				s.clearWarning("lease")
				renew.Reset(jitter(lease / 3))
			case ended(err):
				return err
			default:
				s.leaseTrouble(err, time.Since(renewed), lease)
				renew.Reset(min(retryRenew, lease/6))
			}
		case <-tick.C:
			s.look(ctx, &w)
		}
	}
}

// jitter spreads renewals by a tenth either way.
func jitter(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}

// EndedError says why a session was over before anybody asked for that.
type EndedError struct {
	What string
	Err  error
}

func (e *EndedError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *EndedError) Unwrap() error { return e.Err }
func (e *EndedError) Code() string  { return localapi.CodeEnded }
func (e *EndedError) Hint() string {
	var forbidden *cluster.ForbiddenError
	if errors.As(e.Err, &forbidden) {
		return forbidden.Hint()
	}
	return "podnet connect begins a new session"
}

func ended(err error) bool {
	var e *EndedError
	return errors.As(err, &e)
}

// renewAll rewrites our objects with live credentials, which is what makes the
// API server ask again whether we may. An Access that is refused ends its
// namespace; the Peer, or the last Access, ends the session.
func (s *Session) renewAll(ctx context.Context, renewal int64) error {
	err := s.cluster.RenewPeer(ctx, s.Request.GatewayNamespace, s.peer, renewal)
	if isOver(err) {
		return &EndedError{"the session was ended", err}
	}
	if err != nil {
		return err
	}
	var failed error
	for _, ns := range slices.Clone(s.accesses) {
		err := s.cluster.RenewAccess(ctx, ns, s.peer, s.scope(), renewal)
		switch {
		case isOver(err):
			s.accesses = slices.DeleteFunc(s.accesses, func(o string) bool { return o == ns })
			if len(s.accesses) == 0 {
				return &EndedError{"access to " + s.opened(ns) + " ended", err}
			}
			s.lost(ctx, ns, err)
		case err != nil:
			failed = err
		}
	}
	return failed
}

func (s *Session) opened(ns string) string {
	if s.Request.AllNamespaces {
		return "the cluster"
	}
	return "namespace " + ns
}

// isOver tells a no from a failure to ask.
func isOver(err error) bool {
	var forbidden *cluster.ForbiddenError
	var refused *localapi.Error
	return errors.Is(err, cluster.ErrGone) || errors.As(err, &forbidden) || errors.As(err, &refused) && refused.Code == localapi.CodeForbidden
}

// lost takes a namespace out of the session.
func (s *Session) lost(ctx context.Context, ns string, why error) {
	s.set(func(c *localapi.Connection) {
		c.Namespaces = slices.DeleteFunc(slices.Clone(c.Namespaces), func(o string) bool { return o == ns })
		if c.Namespace == ns && len(c.Namespaces) > 0 {
			c.Namespace = c.Namespaces[0]
		}
	})
	s.warn(localapi.Warning{Code: "access-" + ns, Severity: "high", Text: "access to namespace " + ns + " ended: " + why.Error()})
	n, err := parseNetwork(s.granted)
	if err != nil {
		return
	}
	current, all := s.namespaces(ctx)
	s.split.SetNamespaces(current, all)
	if err := s.host.SetDNS(ctx, s.dnsWish(n, s.listening(), current, all)); err != nil {
		s.warnDNS("the host's resolver keeps names of namespace " + ns + ": " + err.Error())
	}
}

func (s *Session) listening() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []netip.Addr
	for _, l := range s.status.DNS.Listen {
		if ap, err := netip.ParseAddrPort(l); err == nil {
			all = append(all, ap.Addr())
		}
	}
	return all
}

func (s *Session) leaseTrouble(err error, since, lease time.Duration) {
	s.set(func(c *localapi.Connection) { c.Lease.Error = err.Error() })
	w := localapi.Warning{Code: "lease", Severity: "medium", Text: "the lease could not be renewed: " + err.Error()}
	if since > lease*2/3 {
		w.Severity = "high"
	}
	if since > lease {
		w.Text = fmt.Sprintf("the lease ended %v ago: %v", (since - lease).Round(time.Second), err)
	}
	s.warn(w)
}

// watch is what look remembers from one round to the next.
type watch struct {
	base    []netip.AddrPort
	redials int
	// doubt is since when the gateway may be another one.
	doubt time.Time
	rx    uint64
}

func (s *Session) baseNow() []netip.AddrPort {
	base, _ := s.host.DNS()
	return base
}

// look follows the host to other name servers, and the gateway's pod to a new
// one with a new key.
func (s *Session) look(ctx context.Context, w *watch) {
	if base := s.baseNow(); !slices.Equal(base, w.base) {
		w.base = base
		s.split.SetBase(base)
	}
	path := s.gateway.Status().Active
	st, ok := s.peerStats()
	if !ok {
		return
	}
	overdue := time.Since(st.LastHandshake) > staleHandshake
	if w.doubt.IsZero() && (path.Redials != w.redials || !path.Live || overdue) {
		w.doubt, w.rx = time.Now(), st.RxBytes
	}
	w.redials = path.Redials
	if w.doubt.IsZero() {
		return
	}
	if path.Live && (st.LastHandshake.After(w.doubt) || !overdue && st.RxBytes > w.rx) {
		w.doubt = time.Time{}
		s.clearWarning("gateway")
		return
	}
	s.doubt(ctx, path, time.Since(w.doubt))
}

// doubt asks the API whether the gateway has a new key, and says so when it
// stays silent.
func (s *Session) doubt(ctx context.Context, path transport.PathStatus, since time.Duration) {
	if since > 3*watchEvery {
		text := "the gateway does not answer"
		if path.LastError != nil {
			text += ": " + path.LastError.Error()
		}
		s.warn(localapi.Warning{Code: "gateway", Severity: "high", Text: text, Hint: "kubectl -n " + s.Request.GatewayNamespace + " get pods"})
	}
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	p, err := s.cluster.Peer(ctx, s.Request.GatewayNamespace, s.peer)
	if errors.Is(err, cluster.ErrGone) {
		s.breaks(&EndedError{"the session was ended", err})
		return
	}
	if err != nil || len(p.Status.Gateways) == 0 {
		return
	}
	fresh, known := p.Status.Gateways[0], s.granted.Status.Gateways[0]
	if fresh.PublicKey == known.PublicKey && slices.Equal(fresh.Endpoints, known.Endpoints) {
		return
	}
	s.granted.Status.Gateways = p.Status.Gateways
	s.Log.Info("gateway changed", "pod", fresh.Pod, "peer", fresh.PublicKey)
	if path.Kind == transport.UDP {
		if all := udpEndpoints(fresh); len(all) > 0 {
			s.gateway.UseUDP(all[0])
		}
	}
	peer, err := s.gatewayPeer(fresh)
	if err == nil {
		err = s.tunnel.SetPeers([]tunnel.Peer{peer})
	}
	if err != nil {
		s.Log.Warn("cannot follow the gateway", "err", err)
		return
	}
	s.set(func(c *localapi.Connection) { c.Gateway.Pod, c.Gateway.PublicKey = fresh.Pod, fresh.PublicKey })
}
