package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

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
	// tries from another port begins with it too and doubles to seekMax. One that
	// has lost UDP tries from another port after seekFirst: a cut that is over by
	// then needs none, and what the gateway repeats to the old port arrives.
	seekFirst = 3 * time.Second
	seekEvery = 30 * time.Second
	seekMax   = 10 * time.Minute
	// flowsKept is how long the gateway keeps the flows of a laptop that says
	// nothing (internal/netstack: a sign of life is asked for after 60 s, four
	// times within 60 s more).
	flowsKept = 2 * time.Minute
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

// seekUDP looks for a way by UDP where there might be one and none works.
func (k *keeper) seekUDP(st transport.GatewayStatus) {
	k.mu.Lock()
	may := k.outlook.mayUDP(st)
	k.mu.Unlock()
	if !may || worksByUDP(st) {
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
		k.lostUDP, k.knock, k.knockPause = false, now.Add(seekFirst), 0
	}
	if !now.Before(k.knock) {
		k.knockPause = min(max(2*k.knockPause, seekEvery), seekMax)
		k.knock = now.Add(k.knockPause)
		k.lookAround(true)
	}
}

// isOurs says that the gateway knows us by the key that we have now.
func (k *keeper) isOurs(r *remote) bool { return r.self == k.member.private.Public() }
