// Package guard watches over what every decision of a gateway stands on: that the
// admission policies refuse what they must, and that the API server is there. What
// follows when they do not is the gateway's.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/enrol"
	"podnet.dev/internal/wake"
)

const (
	// tryInterval is how often the admission policies are tried while they
	// hold, so that one that is gone is known within a minute, the trial's 10 s
	// included; tryAgain when they do not hold or when it could not be told.
	tryInterval = 45 * time.Second
	tryAgain    = 5 * time.Second
	// frozenAfter is how long the API server may be silent before leases freeze.
	frozenAfter     = 10 * time.Second
	contactInterval = 3 * time.Second
)

// Guard knows whether the policies hold and whether the API server is there.
type Guard struct {
	client    client.Client
	namespace string
	log       *slog.Logger
	changed   func()
	event     func(ctx context.Context, reason, note string)

	tried     atomic.Bool // a trial had a result
	holds     atomic.Bool
	everHeld  atomic.Bool
	lastHeard atomic.Int64 // of the API server, ns on the clock of began
	began     time.Time
	away      atomic.Bool
}

// New makes a Guard of the gateway in a namespace. It calls changed when it has learned
// something, and event when an administrator has to know.
func New(c client.Client, namespace string, log *slog.Logger, changed func(), event func(ctx context.Context, reason, note string)) *Guard {
	return &Guard{client: c, namespace: namespace, log: log, changed: changed, event: event, began: time.Now()}
}

// Tried reports whether it is known if the policies hold.
func (g *Guard) Tried() bool { return g.tried.Load() }

// Holds reports whether the policies refuse what they must.
func (g *Guard) Holds() bool { return g.holds.Load() }

// EverHeld reports whether they have been seen to.
func (g *Guard) EverHeld() bool { return g.everHeld.Load() }

// Away reports whether the API server is away, so that leases freeze.
func (g *Guard) Away() bool { return g.away.Load() }

// verdict is what a trial of the policies tells.
type verdict int

const (
	unclear verdict = iota // the API server did not decide
	refused                // as it must be
	missing                // accepted, or refused for another reason
)

// judge reads the answer to a write that the policy with this reason must refuse.
func judge(err error, reason string) verdict {
	switch {
	case err == nil:
		return missing
	case strings.Contains(err.Error(), reason) && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)):
		return refused
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsAlreadyExists(err):
		return missing
	}
	return unclear
}

// try writes, for show, an object that each policy must refuse: a Peer of
// somebody else; Peers with a lease of an hour, with a network and with a domain
// beside the cluster, for none of which the gateway has the verb; access to the
// whole cluster for the gateway itself, which may not port-forward; a rule for a
// pod whose ephemeral containers the gateway may not patch; and an exposure of the
// gateway's, which has nothing to expose. Nothing else is wrong with them.
func (g *Guard) try(ctx context.Context, self string) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, forged := range g.forgeries(self) {
		err := g.client.Create(ctx, forged.object, client.DryRunAll)
		if v := judge(err, forged.reason); v != refused {
			return v, err
		}
	}
	return refused, nil
}

// forgery is an object and the reason with which it must be refused.
type forgery struct {
	object client.Object
	reason string
}

func (g *Guard) forgeries(self string) []forgery {
	meta := metav1.ObjectMeta{Namespace: g.namespace, Name: selfTest}
	owned := metav1.ObjectMeta{Namespace: g.namespace, Name: selfTest, Labels: map[string]string{podnet.LabelRule: selfTest},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: selfTest, UID: selfTest}}}
	return []forgery{
		{&podnet.Peer{ObjectMeta: meta, Spec: podnet.PeerSpec{User: "podnet:not-me", PublicKey: selfTestKey, LeaseSeconds: 60, Renew: 1}}, deploy.ReasonOwner},
		{&podnet.Peer{ObjectMeta: meta, Spec: podnet.PeerSpec{User: self, PublicKey: selfTestKey, LeaseSeconds: 3600, Renew: 1}}, deploy.ReasonPeer},
		{&podnet.Peer{ObjectMeta: meta, Spec: podnet.PeerSpec{User: self, PublicKey: selfTestKey, LeaseSeconds: 60, Renew: 1, AlsoRoutes: []string{"192.0.2.0/24"}}}, deploy.ReasonPeer},
		{&podnet.Peer{ObjectMeta: meta, Spec: podnet.PeerSpec{User: self, PublicKey: selfTestKey, LeaseSeconds: 60, Renew: 1, AlsoDomains: []string{"example.test"}}}, deploy.ReasonPeer},
		{&podnet.Access{ObjectMeta: meta, Spec: podnet.AccessSpec{User: self, Peer: selfTest, Renew: 1, Scope: podnet.ScopeCluster}}, deploy.ReasonAccess},
		{&podnet.SteeringRule{ObjectMeta: owned, Spec: podnet.SteeringRuleSpec{User: self, Peer: selfTest, Renew: 1, Rule: selfTest,
			Pod: selfTest, PodUID: selfTest, Port: 80, RelayPort: 1024}}, deploy.ReasonSteer},
		{&podnet.Exposure{ObjectMeta: meta, Spec: podnet.ExposureSpec{User: self, Peer: selfTest, Renew: 1,
			Ports: []podnet.ExposurePort{{Port: 80, Protocol: podnet.ExposureTCP, RelayPort: 1024}}}}, deploy.ReasonExpose},
	}
}

