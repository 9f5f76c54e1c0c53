package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/internal/transport"
)

const (
	// watchEvery is how often a ready session looks after itself without having
	// been told to.
	watchEvery = 2 * time.Second
	// retryEvery is how soon the API server is asked again that did not answer.
	retryEvery = 5 * time.Second
	// staleHandshake is when a WireGuard session is over: REJECT_AFTER_TIME. One
	// in use is renewed every 120 s, and the keepalive uses it every 25 s.
	staleHandshake = 180 * time.Second
	// longSleep is from when on WireGuard's timers, which stand still while the
	// machine sleeps, are not to be relied on.
	longSleep = time.Minute
	// seekEvery is how often a session that could be by UDP and is not asks where
	// the gateway is, for the first time after seekFirst. The pause between two
	// tries from another port begins with it too and doubles to seekMax.
	seekFirst = 3 * time.Second
	seekEvery = 30 * time.Second
	seekMax   = 10 * time.Minute
	// sureTime is how long a no has to stand before it ends a session, sureEvery
	// how often it is asked for meanwhile. An API server that has just started
	// says no to everybody, and knows no Peer, until it has read its own rules.
	// The gateway cuts whoever has to go without asking us.
	sureTime  = 8 * time.Second
	sureEvery = 2 * time.Second
	// flowsKept is how long the gateway keeps the flows of a laptop that says
	// nothing (internal/netstack: a sign of life is asked for after 60 s, four
	// times within 60 s more).
	flowsKept = 2 * time.Minute
	// frozenMax is how long gateways keep peers while the API server is away
	// (gateway/enrol.FrozenLimit).
	frozenMax = 60 * time.Minute
	// enrolMin and enrolMax are the pauses between attempts to enrol again.
	enrolMin = 5 * time.Second
	enrolMax = time.Minute
)

// keeper looks after a session that is ready. Two things can be wrong with it,
// each without the other:
//
//	the way to the gateway                 the lease
//
//	     fine                                   held <------------------+
//	      | no path is live, or                  | renewing fails        |
//	      | the gateway drains, or               v                       |
//	      | it knows an old key of ours         overdue --renewed--------+
//	      v                                      | the Peer is gone, and |
//	     doubt: ask the API which gateways       | the lease was over    |
//	      | there are, try the others            v                       |
//	      | of them                             over: enrol again -------+
//	      |                                      with a new key
//	      +-- a path is live again: fine
//	      +-- another gateway answers: move there, reset the flows: fine
//
// What ends a session: a lost permission, a Peer that somebody deletes while its
// lease runs, a part of the host that breaks, and whoever asked for it. What
// does not: a path, a gateway, the API server, a network, a night. Routes stay
// meanwhile, so that nothing leaks to where it does not belong.
//
// All of its state belongs to the goroutine of run. What may take a while is
// done by jobs: renew and refresh ask about the Peer, find tries gateways, greet
// makes a handshake, enrol enrols, look finds out where we may be reached, address
// asks for other addresses, way asks other sessions to make way.
type keeper struct {
	*Session
	renewal int64         // the last that was tried
	tried   time.Duration // when, on the clock of uptime
	roamed  time.Duration // when the network was last another one
	failing time.Time     // since when renewing does; zero: it does not
	why     error         // and why
	refused time.Time     // since when the API server says no; zero: it does not
	meant   bool          // it said so while the lease ran: somebody wants that
	enrol   enrolment

	path     string         // the one in use, as told
	dark     time.Duration  // since when there is none, on the clock of uptime
	observed netip.AddrPort // how the gateway sees us
	doubt    *doubt         // nil: the way is fine
	// stale says that WireGuard needs a new handshake, lostUDP that there was a
	// way by UDP and is none, hushed that the gateway's candidates are left
	// alone.
	stale, lostUDP, hushed bool
	// seek is when to ask where the gateway is by UDP, and knock when to try from
	// another port, with which pause; zero: UDP is in use, or out of the question.
	seek, knock time.Time
	knockPause  time.Duration

	reach names
	// keptOut is what the other sessions were told to leave alone.
	keptOut []netip.Addr
	// listing is when to look for other namespaces.
	listing time.Time

	// renew and refresh are when to ask the API server next.
	renew, refresh *time.Timer
}

// doubt is a time without a settled gateway.
type doubt struct {
	since time.Time
	asked int    // how often the API was
	tries string // the gateways that are being tried
}

