package exposing

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world plays the cluster, its gateway and the relay.
type world struct {
	t *testing.T

	mu      sync.Mutex
	objects map[string]*v1alpha1.Exposure // by NAMESPACE/NAME
	names   map[string]string             // where Services lead, by NAMESPACE/NAME
	uids    int
	calls   []string
	exposed []relay.Exposure
	ports   uint16 // given
	subs    map[*func(relay.Request)]bool

	taken   error // of names
	deny    error // of creates
	verdict metav1.Condition
	silent  bool // the gateway says nothing
	away    error
}

func newWorld(t *testing.T) *world {
	return &world{t: t, objects: map[string]*v1alpha1.Exposure{}, names: map[string]string{}, subs: map[*func(relay.Request)]bool{},
		verdict: metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAdmitted}}
}

// with changes how the world is.
func (w *world) with(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) callLocked(format string, a ...any) error {
	w.calls = append(w.calls, fmt.Sprintf(format, a...))
	return w.away
}

// count is how many calls began like this.
func (w *world) count(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (w *world) CreateExposure(_ context.Context, e *v1alpha1.Exposure) (*v1alpha1.Exposure, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := e.Namespace + "/" + e.Name
	if err := w.callLocked("create %s", at); err != nil {
		return nil, err
	}
	if w.deny != nil {
		return nil, w.deny
	}
	if w.objects[at] != nil {
		return nil, cluster.ErrExists
	}
	w.uids++
	o := e.DeepCopy()
	o.UID = types.UID(fmt.Sprintf("uid-%d", w.uids))
	w.objects[at] = o
	return o.DeepCopy(), nil
}

func (w *world) Exposure(_ context.Context, namespace, name string) (*v1alpha1.Exposure, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.callLocked("get %s/%s", namespace, name); err != nil {
		return nil, err
	}
	o := w.objects[namespace+"/"+name]
	if o == nil {
		return nil, cluster.ErrGone
	}
	if !w.silent && len(o.Status.Conditions) == 0 {
		o.Status.Conditions = []metav1.Condition{w.verdict}
		o.Status.Host = "podnet-x-" + string(o.UID) + ".podnet-system.svc.cluster.local"
	}
	return o.DeepCopy(), nil
}

func (w *world) Exposures(_ context.Context, namespace string) (out []v1alpha1.Exposure, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.objects {
		if namespace == "" || o.Namespace == namespace {
			out = append(out, *o.DeepCopy())
		}
	}
	return out, nil
}

func (w *world) RenewExposure(_ context.Context, namespace, name string, renew int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.callLocked("renew %s/%s", namespace, name); err != nil {
		return err
	}
	o := w.objects[namespace+"/"+name]
	if o == nil {
		return cluster.ErrGone
	}
	if renew <= o.Spec.Renew {
		w.t.Errorf("renewed from %d to %d", o.Spec.Renew, renew)
	}
	o.Spec.Renew = renew
	return nil
}

func (w *world) DeleteExposure(_ context.Context, namespace, name string, uid types.UID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.callLocked("delete %s/%s", namespace, name); err != nil {
		return err
	}
	if o := w.objects[namespace+"/"+name]; o != nil && o.UID == uid {
		delete(w.objects, namespace+"/"+name)
	}
	return nil
}

func (w *world) NameFree(context.Context, string, string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken
}

func (w *world) PointService(_ context.Context, e *v1alpha1.Exposure) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := e.Namespace + "/" + e.Name
	if err := w.callLocked("point %s", at); err != nil {
		return err
	}
	w.names[at] = e.Status.Host
	return nil
}

func (w *world) DropService(_ context.Context, e *v1alpha1.Exposure) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.names, e.Namespace+"/"+e.Name)
	return w.callLocked("drop %s/%s", e.Namespace, e.Name)
}

func (w *world) Port() uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports++
	return 19999 + w.ports
}

func (w *world) SetExposures(all []relay.Exposure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exposed = all
}

func (w *world) Served(string) relay.Served { return relay.Served{Connections: 3, Failed: 1} }

func (w *world) Subscribe(fn func(relay.Request)) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs[&fn] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.subs, &fn)
	}
}

// took tells all who subscribed.
func (w *world) took(q relay.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for fn := range w.subs {
		(*fn)(q)
	}
}

// manager runs one in w, until stop.
func (w *world) manager() (m *Manager, stop func()) {
	m = New(Config{Cluster: w, Relay: w, User: "alice", Namespace: "shop", Lease: lease, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	m.SetMember(Member{Peer: "u1", Gateways: []v1alpha1.Gateway{{Pod: "podnet-gateway-0", PublicKey: gatewayKey}}})
	return m, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}
