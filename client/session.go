// Package client joins a laptop to a cluster: it enrols with the gateway, brings
// the tunnel up over the first path that works, and makes the host route and
// resolve what is behind it. It takes all of it back at the end, also when it
// got no further than half-way.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/key"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// Cluster is what a session needs of a cluster; *cluster.Client is one.
type Cluster interface {
	Check(ctx context.Context) error
	// Whoami is the context's name and namespace, the API server's URL and,
	// after Check, the user's name.
	Whoami() cluster.Identity
	Remotes() []netip.Addr
	Namespaces(ctx context.Context) ([]string, error)

	CreatePeer(ctx context.Context, namespace, name string, spec v1alpha1.PeerSpec) error
	RenewPeer(ctx context.Context, namespace, name string, renew int64) error
	DeletePeer(ctx context.Context, namespace, name string) error
	Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error)
	CreateAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope) error
	RenewAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope, renew int64) error
	DeleteAccess(ctx context.Context, namespace, peer string) error
	Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error)
	DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)
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
	// StateDir is where a session notes the objects it has in the cluster, for
	// the next one to delete when this one is killed. Empty: nowhere.
	StateDir string
	Log      *slog.Logger
}

// Session is one laptop joined to one cluster:
//
//	   auth ------> gateway -----> handshake --> routes ----> dns ------> ready
//	who am I?    Peer, Access     TUN, a path   the host    the host    tried once,
//	             written, seen    that answers  routes      resolves    then kept
//	    |             |                |           |           |          |
//	    +-------------+----------------+-----------+-----------+----------+
//	                                   |
//	           stopped, refused, expired or broken at any point
//	                                   v
//	             everything that was done is undone, in reverse
type Session struct {
	Config
	cluster Cluster
	id      cluster.Identity
	start   time.Time
	undo    undo

	peer     string // the Peer's name
	peerSpec v1alpha1.PeerSpec
	accesses []string // namespaces of our Accesses
	granted  *v1alpha1.Peer

	host    helper.Session
	private key.Private
	tunnel  *tunnel.Tunnel
	gateway *transport.Gateway
	split   *dnsproxy.Split
	forward *dnsproxy.Forwarder
	// broken gets the error of a part that ended by itself.
	broken chan error

	mu       sync.Mutex
	status   localapi.Connection
	warnings map[string]localapi.Warning
}

// Limits of the steps, so that a connect that cannot succeed says so in time.
const (
	// admitTime is for the gateway to see our objects and answer.
	admitTime = 9 * time.Second
	// undoTime is for each step of the undoing.
	undoTime = 5 * time.Second
)

// New prepares a session; Run starts it.
func New(c Config) *Session {
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	s := &Session{Config: c, broken: make(chan error, 4), warnings: map[string]localapi.Warning{}}
	s.status.Routes, s.status.Namespaces, s.status.DNS.Listen = []string{}, []string{}, []string{}
	return s
}

// Run connects, says ready, and keeps the session until ctx is done or it ends
// by itself. Everything is undone when it returns. The error is nil when ctx
// ended a session that was ready.
func (s *Session) Run(ctx context.Context) error {
	s.start = time.Now()
	defer s.undo.run(context.WithoutCancel(ctx), s.Log)
	if err := s.connect(ctx); err != nil {
		return err
	}
	s.Events(localapi.Event{Time: time.Now(), Type: localapi.EventReady, Phase: localapi.PhaseReady, ElapsedMs: s.elapsed()})
	s.Log.Info("session ready", "peer", s.peer, "path", string(s.gateway.Status().Active.Kind), "elapsed", time.Since(s.start))
	err := s.keep(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Session) elapsed() int64 { return time.Since(s.start).Milliseconds() }

// connect goes through the phases.
func (s *Session) connect(ctx context.Context) error {
	for _, step := range []struct {
		phase localapi.Phase
		do    func(context.Context) (string, error)
	}{
		{localapi.PhaseAuth, s.auth},
		{localapi.PhaseGateway, s.enrol},
		{localapi.PhaseHandshake, s.handshake},
		{localapi.PhaseRoutes, s.route},
		{localapi.PhaseDNS, s.resolve},
		{localapi.PhaseReady, s.probe},
	} {
		s.set(func(c *localapi.Connection) { c.Phase = step.phase })
		s.Events(localapi.Event{Time: time.Now(), Type: localapi.EventPhase, Phase: step.phase, ElapsedMs: s.elapsed()})
		text, err := step.do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			e := httpjson.FromError(err)
			e.Phase = string(step.phase)
			return e
		}
		s.Events(localapi.Event{Time: time.Now(), Type: localapi.EventDone, Phase: step.phase, ElapsedMs: s.elapsed(), Text: text})
	}
	return nil
}

