// Package client joins a laptop to a cluster: it enrols with the gateway, brings
// the tunnel up over the first path that works, and makes the host route and
// resolve what is behind it. It takes all of it back at the end, also when it
// got no further than half-way.
package client

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/addressing"
	"podnet.dev/client/cluster"
	"podnet.dev/client/exposing"
	"podnet.dev/client/given"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/client/steering"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/httpjson"
)

// Cluster is what a session needs of a cluster; *cluster.Client is one.
type Cluster interface {
	Check(ctx context.Context) error
	// Whoami is the context's name and namespace, the API server's URL and,
	// after Check, the user's name.
	Whoami() cluster.Identity
	Remotes() []netip.Addr
	Namespaces(ctx context.Context) ([]string, error)
	// ServicesIn lists the Services of a namespace, below which domain of this
	// machine's their names are.
	ServicesIn(ctx context.Context, namespace, domain string) ([]localapi.Service, error)

	CreatePeer(ctx context.Context, namespace, name string, spec v1alpha1.PeerSpec) error
	RenewPeer(ctx context.Context, namespace, name string, renew int64) error
	SetCandidates(ctx context.Context, namespace, name string, candidates []string) error
	SetVirtual(ctx context.Context, namespace, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error)
	DeletePeer(ctx context.Context, namespace, name string) error
	Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error)
	CreateAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope) error
	RenewAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope, renew int64) error
	DeleteAccess(ctx context.Context, namespace, peer string) error
	Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error)
	DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)
	// Redial leaves connections that may be dead, but for the streams.
	Redial()
}

// Config of a Session.
type Config struct {
	Request localapi.ConnectRequest
	// Events hears of the progress; it does not block.
	Events func(localapi.Event)
	// OpenCluster and OpenHelper are the two outsides of a session.
	OpenCluster func(localapi.Kube) (Cluster, error)
	OpenHelper  func(ctx context.Context, warn func(string)) (helper.Session, error)
	// Dial is how programs of this host reach the cluster once the session is
	// up; the session itself asks the cluster's DNS by it. nil: the kernel's
	// network. A host whose network is a stack in this process says its own.
	Dial dnsproxy.Dial
	// Others are the networks that this machine's other sessions route, each with
	// its session's name. nil: those that Fleet knows of.
	Others func() []addressing.Network
	// Fleet are the sessions of this daemon, this one included once it runs. nil:
	// it is the only one.
	Fleet *Fleet
	// Watch tells of changes of this host's network until its context is done,
	// and then closes its channel. nil: netwatch.Watch.
	Watch func(context.Context) <-chan netwatch.Event
	// StateDir is where a session notes the objects it has in the cluster, for
	// the next one to delete when this one is killed. Empty: nowhere.
	StateDir string
	Log      *slog.Logger
}

