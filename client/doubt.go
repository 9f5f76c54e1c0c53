package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/transport"
)

// judge decides whether the gateway in use is to be doubted, and looks for
// another one as long as it is.
func (k *keeper) judge(r *remote, st transport.GatewayStatus) {
	live := st.Active.Kind != ""
	if live && !st.Draining && !r.entry.Draining && k.isOurs(r) {
		k.settled()
		k.checkHandshake(r)
		return
	}
	if k.doubt == nil {
		k.doubt = &doubt{since: time.Now()}
		k.refresh.Reset(0)
		if live && k.isOurs(r) {
			k.tell(localapi.Event{Type: localapi.EventGateway, Text: "gateway " + r.entry.Pod + " is about to stop"})
		}
	}
	if k.enrol.why == "" {
		k.tryOthers(r)
	}
	if since := time.Since(k.doubt.since); !live && since > 3*watchEvery {
		k.warn(localapi.Warning{Code: "gateway", Severity: "high", Text: "the gateway does not answer: " + failures(st) + k.verdict(), Hint: "podnet doctor; kubectl -n " + k.Request.GatewayNamespace + " get pods"})
	}
}

// verdict is what the gateway says of us in the API, if that is not good.
func (k *keeper) verdict() string {
	if _, message := cut(k.member.granted); message != "" {
		return "; " + message
	}
	return ""
}

// settled ends the doubt: the gateway in use answers.
func (k *keeper) settled() {
	if k.doubt == nil {
		return
	}
	k.doubt = nil
	k.jobs.stop("find")
	k.refresh.Stop()
	k.clear("gateway", "the gateway answers again")
	if k.hushed {
		k.hushed = false
		k.lookAround(true)
	}
}

// hush ends the pings to the candidates of a gateway that seems to be dead: they
// would take the mapping of the one that comes in its place. Where the API
// server is away as well it is more likely us who are cut off; then they go on,
// for there is no other way back.
func (k *keeper) hush() {
	if k.doubt != nil && k.link.remote().Status().Active.Kind == "" && k.link.only != transport.UDP {
		k.hushed = true
		k.link.invite(nil)
	}
}

// tryOthers begins to try the gateways that are not the one in use, unless that
// is being done. The one in use is tried all the time, by its own paths.
func (k *keeper) tryOthers(r *remote) {
	others := rank(k.member.Peer, k.member.granted.Status.Gateways)
	if k.isOurs(r) {
		others = slices.DeleteFunc(others, func(g v1alpha1.Gateway) bool { return g.PublicKey == r.entry.PublicKey })
	}
	var names []string
	for _, g := range others {
		// A gateway that has just started publishes its addresses one by one.
		names = append(names, fmt.Sprint(g.Pod, g.PublicKey, g.Endpoints))
	}
	if tries := strings.Join(names, ","); tries != k.doubt.tries {
		k.doubt.tries = tries
		k.jobs.stop("find")
	}
	if len(others) == 0 {
		return
	}
	m := k.member
	k.jobs.start("find", func(ctx context.Context) outcome {
		found, err := k.link.find(ctx, m, others)
		if err != nil {
			k.Log.Debug("no other gateway answers", "err", err)
			return outcome{} // look tries again
		}
		return outcome{
			apply: func() error {
				if m != k.member || k.doubt == nil {
					return found.Close()
				}
				k.move(found)
				return nil
			},
			drop: func() { _ = found.Close() },
		}
	})
}

// move makes r the session's gateway. Flows do not survive that: what there is
// of this machine's ends with an error rather than wait for ever.
func (k *keeper) move(r *remote) {
	old, before := k.link.remote(), k.hosted.own
	drains := old.entry.Draining || old.Status().Draining
	k.jobs.stop("greet")
	k.link.invite(nil)
	if err := k.link.adopt(k.member, r); err != nil {
		_ = r.Close()
		k.warn(localapi.Warning{Code: "gateway", Severity: "high", Text: "the tunnel cannot follow the gateway: " + err.Error()})
		return
	}
	k.using(r)
	k.fit(r.Status())
	if old.self != r.self {
		k.resettle(before)
	} else {
		k.rewire()
	}
	k.reset(before)
	k.stale, k.hushed = false, false
	k.startGreet(r, true)
	k.lookAround(true)
	why := "the old one fell silent"
	switch {
	case old.self != r.self:
		why = "enrolled again"
	case old.entry.Pod == r.entry.Pod:
		why = "it has started anew"
	case drains:
		why = "the old one is about to stop"
	}
	k.tell(localapi.Event{Type: localapi.EventGateway, Text: fmt.Sprintf("gateway %s: %s", r.entry.Pod, why)})
}

// reset ends this machine's flows from the given addresses of the tunnel.
func (k *keeper) reset(own []netip.Addr) {
	n, err := k.host.ResetFlows(k.jobs.ctx, own)
	if err != nil {
		k.Log.Warn("cannot end old flows", "err", err)
	}
	if n > 0 {
		k.Log.Info("old flows ended", "count", n)
	}
}