// auth finds out who we are.
func (s *Session) auth(ctx context.Context) (string, error) {
	var err error
	if s.cluster, err = s.OpenCluster(s.Request.Kube); err != nil {
		return "", err
	}
	if err := s.cluster.Check(ctx); err != nil {
		return "", err
	}
	s.id = s.cluster.Whoami()
	r := &s.Request
	if len(r.Namespaces) == 0 {
		r.Namespaces = []string{s.id.Namespace}
	}
	s.set(func(c *localapi.Connection) {
		c.Name, c.Context, c.Server, c.User = s.id.Context, s.id.Context, s.id.Server, s.id.User
		if c.Name == "" {
			c.Name = s.id.Server
		}
		c.Namespace, c.AllNamespaces = r.Namespaces[0], r.AllNamespaces
		if !r.AllNamespaces {
			c.Namespaces = slices.Clone(r.Namespaces)
		}
		c.Gateway.Namespace = r.GatewayNamespace
		c.Lease.Seconds = r.LeaseSeconds
	})
	return s.id.User + " at " + s.id.Server, nil
}

// enrol writes our objects and waits until the gateway has acted on them.
func (s *Session) enrol(ctx context.Context) (string, error) {
	// The host is looked at meanwhile: a privilege that we lack is known before
	// anything is asked of the cluster, and a guard takes a moment to start.
	var err error
	if s.host, err = s.OpenHelper(ctx, s.warnDNS); err != nil {
		return "", err
	}
	s.undo.add("the host's changes", func(context.Context) error { return s.host.Close() })
	if s.private, err = key.NewPrivate(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	s.deleteLeftovers(ctx)
	if err := s.writeObjects(ctx); err != nil {
		return "", err
	}
	if s.granted, err = s.cluster.Await(ctx, s.Request.GatewayNamespace, s.peer, s.accesses); err != nil {
		return "", err
	}
	now := time.Now()
	g := s.granted.Status.Gateways[0]
	s.set(func(c *localapi.Connection) {
		c.Peer, c.Lease.Renewed = s.peer, &now
		c.Gateway.Pod, c.Gateway.PublicKey = g.Pod, g.PublicKey
	})
	return s.Request.GatewayNamespace + "/" + g.Pod, nil
}

// Status is how the session does.
func (s *Session) Status() (localapi.Connection, []localapi.Warning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.status
	c.Namespaces, c.Routes, c.DNS.Listen = slices.Clone(c.Namespaces), slices.Clone(c.Routes), slices.Clone(c.DNS.Listen)
	s.liveLocked(&c)
	var warnings []localapi.Warning
	for _, w := range s.warnings {
		warnings = append(warnings, w)
	}
	slices.SortFunc(warnings, func(a, b localapi.Warning) int {
		if a.Code < b.Code || a.Code == b.Code && a.Text < b.Text {
			return -1
		}
		return 1
	})
	return c, warnings
}

// liveLocked fills in what the tunnel and the transport know better.
func (s *Session) liveLocked(c *localapi.Connection) {
	if s.gateway != nil {
		if p := s.gateway.Status().Active; p.Kind != "" {
			c.Path.Kind, c.Path.Remote, c.Path.Redials = string(p.Kind), p.Remote, p.Redials
			if !p.Since.IsZero() {
				since := p.Since.Round(time.Millisecond)
				c.Path.Since = &since
			}
		}
	}
	if s.tunnel != nil {
		if st, ok := s.peerStats(); ok {
			c.Tunnel.Rx, c.Tunnel.Tx = int64(st.RxBytes), int64(st.TxBytes)
			if !st.LastHandshake.IsZero() {
				c.Tunnel.LastHandshake = time.Since(st.LastHandshake).Round(time.Second).String()
			}
		}
	}
}

func (s *Session) peerStats() (tunnel.PeerStats, bool) {
	all, err := s.tunnel.Stats()
	if err != nil || len(all) == 0 {
		return tunnel.PeerStats{}, false
	}
	return all[0], true
}

func (s *Session) set(f func(*localapi.Connection)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// warn adds a warning, or replaces the one with the same code and text.
func (s *Session) warn(w localapi.Warning) {
	s.mu.Lock()
	_, known := s.warnings[w.Code]
	s.warnings[w.Code] = w
	s.mu.Unlock()
	if !known {
		s.Log.Warn("session warning", "code", w.Code, "text", w.Text)
		s.Events(localapi.Event{Time: time.Now(), Type: localapi.EventWarning, ElapsedMs: s.elapsed(), Text: w.Text})
	}
}

func (s *Session) clearWarning(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.warnings, code)
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

// device names this machine in the Peer, for the reader of a list.
func device() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unknown"
	}
	if len(name) > 63 {
		name = name[:63]
	}
	return name
}

// undo is the list of what to take back.
type undo struct {
	mu    sync.Mutex
	steps []undoStep
}

type undoStep struct {
	what string
	do   func(context.Context) error
}

func (u *undo) add(what string, do func(context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.steps = append(u.steps, undoStep{what, do})
}

// run takes everything back, the last first. A step that fails does not keep
// the others from being tried.
func (u *undo) run(ctx context.Context, log *slog.Logger) {
	u.mu.Lock()
	steps := u.steps
	u.steps = nil
	u.mu.Unlock()
	for _, s := range slices.Backward(steps) {
		ctx, cancel := context.WithTimeout(ctx, undoTime)
		if err := s.do(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Warn("undoing failed", "what", s.what, "err", fmt.Errorf("undo %s: %w", s.what, err))
		}
		cancel()
	}
}