// Session is one laptop joined to one cluster:
//
//	   auth ------> gateway -----> handshake --> routes ----> dns ------> ready
//	who am I?    Peer, Access     TUN, a path   the host    the host    tried once,
//	             written, seen    that answers, routes      resolves    then kept
//	                              a pod to
//	                              send from,
//	                              if asked for
//	    |             |                |           |           |          |
//	    +-------------+----------------+-----------+-----------+----------+
//	                                   |
//	           stopped, refused or broken at any point
//	                                   v
//	             everything that was done is undone, in reverse
//
// A session that is ready looks after itself; see keeper. Its parts have one job
// each: membership the objects in the cluster, link the WireGuard device and its
// gateway, resolver the names.
type Session struct {
	Config
	start time.Time
	undo  undo
	// uptime is a clock that does not stand still while the machine sleeps.
	uptime func() time.Duration

	cluster  Cluster
	narrowed *narrowing // nil: the gateway is the whole cluster's
	objects  *membership
	nth      int // this machine's name in the Peer, see deviceOf
	member   *member
	renewed  time.Duration // on the clock of uptime
	host     helper.Session
	link     *link
	steering *steering.Manager // nil: the cluster cannot
	exposing *exposing.Manager // nil: the cluster cannot
	// sender is steering, as the gate knows it, and resolvers are the gateway's, to
	// which it is always open.
	sender    atomic.Pointer[steering.Manager]
	resolvers atomic.Pointer[[]netip.Addr]
	resolver  *resolver
	// book has the virtual addresses that this machine's programs were given.
	book given.Book
	jobs *jobs
	// hosted is the network that the host was set up for, avoided what was kept out
	// of its routes, mtu the interface's.
	hosted  network
	avoided []netip.Addr
	mtu     int
	// nested says that the API server is reached through another session's tunnel.
	nested bool
	names  scope
	// chosen is what was decided last about addresses.
	chosen addressing.Choice
	// said is what the gateway knows of where we are. lookAgain is not nil when
	// that is to be found out once more.
	said      said
	lookAgain *bool
	// inward dials what the gateway itself answers, by way of this session's device.
	inward func() dnsproxy.Dial
	// ready is true once connecting is over.
	ready atomic.Bool
	// secondary says that another session has the short names.
	secondary atomic.Bool
	// broken gets the error of a part that ended by itself.
	broken chan error
	// wishes are for the loop of a session that is ready.
	wishes chan func()

	mu       sync.Mutex
	status   localapi.Connection
	warnings map[string]localapi.Warning
	outlook  outlook
	live     *link // link, for Status
}

// New prepares a session; Run starts it.
func New(c Config) *Session {
	kernels := c.Dial == nil
	if kernels {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Fleet == nil {
		c.Fleet = new(Fleet)
	}
	if c.Watch == nil {
		c.Watch = func(ctx context.Context) <-chan netwatch.Event { return netwatch.Watch(ctx, c.Log) }
	}
	s := &Session{Config: c, uptime: netwatch.Uptime, mtu: mtuUDP, broken: make(chan error, 4), wishes: make(chan func()), warnings: map[string]localapi.Warning{}}
	if s.Others == nil {
		s.Others = func() []addressing.Network { return s.Fleet.networks(s) }
	}
	s.inward = func() dnsproxy.Dial {
		if kernels {
			return boundTo(s.link.name)
		}
		return s.Dial
	}
	s.status.Routes, s.status.Namespaces, s.status.DNS.Listen, s.status.Path.Others = []string{}, []string{}, []string{}, []localapi.OtherPath{}
	return s
}

// Run connects, says ready, and keeps the session until ctx is done or it ends
// by itself. Everything is undone when it returns. The error is nil when ctx
// ended a session that was ready.
func (s *Session) Run(ctx context.Context) error {
	s.start = time.Now()
	s.Fleet.join(s)
	defer s.Fleet.leave(s)
	defer s.undo.run(context.WithoutCancel(ctx), s.Log)
	s.jobs = newJobs(ctx)
	defer s.jobs.close()
	if err := s.connect(ctx); err != nil {
		return err
	}
	s.tell(localapi.Event{Type: localapi.EventReady, Phase: localapi.PhaseReady})
	s.ready.Store(true)
	err := newKeeper(s).run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Session) elapsed() int64 { return time.Since(s.start).Milliseconds() }

// tell publishes an event.
func (s *Session) tell(e localapi.Event) {
	e.Time = time.Now()
	if !s.ready.Load() {
		e.ElapsedMs = s.elapsed()
	}
	s.Events(e)
}

// connect goes through the phases.
func (s *Session) connect(ctx context.Context) error {
	type step struct {
		phase localapi.Phase
		do    func(context.Context) (string, error)
	}
	steps := []step{
		{localapi.PhaseAuth, s.auth},
		{localapi.PhaseGateway, s.enrol},
		{localapi.PhaseHandshake, s.handshake},
		{localapi.PhaseRoutes, s.route},
		{localapi.PhaseDNS, s.resolve},
		{localapi.PhaseReady, s.probe},
	}
	if s.Request.As != "" { // before anything can be sent
		at := slices.IndexFunc(steps, func(o step) bool { return o.phase == localapi.PhaseRoutes })
		steps = slices.Insert(steps, at, step{localapi.PhaseIdentity, s.identify})
	}
	for _, step := range steps {
		s.set(func(c *localapi.Connection) { c.Phase = step.phase })
		s.tell(localapi.Event{Type: localapi.EventPhase, Phase: step.phase})
		text, err := step.do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			e := httpjson.FromError(err)
			e.Phase = string(step.phase)
			return e
		}
		s.tell(localapi.Event{Type: localapi.EventDone, Phase: step.phase, Text: text})
	}
	return nil
}

