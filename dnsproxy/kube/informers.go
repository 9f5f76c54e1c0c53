package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Informers is the part of controller-runtime's cache.Cache that a Zone uses.
type Informers interface {
	GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

// Synced says whether everything that existed at the start is in the index.
// Before that the zone answers SERVFAIL: "no such name" would be a lie that
// resolvers keep.
func (z *Zone) Synced() bool { return z.synced.Load() }

// Services is the number of Services in the index.
func (z *Zone) Services() int { return z.index.size() }

// Run feeds the index from the informers until ctx ends; it starts no
// informer. The end of ctx is no error.
func (z *Zone) Run(ctx context.Context) (err error) {
	if z.cfg.Unwatched {
		z.synced.Store(true)
		<-ctx.Done()
		z.synced.Store(false)
		return nil
	}
	var started []subscription
	defer func() {
		z.synced.Store(false)
		for _, s := range started {
			err = errors.Join(err, s.informer.RemoveEventHandler(s.reg))
		}
	}()
	for _, w := range []struct {
		obj     client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&corev1.Namespace{}, z.namespaceEvents()},
		{&corev1.Service{}, z.serviceEvents()},
		{&discoveryv1.EndpointSlice{}, z.sliceEvents()},
	} {
		s, err := z.subscribe(ctx, w.obj, w.handler)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		started = append(started, s)
	}
	if !waitSynced(ctx, started) {
		return nil
	}
	z.synced.Store(true)
	z.log.Info("dns zone has synced", "zone", z.zone, "services", z.index.size())
	z.follow(ctx)
	<-ctx.Done()
	return nil
}

type subscription struct {
	informer cache.Informer
	reg      toolscache.ResourceEventHandlerRegistration
}

func (z *Zone) subscribe(ctx context.Context, obj client.Object, h toolscache.ResourceEventHandler) (subscription, error) {
	informer, err := z.cfg.Informers.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
	if err != nil {
		return subscription{}, fmt.Errorf("get informer of %T: %w", obj, err)
	}
	reg, err := informer.AddEventHandler(h)
	if err != nil {
		return subscription{}, fmt.Errorf("watch %T: %w", obj, err)
	}
	return subscription{informer, reg}, nil
}

func waitSynced(ctx context.Context, all []subscription) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, s := range all {
		for !s.reg.HasSynced() {
			select {
			case <-ctx.Done():
				return false
			case <-tick.C:
			}
		}
	}
	return true
}

func (z *Zone) namespaceEvents() toolscache.ResourceEventHandler {
	set := func(obj any, there bool) {
		if ns, ok := object[*corev1.Namespace](obj); ok {
			z.index.setNamespace(ns.Name, there)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { set(obj, true) },
		// Nothing of a namespace but its being there is in DNS.
		DeleteFunc: func(obj any) { set(obj, false) },
	}
}

func (z *Zone) serviceEvents() toolscache.ResourceEventHandler {
	set := func(obj any) {
		if svc, ok := object[*corev1.Service](obj); ok {
			z.index.setService(svc)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			if svc, ok := object[*corev1.Service](obj); ok {
				z.index.deleteService(serviceKey{svc.Namespace, svc.Name})
			}
		},
	}
}

func (z *Zone) sliceEvents() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if s, ok := object[*discoveryv1.EndpointSlice](obj); ok {
				z.index.setSlice(nil, s)
			}
		},
		UpdateFunc: func(old, obj any) {
			was, _ := object[*discoveryv1.EndpointSlice](old)
			if s, ok := object[*discoveryv1.EndpointSlice](obj); ok {
				z.index.setSlice(was, s)
			}
		},
		DeleteFunc: func(obj any) {
			if s, ok := object[*discoveryv1.EndpointSlice](obj); ok {
				z.index.deleteSlice(s)
			}
		},
	}
}

// object unwraps what an informer delivers: after a gap in the watch a
// deletion comes wrapped, with the object as it was last seen.
func object[T client.Object](obj any) (T, bool) {
	if lost, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	o, ok := obj.(T)
	return o, ok
}
