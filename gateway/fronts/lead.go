package fronts

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
)

// This file writes what package reroute plans for a Service. The watch says only
// that there is something to do. What that is follows from what there is when it is
// written, of which one thing is on its way for each Service at a time.

// write takes the next steps of a Service to where it is wished.
func (f *Fronts) write(ctx context.Context, s world.Service, w reroute.Wish) {
	f.o.Write.Submit(ctx, "service/"+s.Name.String(), versions(s.State, w), func(ctx context.Context) error {
		now, err := readState(ctx, f.o.Client, s.Name)
		if err != nil {
			return err
		}
		if now.Service == nil || now.Service.UID != s.State.Service.UID {
			return nil
		}
		return carryOut(ctx, f.o.Client, f.config.Plan(now, w))
	})
}

// versions tells apart what was seen and wished.
func versions(s reroute.State, w reroute.Wish) string {
	var all []string
	for _, o := range s.Slices {
		all = append(all, o.Name+" "+o.ResourceVersion)
	}
	if s.Shadow != nil {
		all = append(all, s.Shadow.ResourceVersion)
	}
	wish, _ := json.Marshal(w) // texts, numbers and addresses
	return fmt.Sprintf("%s %v %s", s.Service.ResourceVersion, all, wish)
}

// readState reads what there is of a Service from the API server itself.
func readState(ctx context.Context, c client.Reader, name types.NamespacedName) (s reroute.State, err error) {
	shadow := types.NamespacedName{Namespace: name.Namespace, Name: reroute.ShadowName(name.Name)}
	if s.Service, err = readService(ctx, c, name); err != nil {
		return s, err
	}
	if s.Shadow, err = readService(ctx, c, shadow); err != nil {
		return s, err
	}
	for _, service := range []string{name.Name, shadow.Name} {
		var list discoveryv1.EndpointSliceList
		if err := c.List(ctx, &list, client.InNamespace(name.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
			return s, err
		}
		for i := range list.Items {
			s.Slices = append(s.Slices, &list.Items[i])
		}
	}
	return s, nil
}

// readService is nil when there is none.
func readService(ctx context.Context, c client.Reader, name types.NamespacedName) (*corev1.Service, error) {
	o := &corev1.Service{}
	switch err := c.Get(ctx, name, o); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return o, nil
}

// carryOut writes all of a plan, or as much as goes without an error.
func carryOut(ctx context.Context, c client.Client, p reroute.Plan) error {
	if p.Shadow != nil {
		if err := applyWhole(ctx, c, p.Shadow); err != nil {
			return err
		}
	}
	for _, o := range p.Slices {
		if err := applyWhole(ctx, c, o); err != nil {
			return err
		}
	}
	for _, o := range p.Remove {
		if err := deleteVersion(ctx, c, o); err != nil {
			return err
		}
	}
	if p.Patch != nil {
		if err := c.Patch(ctx, p.Of.DeepCopy(), client.RawPatch(types.MergePatchType, p.Patch), client.FieldOwner(write.Shared)); err != nil {
			return err
		}
	}
	if p.Forget != nil {
		return deleteVersion(ctx, c, p.Forget)
	}
	return nil
}

// applyWhole makes an object as it is given.
func applyWhole(ctx context.Context, c client.Client, o runtime.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: content}
	unstructured.RemoveNestedField(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(write.Shared), client.ForceOwnership)
}

// deleteVersion deletes an object as it was read.
func deleteVersion(ctx context.Context, c client.Client, o client.Object) error {
	uid, version := o.GetUID(), o.GetResourceVersion()
	gone := client.Preconditions(metav1.Preconditions{UID: &uid, ResourceVersion: &version})
	return client.IgnoreNotFound(c.Delete(ctx, o.DeepCopyObject().(client.Object), gone))
}