// auth finds out who we are.
func (s *Session) auth(ctx context.Context) (string, error) {
	var err error
	if s.cluster, err = s.OpenCluster(s.Request.Kube); err != nil {
		return "", err
	}
	s.undo.add("the connections to the API server", func(context.Context) error {
		s.cluster.Redial() // which nobody will
		return nil
	})
	if err := s.check(ctx); err != nil {
		return "", err
	}
	id := s.cluster.Whoami()
	r := &s.Request
	if err := r.Tidy(); err != nil {
		return "", err
	}
	if len(r.Namespaces) == 0 {
		r.Namespaces = []string{id.Namespace}
	}
	s.nth = s.Fleet.before(s)
	s.objects = &membership{cluster: s.cluster, id: id, request: *r, device: deviceOf(s.nth), stateDir: s.StateDir, notes: &s.Fleet.notes, log: s.Log}
	s.set(func(c *localapi.Connection) {
		c.Name, c.Context, c.Server, c.User = cmp.Or(r.Name, id.Context, id.Server), id.Context, id.Server, id.User
		c.DNS.Alias = localapi.Alias(c.Name) + "." + strings.TrimSuffix(dnsproxy.AliasZone, ".")
		c.Namespace, c.AllNamespaces = r.Namespaces[0], r.AllNamespaces
		if !r.AllNamespaces {
			c.Namespaces = slices.Clone(r.Namespaces)
		}
		c.Gateway.Namespace = r.GatewayNamespace
		c.Lease.Seconds = r.LeaseSeconds
	})
	return id.User + " at " + id.Server, nil
}

// enrol writes our objects and waits until the gateway has acted on them.
func (s *Session) enrol(ctx context.Context) (string, error) {
	// The host is looked at first: a privilege that we lack is known before
	// anything is asked of the cluster, and a guard takes a moment to start.
	var err error
	if s.host, err = s.OpenHelper(ctx, s.warnDNS); err != nil {
		return "", err
	}
	s.undo.add("the host's changes", func(context.Context) error { return s.host.Close() })
	s.undo.add("the objects in the cluster", s.objects.leaveAll)
	ctx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	s.objects.sweep(ctx)
	begun := s.uptime()
	m, refused, err := s.objects.apply(ctx, s.objects.accesses())
	if err != nil && s.narrow(ctx, err) {
		m, refused, err = s.objects.apply(ctx, s.objects.accesses())
	}
	if err != nil {
		return "", s.wider(err)
	}
	for _, ns := range s.objects.accesses() {
		if refused[ns] != nil {
			return "", refused[ns]
		}
	}
	if err := s.objects.await(ctx, m); err != nil {
		return "", err
	}
	if m, err = s.distinct(ctx, m); err != nil {
		return "", err
	}
	if err := s.address(ctx, m); err != nil {
		return "", err
	}
	s.joined(m, begun)
	s.keepOut(ctx, s.outside(m))
	return m.Namespace + "/" + rank(m.Peer, m.granted.Status.Gateways)[0].Pod, nil
}