func newKeeper(s *Session) *keeper {
	k := &keeper{Session: s, renewal: 1, tried: s.renewed, path: pathName(s.link.remote().Status().Active)}
	k.renew, k.refresh = time.NewTimer(jitter(s.leaseTime()/3)), time.NewTimer(0)
	k.refresh.Stop()
	return k
}

// run keeps the session until ctx is done or something ends it.
func (k *keeper) run(ctx context.Context) error {
	defer k.renew.Stop()
	defer k.refresh.Stop()
	watching, stop := context.WithCancel(ctx)
	news := k.Watch(watching)
	defer func(ended <-chan netwatch.Event) {
		stop()
		for range ended {
		}
	}(news)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	_ = k.lead() // that has changed since the host was told; it warns
	for {
		k.look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-k.broken:
			return err
		case do := <-k.wishes:
			do()
		case <-k.link.tunnel.Done():
			return k.deviceGone()
		case e, ok := <-news:
			if !ok {
				news = nil
				continue
			}
			k.moved(e)
		case <-k.link.remote().Changed():
		case <-tick.C:
		case <-k.renew.C:
			k.startRenew()
		case <-k.refresh.C:
			k.startRefresh()
		case t := <-k.jobs.done:
			if err := k.jobs.finish(t); err != nil {
				return err
			}
		}
	}
}

// deviceGone says why the tunnel's device has ended: with whoever keeps the host's
// network for us, if that can end by itself.
func (k *keeper) deviceGone() error {
	if h, ok := k.host.(interface{ Err() error }); ok && h.Err() != nil {
		return h.Err()
	}
	return errors.New("the tunnel's device is gone")
}

// jitter spreads renewals by a tenth either way.
func jitter(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}

// moved is for another network, or after a sleep: everything is doubted, and
// nothing waits for a time-out.
func (k *keeper) moved(e netwatch.Event) {
	text := "the network changed: " + e.Text
	if e.Kind == netwatch.Woke {
		text = e.Text
	}
	k.tell(localapi.Event{Type: localapi.EventNetwork, Text: text})
	k.roamed = k.uptime()
	k.link.remote().Rouse()
	k.cluster.Redial()
	k.stale = k.stale || e.Away >= longSleep
	k.knockPause = 0
	k.rewire()
	k.lookAround(true)
	if since := k.uptime() - k.tried; since >= retryEvery {
		k.renew.Reset(0)
	} else {
		k.renew.Reset(retryEvery - since)
	}
}

// retry is when to try again what was begun at a time and failed. What failed
// because the network became another one meanwhile is tried again at once.
func (k *keeper) retry(begun, pause time.Duration) {
	if k.roamed > begun {
		pause = 0
	}
	k.renew.Reset(jitter(pause))
}

// rewire sets the host up again as it should be, should somebody have taken a
// part of it away, and notes what is new about it.
func (k *keeper) rewire() {
	k.resolver.look()
	k.resolver.lookNear()
	k.reach.next, k.listing = time.Time{}, time.Time{}
	err := k.setNetwork(k.hosted)
	if collides(err) && k.readdress() {
		return
	}
	if err != nil {
		k.warn(localapi.Warning{Code: "routes", Severity: "high", Text: "the routes to the cluster: " + err.Error(), Hint: hint(err)})
		return
	}
	k.clear("routes", "the routes to the cluster are well again")
}

// hint is what an error advises, if anything.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// look does what the state of the paths asks for.
func (k *keeper) look() {
	k.resolver.look()
	k.makeWay()
	k.askWay()
	k.checkNames()
	k.followNamespaces()
	r := k.link.remote()
	st := r.Status()
	k.tellPath(st)
	if k.fit(st) {
		k.rewire()
	}
	if st.Observed.IsValid() && st.Observed != k.observed {
		k.observed = st.Observed
		k.lookAround(false)
	}
	k.seekUDP(st)
	k.tellTrouble(st)
	k.judge(r, st)
}

