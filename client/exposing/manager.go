// Package exposing keeps the exposures of one session: for each of them it writes
// an object, waits until the gateway leads to this machine, has a Service of the
// user's own lead to the gateway, and renews. What is to be done next is decided by
// a pure state (state.go); Manager does it. It knows nothing of the bytes.
package exposing

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/upkeep"
)

// Cluster is what exposing needs of a cluster; *cluster.Client is one.
type Cluster interface {
	CreateExposure(ctx context.Context, e *v1alpha1.Exposure) (*v1alpha1.Exposure, error)
	Exposure(ctx context.Context, namespace, name string) (*v1alpha1.Exposure, error)
	Exposures(ctx context.Context, namespace string) ([]v1alpha1.Exposure, error)
	RenewExposure(ctx context.Context, namespace, name string, renew int64) error
	DeleteExposure(ctx context.Context, namespace, name string, uid types.UID) error
	NameFree(ctx context.Context, namespace, name string) error
	PointService(ctx context.Context, e *v1alpha1.Exposure) error
	DropService(ctx context.Context, e *v1alpha1.Exposure) error
}

// Relay takes the traffic; *relay.Relay is one.
type Relay interface {
	Port() uint16
	SetExposures([]relay.Exposure)
	Served(name string) relay.Served
	Subscribe(func(relay.Request)) (cancel func())
}

// Config of a Manager.
type Config struct {
	Cluster Cluster
	Relay   Relay
	// User is who the API server says we are, Namespace where exposures are that do
	// not say so.
	User, Namespace string
	// Lease is how long an object lives after its last renewal.
	Lease time.Duration
	Log   *slog.Logger
}

const (
	// readyTime is how long a new exposure may take.
	readyTime = 30 * time.Second
	// behind is how many connections may wait for somebody who reads them slowly;
	// of more he does not hear.
	behind = 1000
)

// Manager has the exposures of one session. Its methods may be called at any time,
// from any goroutine; nothing is done before Run.
type Manager struct {
	Config
	loop upkeep.Loop
	wg   sync.WaitGroup

	mu      sync.Mutex
	st      *state
	running bool
	changed chan struct{} // closed when something did
}

// New prepares a Manager.
func New(c Config) *Manager {
	return &Manager{Config: c, loop: upkeep.NewLoop(), st: newState(c.User, c.Lease), changed: make(chan struct{})}
}

// SetMember says whose the traffic is from now on. For another Peer the objects are
// written anew.
func (m *Manager) SetMember(to Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.member = to
	m.loop.Kick()
}

// Renew has all objects renewed.
func (m *Manager) Renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.st.all {
		e.due = e.object != nil
	}
	m.loop.Kick()
}

// Run does what is to be done until ctx is done; then it deletes all exposures.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = true
	m.mu.Unlock()
	defer m.wg.Wait()
	var told []relay.Exposure
	m.loop.Run(ctx, func() (wait time.Duration, left int) {
		actions, exposed, wait, left := m.look()
		if !reflect.DeepEqual(exposed, told) {
			m.Relay.SetExposures(exposed)
			told = exposed
		}
		for _, a := range actions {
			m.start(ctx, a)
		}
		return wait, left
	}, m.endAll, nil)
	return nil
}

// look makes one step and tells everybody.
func (m *Manager) look() (actions []action, exposed []relay.Exposure, wait time.Duration, left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	actions = m.st.step(time.Now())
	close(m.changed)
	m.changed = make(chan struct{})
	return actions, m.st.relayed(), m.st.wait(), len(m.st.all)
}

func (m *Manager) endAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
	for _, e := range m.st.all {
		e.fail(&localapi.Error{Code: localapi.CodeEnded, Message: "the session ended, and the exposure with it", Hint: "podnet connect begins a new session"})
	}
}

// start does one thing beside the loop. What was written must be known, so that it
// can be deleted: only reading ends with ctx.
func (m *Manager) start(ctx context.Context, a action) {
	kept := context.WithoutCancel(ctx)
	e, begun := a.exposure, time.Now()
	m.mu.Lock()
	object, stopping, want := e.object, e.stopping, m.st.write(e)
	if a.verb == doRenew {
		e.renew++
	}
	renew := e.renew
	m.mu.Unlock()
	m.wg.Go(func() {
		var err error
		var done func(now time.Time)
		switch a.verb {
		case doCreate:
			var o *v1alpha1.Exposure
			o, err = m.create(kept, want)
			done = func(now time.Time) { e.created(o, begun, now, err) }
		case doPoll:
			var o *v1alpha1.Exposure
			o, err = m.Cluster.Exposure(ctx, e.namespace, e.name)
			done = func(now time.Time) { m.st.polled(e, o, now, err) }
		case doPoint:
			err = m.Cluster.PointService(kept, object)
			done = func(now time.Time) { e.pointedTo(object.Status.Host, now, err) }
		case doRenew:
			err = m.Cluster.RenewExposure(ctx, e.namespace, e.name, renew)
			done = func(now time.Time) { m.st.renewed(e, begun, now, err) }
		case doDelete:
			if err = m.Cluster.DeleteExposure(kept, object.Namespace, object.Name, object.UID); err == nil && stopping {
				m.note("a name stays until the cluster clears it away", e, m.Cluster.DropService(kept, object))
			}
			done = func(now time.Time) { e.deleted(now, err) }
		}
		m.note("an exposure has trouble", e, err)
		m.mu.Lock()
		defer m.mu.Unlock()
		e.busy = false
		done(time.Now())
		m.loop.Kick()
	})
}

func (m *Manager) note(text string, e *exposure, err error) {
	if err != nil {
		m.Log.Info(text, "exposure", e.String(), "err", err)
	}
}

// create writes an object where none is in the way. A leftover of our own goes.
func (m *Manager) create(ctx context.Context, want *v1alpha1.Exposure) (*v1alpha1.Exposure, error) {
	if err := m.Cluster.NameFree(ctx, want.Namespace, want.Name); err != nil {
		return nil, err
	}
	o, err := m.Cluster.CreateExposure(ctx, want)
	if !errors.Is(err, cluster.ErrExists) {
		return o, err
	}
	have, err := m.Cluster.Exposure(ctx, want.Namespace, want.Name)
	switch {
	case err != nil:
		return nil, err
	case have.Spec.User == want.Spec.User && have.Spec.Peer == want.Spec.Peer && reflect.DeepEqual(have.Spec.Ports, want.Spec.Ports):
		return have, nil // an answer of ours was lost
	}
	if err := inTheWay(have, m.User); err != nil {
		return nil, err
	}
	if err := m.Cluster.DeleteExposure(ctx, have.Namespace, have.Name, have.UID); err != nil {
		return nil, err
	}
	return m.Cluster.CreateExposure(ctx, want)
}

var _ Cluster = (*cluster.Client)(nil)
