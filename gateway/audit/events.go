package audit

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/write"
)

const (
	// eventsPerSecond and eventsAtOnce bound the Events about peers and rules: who
	// makes a thousand Peers shall not fill the API server with Events.
	eventsPerSecond, eventsAtOnce = 2, 50
	// eventsWaiting is how many wait to be written at most; what is beyond is left
	// out, and the log says how many.
	eventsWaiting = 256
	// maxNote is what the API server takes (events.k8s.io/v1).
	maxNote = 1024
)

// happening is what an Event tells.
type happening struct {
	action, reason, note string
	warning              bool
	regarding            corev1.ObjectReference
	related              *corev1.ObjectReference
}

func referTo(kind string, o metav1.Object, gv schema.GroupVersion) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: gv.String(), Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID()}
}

func (p peerFacts) happening(action, reason string, warning bool, note string) happening {
	return happening{action: action, reason: reason, warning: warning, note: note, regarding: referTo("Peer", p.object, podnet.GroupVersion)}
}

// happening about a rule regards its Peer where there is one: an Event lies in the
// namespace of what it regards, and the gateway may write Events in its own only.
func (r ruleFacts) happening(action, reason string, warning bool, note string) happening {
	rule := referTo("SteeringRule", r.object, podnet.GroupVersion)
	h := happening{action: action, reason: reason, warning: warning, note: note, related: &rule}
	if r.peer != nil {
		h.regarding = referTo("Peer", r.peer, podnet.GroupVersion)
	}
	return h
}

// Events writes Events in the background, not too many.
type Events struct {
	log   *slog.Logger
	write func(context.Context, happening) error
	leads func() bool
	self  corev1.ObjectReference // the gateway's pod
	queue chan happening
	lost  atomic.Int64
}

// NewEvents makes the Events of a gateway's pod. Run must be called for those about peers
// and rules, which are told by the gateway that leads.
func NewEvents(c client.Client, namespace, pod, podUID string, log *slog.Logger, leads func() bool) *Events {
	e := newEvents(log, leads, nil)
	e.self = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod, UID: types.UID(podUID)}
	e.write = func(ctx context.Context, h happening) error { return e.create(ctx, c, h) }
	return e
}

func newEvents(log *slog.Logger, leads func() bool, write func(context.Context, happening) error) *Events {
	return &Events{log: log, leads: leads, write: write, queue: make(chan happening, eventsWaiting)}
}

// tell has an Event written by the gateway that leads. It does not wait.
func (e *Events) tell(h happening) {
	if !e.leads() || h.regarding.Name == "" {
		return
	}
	select {
	case e.queue <- h:
	default:
		e.lost.Add(1)
	}
}

// Run writes until ctx ends.
func (e *Events) Run(ctx context.Context) error {
	pace := rate.NewLimiter(eventsPerSecond, eventsAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-e.queue:
			if pace.Wait(ctx) != nil {
				return nil
			}
			if err := e.write(ctx, h); err != nil && ctx.Err() == nil {
				e.log.Warn("could not write an event", "reason", h.reason, "err", err)
			}
			if n := e.lost.Swap(0); n > 0 {
				e.log.Warn("events were left out", "count", n)
			}
		}
	}
}

// Warn leaves an Event about the gateway itself.
func (e *Events) Warn(ctx context.Context, reason, note string) {
	h := happening{action: "Guard", reason: reason, note: note, warning: true, regarding: e.self}
	if err := e.write(ctx, h); err != nil && ctx.Err() == nil {
		e.log.Warn("could not write an event", "reason", reason, "err", err)
	}
}

func (e *Events) create(ctx context.Context, c client.Client, h happening) error {
	kind := corev1.EventTypeNormal
	if h.warning {
		kind = corev1.EventTypeWarning
	}
	ctx, cancel := context.WithTimeout(ctx, write.Timeout)
	defer cancel()
	return c.Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: e.self.Namespace, GenerateName: deploy.StatefulSetName + "-"},
		EventTime:           metav1.NewMicroTime(time.Now()),
		ReportingController: "podnet.dev/gateway", ReportingInstance: e.self.Name,
		Action: h.action, Reason: h.reason, Type: kind, Note: strings.ToValidUTF8(h.note[:min(len(h.note), maxNote)], ""),
		Regarding: h.regarding, Related: h.related,
	})
}