// tellPath says so when another path is in use.
func (k *keeper) tellPath(st transport.GatewayStatus) {
	name := pathName(st.Active)
	if name == k.path {
		return
	}
	k.lostUDP = st.Active.Kind != transport.UDP && (k.lostUDP || strings.HasPrefix(k.path, string(transport.UDP)))
	was := k.path
	k.path = name
	k.mu.Lock()
	p := describe(st, k.outlook)
	k.mu.Unlock()
	text := name
	if p.RTTMs > 0 {
		text += fmt.Sprintf(", %.3g ms", p.RTTMs)
	}
	why := st.Active.Why
	switch st.Active.Kind {
	case "":
		text, why = "no path", failures(st)
	case transport.APIServer:
		if reason := strings.TrimPrefix(p.Reason, p.Kind+": "); reason != "" {
			why = reason
		}
	}
	if why != "" {
		text += ": " + why
	}
	p.Others = []localapi.OtherPath{}
	k.tell(localapi.Event{Type: localapi.EventPath, Text: text, Path: &p})
	switch none := pathName(transport.PathStatus{}); {
	case name == none:
		k.dark = k.uptime()
	case was == none && k.uptime()-k.dark >= flowsKept:
		k.reset(k.hosted.own) // rather than hang until the kernel tries them again
		k.tell(localapi.Event{Type: localapi.EventGateway, Text: fmt.Sprintf("there was no path to it for %v: flows that were open end", (k.uptime() - k.dark).Round(time.Second))})
	}
}

// seekUDP looks for a way by UDP where there might be one.
func (k *keeper) seekUDP(st transport.GatewayStatus) {
	k.mu.Lock()
	may := k.outlook.mayUDP(st)
	k.mu.Unlock()
	if !may || st.Active.Kind == transport.UDP {
		k.seek, k.knock = time.Time{}, time.Time{}
		return
	}
	now := time.Now()
	if k.seek.IsZero() {
		k.seek, k.knock, k.knockPause = now.Add(seekFirst), now.Add(seekEvery), seekEvery
	}
	if !now.Before(k.seek) {
		k.seek = now.Add(seekEvery)
		k.refresh.Reset(0)
	}
	// Without the API server nobody knocks, and another port would not be known.
	if st.Active.Kind == "" && (k.link.only != transport.UDP || !k.failing.IsZero()) {
		return
	}
	if k.lostUDP { // perhaps our outside address is another one, or the gateway's
		k.lostUDP, k.knock, k.knockPause = false, now, 0
	}
	if !now.Before(k.knock) {
		k.knockPause = min(max(2*k.knockPause, seekEvery), seekMax)
		k.knock = now.Add(k.knockPause)
		k.lookAround(true)
	}
}

// isOurs says that the gateway knows us by the key that we have now.
func (k *keeper) isOurs(r *remote) bool { return r.self == k.member.private.Public() }

// leaseOver says whether the gateway may have forgotten us, by our own clock.
func (k *keeper) leaseOver() bool { return k.uptime()-k.renewed >= k.leaseTime() }

// startRenew renews the lease, or goes on with enrolling again.
func (k *keeper) startRenew() {
	if k.enrol.why != "" {
		k.startEnrol()
		return
	}
	k.renewal++
	m, g, n := k.member, k.member.grant, k.renewal
	begun, over, doubt := k.uptime(), k.leaseOver(), k.doubt != nil
	k.tried = begun
	k.jobs.start("renew", func(ctx context.Context) outcome {
		was := false
		if over || doubt { // frozen, or cut? The gateway knows
			before, err := k.cluster.Peer(ctx, g.Namespace, g.Peer)
			was = err == nil && expired(before)
		}
		lost, err := k.objects.renew(ctx, g, n)
		var p *v1alpha1.Peer
		if err == nil {
			p, _ = k.cluster.Peer(ctx, g.Namespace, g.Peer) // else the next time
		}
		return outcome{apply: func() error {
			if m != k.member {
				return nil
			}
			return k.answered(renewal{begun, over, was, lost, p}, err)
		}}
	})
}

// renewal is what came of an attempt to renew.
type renewal struct {
	begun   time.Duration
	over    bool // the lease was, by our clock
	expired bool // and the gateway had cut us
	lost    map[string]error
	peer    *v1alpha1.Peer // nil: it could not be read
}

