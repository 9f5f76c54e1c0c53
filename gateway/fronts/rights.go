package fronts

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/deploy"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/wake"
)

const (
	// rightsInterval is how often the API server is asked again what this gateway
	// may do in a namespace, rightsRetry while it may not.
	rightsInterval = 30 * time.Second
	rightsRetry    = 3 * time.Second
)

// steersServices is what it takes to steer the Services of a namespace: the
// ClusterRole deploy.ServicesRole.
var steersServices = []authorizationv1.ResourceAttributes{
	{Verb: "create", Resource: "services"}, {Verb: "patch", Resource: "services"}, {Verb: "delete", Resource: "services"},
	{Verb: "create", Group: "discovery.k8s.io", Resource: "endpointslices"}, {Verb: "patch", Group: "discovery.k8s.io", Resource: "endpointslices"},
	{Verb: "delete", Group: "discovery.k8s.io", Resource: "endpointslices"},
}

// rights knows where this gateway may steer Services.
type rights struct {
	client  client.Client
	log     *slog.Logger
	account string // the gateway's own, as kubectl wants it
	changed func()
	asked   chan struct{} // of one: a namespace has yet to be asked about

	mu         sync.Mutex
	namespaces map[string]right
}

// right is an answer; the zero one is none yet.
type right struct {
	at      time.Time
	missing string // as "patch services"; "": nothing
}

func newRights(c client.Client, log *slog.Logger, namespace string, changed func()) *rights {
	return &rights{client: c, log: log, account: namespace + ":" + deploy.ServiceAccountName, changed: changed, asked: make(chan struct{}, 1), namespaces: map[string]right{}}
}

// want says which namespaces matter.
func (r *rights) want(namespaces map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.namespaces, func(ns string, _ right) bool { return !namespaces[ns] })
	for ns := range namespaces {
		if _, known := r.namespaces[ns]; !known {
			r.namespaces[ns] = right{}
			wake.Up(r.asked)
		}
	}
}

// refuse says why the Services of a namespace cannot be steered, "" if they can.
// It is undecided while the API server has not answered.
func (r *rights) refuse(namespace string) (why string, decided bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := r.namespaces[namespace]
	if answer.missing == "" {
		return "", !answer.at.IsZero()
	}
	return fmt.Sprintf("The gateway may not %s in namespace %s. An administrator lets it: kubectl -n %s create rolebinding podnet-services --clusterrole=%s --serviceaccount=%s",
		answer.missing, namespace, namespace, deploy.ServicesRole, r.account), true
}

// run asks until ctx ends.
func (r *rights) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.asked:
		}
		for _, ns := range r.due(time.Now()) {
			missing, err := r.ask(ctx, ns)
			if err != nil {
				if ctx.Err() == nil {
					r.log.Warn("could not ask what the gateway may do", "namespace", ns, "err", err)
				}
				continue
			}
			r.note(ns, right{time.Now(), missing})
		}
		timer.Reset(r.rest(time.Now()))
	}
}

// again is when to ask once more.
func (a right) again() time.Time {
	if a.missing != "" {
		return a.at.Add(rightsRetry)
	}
	return a.at.Add(rightsInterval)
}

func (r *rights) due(now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for ns, answer := range r.namespaces {
		if !now.Before(answer.again()) {
			all = append(all, ns)
		}
	}
	slices.Sort(all)
	return all
}

// rest is how long nothing is due, a second at least: who could not ask asks again then.
func (r *rights) rest(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := rightsInterval
	for _, answer := range r.namespaces {
		d = min(d, answer.again().Sub(now))
	}
	return max(d, time.Second)
}

func (r *rights) note(namespace string, answer right) {
	r.mu.Lock()
	before, wanted := r.namespaces[namespace]
	if wanted {
		r.namespaces[namespace] = answer
	}
	r.mu.Unlock()
	if wanted && (before.at.IsZero() || before.missing != answer.missing) {
		r.changed()
	}
}

// ask asks the API server what is missing, "" for nothing.
func (r *rights) ask(ctx context.Context, namespace string) (missing string, err error) {
	ctx, cancel := context.WithTimeout(ctx, write.Timeout)
	defer cancel()
	for _, what := range steersServices {
		what.Namespace = namespace
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &what}}
		if err := r.client.Create(ctx, review); err != nil {
			return "", err
		}
		if !review.Status.Allowed {
			return what.Verb + " " + what.Resource, nil
		}
	}
	return "", nil
}
