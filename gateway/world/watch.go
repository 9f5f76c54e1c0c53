package world

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/wake"
)

// NewCache watches what the gateway of a namespace reads, and keeps only what it needs.
func NewCache(server *rest.Config, c client.Client, namespace string) (cache.Cache, error) {
	return cache.New(patiently(server), cache.Options{
		Scheme: c.Scheme(), Mapper: c.RESTMapper(), DefaultTransform: slim,
		ByObject: map[client.Object]cache.ByObject{&podnet.Peer{}: {Namespaces: map[string]cache.Config{namespace: {}}}},
	})
}

// kinds are those of the objects that are watched.
func kinds(mapper meta.RESTMapper) []client.Object {
	all := []client.Object{&podnet.Peer{}, &podnet.Access{}, &podnet.SteeringRule{}, &podnet.Exposure{}, &corev1.Service{}, &discoveryv1.EndpointSlice{}, &corev1.Node{}}
	// ServiceCIDR is there from 1.33 on, as v1beta1 and off by default before.
	kind := schema.GroupKind{Group: networkingv1.GroupName, Kind: "ServiceCIDR"}
	for _, o := range []client.Object{&networkingv1.ServiceCIDR{}, &networkingv1beta1.ServiceCIDR{}} {
		version := networkingv1.SchemeGroupVersion.Version
		if _, beta := o.(*networkingv1beta1.ServiceCIDR); beta {
			version = networkingv1beta1.SchemeGroupVersion.Version
		}
		if _, err := mapper.RESTMapping(kind, version); err == nil {
			return append(all, o)
		}
	}
	return all
}

// Watch follows the cluster until ctx ends. It calls synced once everything
// that existed at the start is known.
func (w *World) Watch(ctx context.Context, c cache.Cache, mapper meta.RESTMapper, synced func()) error {
	set := func(o any) {
		if object, ok := o.(client.Object); ok {
			w.Set(object)
		}
	}
	var registered []toolscache.ResourceEventHandlerRegistration
	for _, kind := range kinds(mapper) {
		informer, err := w.informer(ctx, c, kind)
		if err != nil {
			return nil // ctx has ended
		}
		r, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    set,
			UpdateFunc: func(_, o any) { set(o) },
			DeleteFunc: func(o any) {
				if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				if object, ok := o.(client.Object); ok {
					w.Remove(object)
				}
			},
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
		registered = append(registered, r)
	}
	unsynced := func(r toolscache.ResourceEventHandlerRegistration) bool { return !r.HasSynced() }
	for slices.ContainsFunc(registered, unsynced) {
		if !wake.After(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	synced()
	<-ctx.Done()
	return nil
}

// informer asks until the API server knows the kind: the CRDs may be applied a
// moment after the gateway, and the server itself may be away.
func (w *World) informer(ctx context.Context, c cache.Cache, o client.Object) (cache.Informer, error) {
	for told := ""; ; {
		i, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err == nil {
			return i, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			w.log.Warn("cannot watch yet", "kind", fmt.Sprintf("%T", o), "err", err)
		}
		if !wake.After(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
}