// answered takes over what came of a renewal.
func (k *keeper) answered(r renewal, err error) error {
	gone := errors.Is(err, cluster.ErrGone)
	for _, why := range r.lost {
		gone = gone || errors.Is(why, cluster.ErrGone)
	}
	no := err != nil && isOver(err) || len(r.lost) > 0
	if !no {
		k.refused, k.meant = time.Time{}, false
	}
	switch {
	case no && !(gone && r.over && !k.meant && k.failing.IsZero()) && !k.believes(r.over):
		return nil
	case gone && r.over && !k.meant:
		k.again("the lease is over")
		return nil
	case err != nil && isOver(err):
		return &EndedError{"the session was ended", err}
	}
	for _, ns := range slices.Clone(k.member.Accesses) {
		if why := r.lost[ns]; why != nil {
			k.member.Accesses = slices.DeleteFunc(slices.Clone(k.member.Accesses), func(o string) bool { return o == ns })
			if len(k.member.Accesses) == 0 {
				return &EndedError{"access to " + k.opened(ns) + " ended", why}
			}
			k.lost(ns, why)
		}
	}
	if err != nil {
		k.trouble(err, r.begun)
		return nil
	}
	k.renewed, k.failing = r.begun, time.Time{}
	k.leaseHeld(time.Now())
	if k.steering != nil {
		k.steering.Renew()
	}
	if k.exposing != nil {
		k.exposing.Renew()
	}
	k.clear("lease", "the lease is renewed again")
	k.renew.Reset(jitter(k.leaseTime() / 3))
	if r.expired { // no path, no handshake and no flow is good any more
		k.stale = true
		k.link.remote().Rouse()
		k.reset(k.hosted.own)
		k.tell(localapi.Event{Type: localapi.EventLease, Text: "the lease was over and is held again; flows that were open end"})
	}
	if r.peer != nil {
		k.fresh(r.peer)
	}
	k.mu.Lock()
	unknown := k.outlook.refused != nil // where we are
	k.mu.Unlock()
	if unknown {
		k.lookAround(true)
	}
	return nil
}

// believes reports whether a no of the API server is to be believed. If it is
// not yet, it will be asked again. over says that the lease was.
func (k *keeper) believes(over bool) bool {
	if k.refused.IsZero() {
		k.refused, k.meant = time.Now(), !over
	}
	if time.Since(k.refused) >= sureTime {
		return true
	}
	k.renew.Reset(sureEvery)
	return false
}

func (k *keeper) opened(ns string) string {
	if k.Request.AllNamespaces {
		return "the cluster"
	}
	return "namespace " + ns
}

// lost takes a namespace out of the session.
func (k *keeper) lost(ns string, why error) {
	k.set(func(c *localapi.Connection) {
		c.Namespaces = slices.DeleteFunc(slices.Clone(c.Namespaces), func(o string) bool { return o == ns })
		if c.Namespace == ns && len(c.Namespaces) > 0 {
			c.Namespace = c.Namespaces[0]
		}
		k.names.current, k.names.namespaces = c.Namespace, slices.Clone(c.Namespaces)
	})
	k.warn(localapi.Warning{Code: "access-" + ns, Severity: "high", Text: "access to namespace " + ns + " ended: " + why.Error()})
	if err := k.setNames(k.jobs.ctx, k.hosted); err != nil {
		k.warnDNS("the host's resolver keeps names of namespace " + ns + ": " + err.Error())
	}
}

// trouble notes that the lease could not be renewed when that was begun.
func (k *keeper) trouble(err error, begun time.Duration) {
	if k.failing.IsZero() {
		k.failing = time.Now()
	}
	k.why = err
	var away *cluster.UnreachableError
	if errors.As(err, &away) {
		k.cluster.Redial()
	}
	k.retry(begun, retryEvery)
	k.tellTrouble(k.link.remote().Status())
}

// tellTrouble says what follows from a lease that cannot be renewed.
func (k *keeper) tellTrouble(st transport.GatewayStatus) {
	if k.failing.IsZero() || k.enrol.why != "" {
		return
	}
	held := time.Now().Add(k.renewed - k.uptime()) // when it was renewed, by today's clock
	end, last, since := held.Add(k.leaseTime()), held.Add(frozenMax), clockTime(k.failing)
	live, over := st.Active.Kind != "", k.leaseOver()
	w := localapi.Warning{Code: "lease", Severity: "medium", Text: "the lease could not be renewed: " + k.why.Error(), Hint: hint(k.why)}
	var away *cluster.UnreachableError
	unreachable := errors.As(k.why, &away)
	frozen := unreachable && live && over // a gateway that did not keep us would not answer
	switch {
	case frozen:
		end = last
		w.Text = fmt.Sprintf("%v, since %s: the gateway keeps the session until %s at the latest", k.why, since, clockTime(last))
	case unreachable:
		w.Text = fmt.Sprintf("%v, since %s: the session goes on until %s, or until %s if the gateway cannot reach it either", k.why, since, clockTime(end), clockTime(last))
	}
	if !live || over && !frozen {
		w.Severity = "high"
	}
	k.warn(w)
	k.set(func(c *localapi.Connection) {
		c.Lease.Error, c.Lease.ExpiresAt, c.Lease.Frozen = k.why.Error(), &end, frozen
	})
}

func clockTime(t time.Time) string { return t.Format("15:04:05") }
