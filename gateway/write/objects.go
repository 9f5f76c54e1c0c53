package write

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Patch is an apply patch for an object's status and the manager in whose name it is
// applied.
type Patch struct {
	Manager string
	Object  *unstructured.Unstructured // nil: there is nothing to write
}

// Status writes an object's status by these patches, one after the other.
func (w *Writer) Status(ctx context.Context, key string, patches ...Patch) {
	var what bytes.Buffer
	var all []Patch
	shows := settle
	for _, p := range patches {
		if p.Object == nil {
			continue
		}
		patch, less := w.lacks.trim(p.Object)
		if less {
			shows = unsaid
		}
		text, err := json.Marshal(patch)
		if err != nil {
			w.log.Error("could not encode status", "err", err)
			return
		}
		fmt.Fprintf(&what, "%s %s\n", p.Manager, text)
		all = append(all, p)
	}
	if len(all) == 0 {
		return
	}
	w.submitFor(ctx, key, what.String(), shows, func(ctx context.Context) error {
		for _, p := range all {
			if err := w.applyStatus(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// applyStatus applies a patch, without what the object's CRD does not have.
func (w *Writer) applyStatus(ctx context.Context, p Patch) error {
	for {
		patch, _ := w.lacks.trim(p.Object)
		err := w.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(patch), client.FieldOwner(p.Manager), client.ForceOwnership)
		if !w.lacks.learn(patch.GetKind(), err) {
			return err
		}
	}
}

// Clear zeroes what a kind's CRD does not have of a struct, to which v points, at a path
// of its status, as ".status.gateways". What is compared with what an object has must
// not have more than that can have.
func (w *Writer) Clear(kind, path string, v any) { w.lacks.clear(kind, path, v) }

// Object makes an object that a gateway keeps as it is given, in a manager's name.
func (w *Writer) Object(ctx context.Context, key, manager string, o runtime.ApplyConfiguration) {
	what, err := json.Marshal(o)
	if err != nil {
		w.log.Error("could not encode an object", "object", key, "err", err)
		return
	}
	w.Submit(ctx, key, string(what), func(ctx context.Context) error {
		return w.client.Apply(ctx, o, client.FieldOwner(manager), client.ForceOwnership)
	})
}

// Remove deletes an object, that very one.
func (w *Writer) Remove(ctx context.Context, o client.Object) {
	uid := o.GetUID()
	w.Submit(ctx, "delete/"+string(uid), "", func(ctx context.Context) error {
		return client.IgnoreNotFound(w.client.Delete(ctx, o.DeepCopyObject().(client.Object), client.Preconditions(metav1.Preconditions{UID: &uid})))
	})
}