const (
	// selfTest names all that is forged.
	selfTest = "podnet-self-test"
	// selfTestKey is RFC 7748 section 6.1's: a valid key that is nobody's.
	selfTestKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

// RunPolicies tries the policies until ctx ends.
func (g *Guard) RunPolicies(ctx context.Context) error {
	self := ""
	for {
		if self == "" {
			self = g.whoAmI(ctx)
		}
		wait := time.Second
		if self != "" {
			wait = g.Try(ctx, self)
		}
		if !wake.After(ctx, wait) {
			return nil
		}
	}
}

// Try tries the policies once, for a gateway that is the user self, and takes note of
// what that tells. It returns how long it is until they should be tried again.
func (g *Guard) Try(ctx context.Context, self string) time.Duration {
	v, err := g.try(ctx, self)
	g.note(ctx, v, err)
	switch {
	case v == refused:
		return tryInterval
	case v == unclear && !g.tried.Load():
		return time.Second
	}
	return tryAgain
}

func (g *Guard) note(ctx context.Context, v verdict, err error) {
	switch v {
	case unclear:
		if ctx.Err() == nil {
			g.log.Warn("could not try the admission policies", "err", err)
		}
		return
	case refused:
		if !g.holds.Swap(true) {
			g.log.Info("the admission policies hold")
		}
		g.everHeld.Store(true)
	case missing:
		if g.holds.Swap(false) || !g.tried.Load() {
			if err == nil {
				err = errors.New("a forged object was accepted")
			}
			g.log.Error("the admission policies are missing or changed: nobody new is admitted and no lease renewed; podnet install puts them back", "err", err)
			g.event(ctx, podnet.ReasonPolicyMissing, "The admission policies podnet-owner, podnet-peer, podnet-access, podnet-steering and podnet-exposure do not refuse what they must: nobody new is admitted and no lease is renewed. `podnet install` puts them back.")
		}
	}
	g.tried.Store(true)
	g.changed()
}

// whoAmI asks the API server for the gateway's own name, "" when it cannot say.
func (g *Guard) whoAmI(ctx context.Context) string {
	review := &authenticationv1.SelfSubjectReview{}
	if err := g.client.Create(ctx, review); err != nil {
		if ctx.Err() == nil {
			g.log.Warn("could not ask for the gateway's own name", "err", err)
		}
		return ""
	}
	return review.Status.UserInfo.Username
}

// RunContact asks the API server for a sign of life, whenever there was none for a while,
// until ctx ends.
func (g *Guard) RunContact(ctx context.Context, alive func(context.Context) error) error {
	g.Heard()
	for {
		var err error
		if g.Silence() >= contactInterval {
			asked, cancel := context.WithTimeout(ctx, contactInterval)
			err = alive(asked)
			cancel()
			if err == nil {
				g.Heard()
			}
		}
		if away := g.Silence() > frozenAfter; away != g.away.Load() {
			g.away.Store(away)
			if away {
				g.log.Warn("control plane unavailable: leases are frozen", "limit", enrol.FrozenLimit, "err", err)
			} else {
				g.log.Info("control plane is back: leases run again")
			}
			g.changed()
		}
		if !wake.After(ctx, contactInterval) {
			return nil
		}
	}
}

// Heard says that the API server has just answered.
func (g *Guard) Heard() { g.lastHeard.Store(int64(time.Since(g.began))) }

// Silence is how long nothing was heard of the API server.
func (g *Guard) Silence() time.Duration {
	return time.Since(g.began) - time.Duration(g.lastHeard.Load())
}

// Behind is Silence where it counts: what is known of the cluster may be true no more.
func (g *Guard) Behind() time.Duration {
	if !g.away.Load() {
		return 0
	}
	return g.Silence()
}
