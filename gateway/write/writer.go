// Package write carries a gateway's wishes to the Kubernetes API: in the background, one
// write at a time for each object, and not twice the same while the watch has yet to
// show it. It works with CRDs that are older than the gateway. What to write, and when
// to wish it again, is for others.
package write

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/internal/wake"
)

// Shared is the manager in whose name the leading gateway writes what all share: it
// passes from leader to leader.
const Shared = "podnet-gateway"

// Timeout bounds one call of the API.
const Timeout = 10 * time.Second

const (
	// atOnce bounds the API writes under way.
	atOnce = 16
	// retryAfter is how long a failed write waits; by then the watch has told
	// why it failed.
	retryAfter = time.Second
	// settle is how long the watch may take to show what was written. Until
	// then the same wish is not written again; it is after that, as somebody else
	// may have undone it, such as a gateway of the same name that was about to end.
	settle = time.Second
	// unsaid is the same of a wish that the watch cannot show whole, as the object's CRD
	// lacks a field of it.
	unsaid = time.Minute
)

// Writer makes API writes in the background.
type Writer struct {
	client  client.Client
	log     *slog.Logger
	changed func() // asks for another look, which wishes again what is still wished
	errors  atomic.Uint64
	lacks   *undeclared

	places chan struct{}
	wait   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	running map[string]bool
	done    map[string]written
}

type written struct {
	what  string
	until time.Time // it has settled by then
	again bool      // another look is asked for then
}

// New makes a Writer. It calls changed when a write has ended or settled: whoever wishes
// has to look again then.
func New(c client.Client, log *slog.Logger, changed func()) *Writer {
	return &Writer{client: c, log: log, changed: changed, lacks: newUndeclared(log), places: make(chan struct{}, atOnce), running: map[string]bool{}, done: map[string]written{}}
}

// Submit writes what to the object named key, by calling do. Whoever wishes
// must wish again at the next look: a wish that cannot be met now is dropped.
func (w *Writer) Submit(ctx context.Context, key, what string, do func(context.Context) error) {
	w.submitFor(ctx, key, what, settle, do)
}

// submitFor is Submit of what takes that long to settle.
func (w *Writer) submitFor(ctx context.Context, key, what string, settles time.Duration, do func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, ok := w.done[key]; ok && d.what == what && time.Now().Before(d.until) {
		if !d.again {
			d.again = true
			w.done[key] = d
			time.AfterFunc(time.Until(d.until), w.changed)
		}
		return
	}
	if w.closed || w.running[key] {
		return
	}
	w.running[key] = true
	w.wait.Go(func() {
		select {
		case w.places <- struct{}{}:
			defer func() { <-w.places }()
		case <-ctx.Done():
			w.finish(ctx, key, what, settles, ctx.Err())
			return
		}
		started, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		err := do(started)
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			w.errors.Add(1)
			w.log.Warn("could not write", "object", key, "err", err)
		}
		w.finish(ctx, key, what, settles, err)
	})
}

func (w *Writer) finish(ctx context.Context, key, what string, settles time.Duration, err error) {
	if err != nil {
		wake.After(ctx, retryAfter)
	}
	w.mu.Lock()
	delete(w.running, key)
	if err == nil {
		w.done[key] = written{what: what, until: time.Now().Add(settles)}
	}
	for k, d := range w.done {
		if !time.Now().Before(d.until) {
			delete(w.done, k)
		}
	}
	w.mu.Unlock()
	w.changed()
}

// Errors is how many writes have failed.
func (w *Writer) Errors() uint64 { return w.errors.Load() }

// Idle waits for the writes under way.
func (w *Writer) Idle() { w.wait.Wait() }

// Close takes no more wishes and waits for the writes under way.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wait.Wait()
}
