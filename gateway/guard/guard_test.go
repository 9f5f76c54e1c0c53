package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
)

func TestJudge(t *testing.T) {
	peers := schema.GroupResource{Group: "podnet.dev", Resource: "peers"}
	for _, c := range []struct {
		what string
		err  error
		want verdict
	}{
		{"accepted", nil, missing},
		{"refused by the policy", apierrors.NewForbidden(peers, "x", errors.New("ValidatingAdmissionPolicy 'podnet-owner' denied request: PODNET-OWNER: spec.user must be the caller")), refused},
		{"refused by the other policy", apierrors.NewForbidden(peers, "x", errors.New("PODNET-ACCESS: no")), missing},
		{"refused by RBAC", apierrors.NewForbidden(peers, "x", errors.New(`User "g" cannot create resource`)), missing},
		{"refused by the schema", apierrors.NewBadRequest("unknown field"), missing},
		{"the word in a mere error", errors.New("PODNET-OWNER"), unclear},
		{"no API server", errors.New("dial tcp: connection refused"), unclear},
		{"a busy API server", apierrors.NewTooManyRequests("later", 1), unclear},
		{"a broken API server", apierrors.NewInternalError(fmt.Errorf("etcd")), unclear},
		{"no CRD", apierrors.NewNotFound(peers, "x"), unclear},
		{"no credentials", apierrors.NewUnauthorized("who?"), unclear},
	} {
		if got := judge(c.err, deploy.ReasonOwner); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.what, got, c.want)
		}
	}
}

func quiet(context.Context, string, string) {}

// clusterWithout is an API server from which one policy may have been deleted.
type clusterWithout struct {
	client.Client
	reason string // of the policy that is gone
	rule   *podnet.SteeringRule
}

func (c *clusterWithout) Create(_ context.Context, o client.Object, how ...client.CreateOption) error {
	if !slices.Contains(how, client.CreateOption(client.DryRunAll)) {
		return errors.New("this is not for show")
	}
	reason := ""
	switch o := o.(type) {
	case *podnet.Peer:
		if reason = deploy.ReasonOwner; o.Spec.User == "me" {
			reason = deploy.ReasonPeer
		}
	case *podnet.Access:
		reason = deploy.ReasonAccess
	case *podnet.SteeringRule:
		reason, c.rule = deploy.ReasonSteer, o
	case *podnet.Exposure:
		reason = deploy.ReasonExpose
	}
	if reason == c.reason {
		return nil
	}
	return apierrors.NewForbidden(schema.GroupResource{}, o.GetName(), errors.New(reason+": no"))
}

func TestEachPolicyIsTried(t *testing.T) {
	all := &clusterWithout{}
	for gone, c := range map[string]*clusterWithout{
		"": all, deploy.ReasonOwner: {reason: deploy.ReasonOwner}, deploy.ReasonAccess: {reason: deploy.ReasonAccess}, deploy.ReasonSteer: {reason: deploy.ReasonSteer},
		deploy.ReasonExpose: {reason: deploy.ReasonExpose}, deploy.ReasonPeer: {reason: deploy.ReasonPeer},
	} {
		want := missing
		if gone == "" {
			want = refused
		}
		g := New(c, "podnet-system", slog.New(slog.DiscardHandler), func() {}, quiet)
		if got, err := g.try(t.Context(), "me"); got != want {
			t.Errorf("without %q: verdict %d, %v, want %d", gone, got, err, want)
		}
	}
	// Only the missing right may be wrong with the rule, else another line of the
	// policy would answer for it.
	r := all.rule
	if len(r.OwnerReferences) != 1 || r.OwnerReferences[0].Name != r.Spec.Pod || string(r.OwnerReferences[0].UID) != r.Spec.PodUID || r.Labels[podnet.LabelRule] != r.Spec.Rule || r.Spec.User != "me" {
		t.Errorf("more is wrong with the rule than that the gateway may not steer: %+v", r)
	}
}

func TestControlPlaneThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var looks atomic.Int32
		up.Store(true)
		g := New(nil, "podnet-system", slog.New(slog.DiscardHandler), func() { looks.Add(1) }, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_ = g.RunContact(ctx, func(ctx context.Context) error {
				if up.Load() {
					return nil
				}
				<-ctx.Done() // neither yes nor no: the cable is out
				return ctx.Err()
			})
		}()
		time.Sleep(time.Hour)
		if g.Away() || looks.Load() != 0 {
			t.Error("away while it answers")
		}
		up.Store(false)
		time.Sleep(8 * time.Second)
		if g.Away() {
			t.Error("away after 8 s: too early")
		}
		time.Sleep(12 * time.Second)
		if !g.Away() || looks.Load() != 1 {
			t.Error("not away after 20 s")
		}
		up.Store(true)
		time.Sleep(7 * time.Second)
		if g.Away() || looks.Load() != 2 {
			t.Error("still away although it answers again")
		}
	})
}

// TestContactByOthers asks the API server for nothing while it answers somebody else.
func TestContactByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(nil, "podnet-system", slog.New(slog.DiscardHandler), func() {}, quiet)
		var asked atomic.Int32
		go func() {
			_ = g.RunContact(t.Context(), func(context.Context) error { asked.Add(1); return errors.New("away") })
		}()
		for range 1000 {
			time.Sleep(2 * time.Second)
			g.Heard()
		}
		if n := asked.Load(); n != 0 || g.Away() {
			t.Errorf("asked %d times while it answers, away: %v", n, g.Away())
		}
		time.Sleep(frozenAfter + 3*contactInterval)
		if n := asked.Load(); n < 3 || !g.Away() {
			t.Errorf("asked %d times once it is silent, away: %v", n, g.Away())
		}
	})
}

func TestPoliciesComeAndGo(t *testing.T) {
	var events []string
	looks := 0
	g := New(nil, "podnet-system", slog.New(slog.DiscardHandler), func() { looks++ }, func(_ context.Context, reason, _ string) { events = append(events, reason) })
	for i, step := range []struct {
		v                  verdict
		tried, holds, ever bool
		events             int
	}{
		{unclear, false, false, false, 0}, // no answer is no ground to admit anybody
		{missing, true, false, false, 1},
		{missing, true, false, false, 1}, // said once
		{refused, true, true, true, 1},
		{unclear, true, true, true, 1}, // nor to shut anybody out
		{missing, true, false, true, 2},
		{refused, true, true, true, 2},
	} {
		g.note(t.Context(), step.v, nil)
		if g.Tried() != step.tried || g.Holds() != step.holds || g.EverHeld() != step.ever || len(events) != step.events {
			t.Errorf("step %d: tried %v, holds %v, ever held %v, %d events", i, g.Tried(), g.Holds(), g.EverHeld(), len(events))
		}
	}
	if looks != 5 {
		t.Errorf("%d looks were asked for, want one for each verdict", looks)
	}
}