// resettle moves the host from the addresses before to those of the member. For
// a moment it has both, so that at no time a question for a name is lost.
func (k *keeper) resettle(before []netip.Addr) {
	n := k.member.network
	err := k.setNetwork(n, before...)
	if err == nil {
		err = k.setNames(k.jobs.ctx, n)
	}
	if err == nil {
		err = k.setNetwork(n)
	}
	if err != nil {
		k.hosted = n // rewire goes on with it
		k.warn(localapi.Warning{Code: "routes", Severity: "high", Text: "the tunnel has new addresses, and this machine cannot have them: " + err.Error(), Hint: hint(err)})
		return
	}
	k.clear("routes", "the routes to the cluster are well again")
}

// startRefresh reads our Peer: which gateways there are, and where.
func (k *keeper) startRefresh() {
	if k.enrol.why != "" {
		return // there is none
	}
	m, g, over, begun := k.member, k.member.grant, k.leaseOver(), k.uptime()
	k.jobs.start("refresh", func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, retryEvery)
		defer cancel()
		p, err := k.cluster.Peer(ctx, g.Namespace, g.Peer)
		return outcome{apply: func() error {
			if m != k.member {
				return nil
			}
			if k.doubt != nil {
				k.refresh.Reset(k.doubt.pause())
			}
			var away *cluster.UnreachableError
			switch {
			case errors.Is(err, cluster.ErrGone) && over && !k.meant:
				k.again("the lease is over")
			case errors.Is(err, cluster.ErrGone):
				k.renew.Reset(0) // which makes sure
			case errors.As(err, &away):
				k.trouble(err, begun) // and renew as soon as it answers
			case err != nil:
				k.Log.Debug("cannot read our peer", "peer", g.Peer, "err", err)
			default:
				k.hush()
				k.fresh(p)
				k.heed(p)
			}
			return nil
		}}
	})
}

// pause until the API is asked again: 0.5, 1, 2, 2, ... s.
func (d *doubt) pause() time.Duration {
	p := min(500*time.Millisecond<<min(d.asked, 2), 2*time.Second)
	d.asked++
	return jitter(p)
}

// fresh takes over what the gateways say now.
func (k *keeper) fresh(p *v1alpha1.Peer) {
	r := k.link.remote()
	n, err := k.objects.network(p)
	if err != nil {
		k.Log.Debug("the gateway's word is not understood", "peer", k.member.Peer, "err", err)
		return
	}
	k.learn(p)
	if !n.equal(k.member.network) {
		k.renumber(r, n)
		k.readdress()
	}
	for _, g := range p.Status.Gateways {
		if g.PublicKey == r.entry.PublicKey && k.isOurs(r) {
			r.aim(g)
			k.using(r)
			k.heedLimits(g.Limits)
		}
	}
}

// renumber follows the cluster to other networks: a node with a new range of
// pods, or another address for us when a lease was over for a moment.
func (k *keeper) renumber(r *remote, n network) {
	k.member.network = n
	k.resolvers.Store(&n.dns)
	if err := k.link.allow(k.member); err != nil {
		k.Log.Warn("cannot follow the cluster's networks", "err", err)
	}
	if !k.isOurs(r) {
		return // move will see to the rest
	}
	if before := k.hosted.own; !slices.Equal(before, n.own) {
		k.resettle(before)
		k.reset(slices.DeleteFunc(slices.Clone(before), func(a netip.Addr) bool { return slices.Contains(n.own, a) }))
		return
	}
	k.hosted = n
	k.rewire()
	if err := k.setNames(k.jobs.ctx, n); err != nil { // those of its addresses
		k.warnDNS("the host's resolver does not follow the cluster's networks: " + err.Error())
	}
}

// heed acts on a gateway's refusal of a Peer whose lease we hold to be good.
func (k *keeper) heed(p *v1alpha1.Peer) {
	if k.doubt == nil || k.uptime()-k.tried < retryEvery {
		return // it may not have seen the last renewal yet
	}
	switch reason, message := cut(p); reason {
	case v1alpha1.ReasonExpired:
		k.renew.Reset(0) // which brings it back
	case v1alpha1.ReasonConflict, v1alpha1.ReasonLimitReached:
		k.again("the gateway let go of us: " + message)
	}
}

// checkHandshake makes a new handshake where the old one is of no use any more.
func (k *keeper) checkHandshake(r *remote) {
	_, _, last := k.link.counted()
	if k.stale || !last.IsZero() && time.Since(last) > staleHandshake {
		k.startGreet(r, false)
	}
}

// startGreet makes sure of a handshake. A gateway that answers probes but no
// handshake has seen our key with a later time than ours now, because somebody
// set the clock back, or it has lost its mind. A new key helps in both cases.
func (k *keeper) startGreet(r *remote, fresh bool) {
	m := k.member
	k.jobs.start("greet", func(ctx context.Context) outcome {
		err := k.link.greet(ctx, m, r, fresh)
		return outcome{apply: func() error {
			switch st := r.Status(); {
			case m != k.member || r != k.link.remote() || errors.Is(err, context.Canceled):
			case err == nil:
				k.stale = false
			case st.Active.Kind == "": // no wonder
				k.stale = true
			default:
				k.stale = true
				k.again("the gateway answers by " + pathName(st.Active) + ", but makes no handshake")
			}
			return nil
		}}
	})
}
