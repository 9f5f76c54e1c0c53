package client

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/version"
)

// grant is one set of objects of ours in a cluster.
type grant struct {
	Server    string   `json:"server"`
	Namespace string   `json:"namespace"` // the gateway's
	Peer      string   `json:"peer"`
	Accesses  []string `json:"accesses"`
}

// member is one enrolment: a key of our own, the objects that say it is ours,
// and what the gateway granted to it.
type member struct {
	private key.Private
	grant
	granted *v1alpha1.Peer
	network network
}

// membership writes our objects with our own credentials and keeps book of what
// there is to delete. It knows the API only; what a lease is good for is its
// caller's business. Its methods may be called from any goroutine.
type membership struct {
	cluster Cluster
	id      cluster.Identity
	request localapi.ConnectRequest
	device  string // what the Peers say they are
	// stateDir is where the book is kept for the next session, should this one
	// be killed. Empty: nowhere.
	stateDir string
	// notes is held while the book is rewritten: other sessions have the same.
	notes *sync.Mutex
	log   *slog.Logger

	mu   sync.Mutex
	held []grant // to be deleted at the end
}

// admitTime is for the gateway to see our objects and answer.
const admitTime = 9 * time.Second

// apply makes a new key and writes a Peer and the Accesses for it. Namespaces
// that are refused are returned apart; that all are is an error. With an error
// some of the member's objects may exist.
func (m *membership) apply(ctx context.Context, namespaces []string) (_ *member, refused map[string]error, err error) {
	private, err := key.NewPrivate()
	if err != nil {
		return nil, nil, err
	}
	g := grant{m.id.Server, m.request.GatewayNamespace, cluster.PeerName(m.id.User, m.device), slices.Clone(namespaces)}
	m.hold(g)
	refused, err = m.write(ctx, g, private.Public())
	if err == nil {
		g.Accesses = slices.DeleteFunc(g.Accesses, func(ns string) bool { return refused[ns] != nil })
	}
	return &member{private: private, grant: g}, refused, err
}

// await waits until the gateway has acted on what was applied for.
func (m *membership) await(ctx context.Context, to *member) (err error) {
	if to.granted, err = m.cluster.Await(ctx, to.Namespace, to.Peer, to.Accesses); err != nil {
		return err
	}
	to.network, err = m.network(to.granted)
	return err
}

// network is what the gateway grants, less what the request leaves alone. That the
// Peer has less than was asked for is a cluster's of a time before.
func (m *membership) network(p *v1alpha1.Peer) (network, error) {
	if !slices.Equal(p.Spec.AlsoRoutes, m.request.AlsoRoutes) || !slices.Equal(p.Spec.AlsoDomains, m.request.AlsoDomains) {
		return network{}, &localapi.Error{Code: localapi.CodeNotInstalled, Message: "podnet in the cluster " + m.id.Server + " knows nothing beside the cluster yet",
			Hint: "an administrator brings it up to date with podnet install"}
	}
	n, err := parseNetwork(p)
	return n.without(m.request.Never()), err
}

