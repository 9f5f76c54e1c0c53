package gateway

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"podnet.dev/deploy"
	"podnet.dev/internal/wake"
)

// leadership says which gateway allocates addresses and writes what all share.
// The pod's name is the identity, and a StatefulSet never runs a name twice: a
// restarted gateway leads again at once instead of waiting for its own lease.
type leadership struct {
	o       Options
	log     *slog.Logger
	changed func()
	heard   func() // the API server has answered
	leads   atomic.Bool
}

func (l *leadership) run(ctx context.Context) error {
	c, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(l.o.REST), "podnet-gateway/leader"))
	if err != nil {
		return err
	}
	lock := heardLock{heard: l.heard, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.o.Namespace, Name: deploy.StatefulSetName},
		Client:     c.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.o.Pod},
	}}
	for ctx.Err() == nil {
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, Name: deploy.StatefulSetName,
			// Whoever comes while no gateway leads waits: at most some 10 s after
			// the leader died. Who loses the lead for nothing loses nothing.
			LeaseDuration: 8 * time.Second, RenewDeadline: 6 * time.Second, RetryPeriod: 1500 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { l.set(true) },
				OnStoppedLeading: func() { l.set(false) },
			},
		})
		if err != nil {
			return err
		}
		e.Run(ctx) // returns when the lease is lost
		if !wake.After(ctx, time.Second) {
			break
		}
	}
	return nil
}

// heardLock is a lock that tells when the API server has answered. Each gateway asks for
// the lease every few seconds, and need not ask for anything else to know that it is there.
type heardLock struct {
	resourcelock.Interface
	heard func()
}

func (l heardLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.heard()
	}
	return r, raw, err
}

func (l heardLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, r)
	if err == nil {
		l.heard()
	}
	return err
}

func (l *leadership) set(leads bool) {
	if l.leads.Swap(leads) != leads {
		l.log.Info("leadership changed", "leads", leads)
		l.changed()
	}
}