// joined makes m what the session is to the cluster. The lease counts from
// begun.
func (s *Session) joined(m *member, begun time.Duration) {
	s.member, s.renewed = m, begun
	dns := m.network.dns
	s.resolvers.Store(&dns)
	s.set(func(c *localapi.Connection) { c.Peer = m.Peer })
	s.leaseHeld(time.Now())
	s.learn(m.granted)
}

// leaseHeld notes that the lease was renewed at a time.
func (s *Session) leaseHeld(at time.Time) {
	end := at.Add(s.leaseTime())
	s.set(func(c *localapi.Connection) {
		c.Lease.Renewed, c.Lease.ExpiresAt, c.Lease.Frozen, c.Lease.Error = &at, &end, false, ""
	})
}

func (s *Session) leaseTime() time.Duration {
	return time.Duration(s.Request.LeaseSeconds) * time.Second
}

// Status is how the session does.
func (s *Session) Status() (localapi.Connection, []localapi.Warning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.status
	c.Namespaces, c.Routes, c.DNS.Listen = slices.Clone(c.Namespaces), slices.Clone(c.Routes), slices.Clone(c.DNS.Listen)
	c.Addresses.Map = slices.Clone(c.Addresses.Map)
	s.tellRefused(&c.Addresses)
	s.liveLocked(&c)
	s.tallyLocked(&c)
	var warnings []localapi.Warning
	for _, w := range s.warnings {
		warnings = append(warnings, w)
	}
	as, more := identity(s.steering, s.ready.Load())
	c.As, warnings = as, append(warnings, more...)
	slices.SortFunc(warnings, func(a, b localapi.Warning) int {
		if a.Code < b.Code || a.Code == b.Code && a.Text < b.Text {
			return -1
		}
		return 1
	})
	return c, warnings
}

// tallyLocked fills in what is steered and exposed.
func (s *Session) tallyLocked(c *localapi.Connection) {
	var rules []localapi.SteerRule
	var exposures []localapi.Exposure
	if s.steering != nil {
		rules = s.steering.List()
	}
	if s.exposing != nil {
		exposures = s.exposing.List()
	}
	c.Steering, c.Exposing = localapi.TallyRules(rules), localapi.TallyExposures(exposures)
}

// liveLocked fills in what the tunnel and the transport know better.
func (s *Session) liveLocked(c *localapi.Connection) {
	if s.live == nil {
		return
	}
	rx, tx, handshake := s.live.counted()
	c.Tunnel.Rx, c.Tunnel.Tx = int64(rx), int64(tx)
	if !handshake.IsZero() {
		c.Tunnel.LastHandshake = time.Since(handshake).Round(time.Second).String()
	}
	if r := s.live.remote(); r != nil {
		st := r.Status()
		c.Path = describe(st, s.outlook)
		c.Gateway.Draining = c.Gateway.Draining || st.Draining
	}
}

func (s *Session) set(f func(*localapi.Connection)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// warn adds a warning, or replaces the one with the same code.
func (s *Session) warn(w localapi.Warning) {
	s.mu.Lock()
	_, known := s.warnings[w.Code]
	s.warnings[w.Code] = w
	s.mu.Unlock()
	if !known {
		s.tell(localapi.Event{Type: localapi.EventWarning, Code: w.Code, Text: w.Text})
	}
}

// clear takes a warning back; text says what is well again.
func (s *Session) clear(code, text string) {
	s.mu.Lock()
	_, known := s.warnings[code]
	delete(s.warnings, code)
	s.mu.Unlock()
	if known {
		s.tell(localapi.Event{Type: localapi.EventCleared, Code: code, Text: text})
	}
}

func (s *Session) warnDNS(text string) {
	s.warn(localapi.Warning{Code: "dns-trampled", Severity: "medium", Text: text})
}

// breaks reports a part that ended by itself.
func (s *Session) breaks(err error) {
	select {
	case s.broken <- err:
	default:
	}
}