// write creates the objects, all at once; the gateway does not mind the order.
func (m *membership) write(ctx context.Context, g grant, public key.Public) (refused map[string]error, err error) {
	spec := v1alpha1.PeerSpec{PublicKey: public.String(), LeaseSeconds: m.request.LeaseSeconds, Device: m.device,
		AlsoRoutes: m.request.AlsoRoutes, AlsoDomains: m.request.AlsoDomains, ClientVersion: version.Version}
	if err := m.cluster.CreatePeer(ctx, g.Namespace, g.Peer, spec); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(8)
	for _, ns := range g.Accesses {
		eg.Go(func() error {
			err := m.cluster.CreateAccess(ctx, ns, g.Peer, m.scope())
			if err != nil && isOver(err) {
				mu.Lock()
				defer mu.Unlock()
				if refused == nil {
					refused = map[string]error{}
				}
				refused[ns] = err
				return nil
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return refused, err
	}
	if len(refused) == len(g.Accesses) {
		return refused, refused[g.Accesses[0]]
	}
	return refused, nil
}

func (m *membership) scope() v1alpha1.AccessScope {
	if m.request.AllNamespaces {
		return v1alpha1.ScopeCluster
	}
	return v1alpha1.ScopeNamespace
}

// accesses are the namespaces of the Accesses that the request asks for.
func (m *membership) accesses() []string {
	if m.request.AllNamespaces {
		return []string{m.request.GatewayNamespace}
	}
	return m.request.Namespaces
}

// renew rewrites our objects with live credentials, which is what makes the API
// server ask again whether we may. Its error is an answer about the Peer, or a
// failure to ask; what was answered about namespaces is in over.
func (m *membership) renew(ctx context.Context, g grant, renewal int64) (over map[string]error, err error) {
	if err := m.cluster.RenewPeer(ctx, g.Namespace, g.Peer, renewal); err != nil {
		return nil, err
	}
	var failed error
	for _, ns := range g.Accesses {
		err := m.cluster.RenewAccess(ctx, ns, g.Peer, m.scope(), renewal)
		switch {
		case isOver(err):
			if over == nil {
				over = map[string]error{}
			}
			over[ns] = err
		case err != nil:
			failed = err
		}
	}
	return over, failed
}

// isOver tells a no from a failure to ask.
func isOver(err error) bool {
	var forbidden *cluster.ForbiddenError
	var refused *localapi.Error
	return errors.Is(err, cluster.ErrGone) || errors.As(err, &forbidden) || errors.As(err, &refused) && refused.Code == localapi.CodeForbidden
}

// cut says why the gateway does not serve a Peer that exists, "" when it does or
// has not said anything yet.
func cut(p *v1alpha1.Peer) (reason, message string) {
	c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	if c == nil || c.Status != metav1.ConditionFalse {
		return "", ""
	}
	return c.Reason, c.Message
}

// expired says whether the gateway has let go of a Peer for its lease.
func expired(p *v1alpha1.Peer) bool {
	reason, _ := cut(p)
	return reason == v1alpha1.ReasonExpired
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

// leave deletes the objects of one enrolment.
func (m *membership) leave(ctx context.Context, g grant) error {
	var eg errgroup.Group
	eg.SetLimit(8)
	for _, ns := range g.Accesses {
		eg.Go(func() error { return m.cluster.DeleteAccess(ctx, ns, g.Peer) })
	}
	eg.Go(func() error { return m.cluster.DeletePeer(ctx, g.Namespace, g.Peer) })
	err := eg.Wait()
	var forbidden *cluster.ForbiddenError
	if err == nil || errors.As(err, &forbidden) {
		m.drop(g)
	}
	return err
}

// leaveAll deletes all that there is of ours.
func (m *membership) leaveAll(ctx context.Context) error {
	m.mu.Lock()
	all := slices.Clone(m.held)
	m.mu.Unlock()
	var err error
	for _, g := range all {
		err = errors.Join(err, m.leave(ctx, g))
	}
	return err
}

// sweep deletes what killed sessions had in this cluster. They would end with
// their leases, but until then they count against the user's limit.
func (m *membership) sweep(ctx context.Context) {
	for _, g := range m.noted() {
		if g.Server != m.id.Server {
			continue
		}
		if err := m.leave(ctx, g); err != nil {
			m.log.Info("leftover stays until its lease ends", "peer", g.Peer, "err", err)
		}
	}
}

// hold and drop keep the book.
func (m *membership) hold(g grant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, g)
	m.noteLocked(func(all []grant) []grant { return append(all, g) })
}

func (m *membership) drop(g grant) {
	same := func(o grant) bool { return o.Server == g.Server && o.Peer == g.Peer }
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = slices.DeleteFunc(m.held, same)
	m.noteLocked(func(all []grant) []grant { return slices.DeleteFunc(all, same) })
}

func (m *membership) noteFile() string { return filepath.Join(m.stateDir, "objects.json") }

func (m *membership) noted() []grant {
	if m.stateDir == "" {
		return nil
	}
	all, err := readNote[grant](m.noteFile())
	if err != nil {
		m.log.Info("cannot read the note of objects", "err", err)
	}
	return all
}

// noteLocked rewrites the note of our objects. It holds names, nothing secret. A
// disk that is full or read-only keeps nobody from connecting.
func (m *membership) noteLocked(edit func([]grant) []grant) {
	if m.stateDir == "" {
		return
	}
	m.notes.Lock()
	defer m.notes.Unlock()
	if err := writeNote(m.noteFile(), edit(m.noted())); err != nil {
		m.log.Info("cannot note our objects", "err", err)
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
