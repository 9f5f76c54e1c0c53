package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
)

// uninstallTime is how long taking back a failed install may take: a pod's
// grace period and the namespace controller's rounds.
const uninstallTime = 90 * time.Second

// Uninstall deletes everything that any install has made, a half one included,
// and waits until it is gone. Peers, Accesses and SteeringRules go with their
// definitions; agents in pods end when no gateway speaks to them any more. With a
// namespace it deletes what was installed for that alone.
func (c *Client) Uninstall(ctx context.Context, namespace string, say func(string)) error {
	in, err := c.installer(say)
	if err != nil {
		return err
	}
	in.only = namespace
	return in.uninstall(ctx)
}

// order is that of the undoing: first nobody is let in any more, then those
// who are lose their objects, then the rules that protected them go.
var order = []string{"StatefulSet", "CustomResourceDefinition", "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"}

func (in *installer) uninstall(ctx context.Context) error {
	kinds, err := in.kinds()
	if err != nil {
		return err
	}
	var gone []*unstructured.Unstructured
	for _, m := range kinds {
		found, err := in.find(ctx, m)
		if err != nil {
			return err
		}
		for i := range found {
			u := &found[i]
			if err := in.remove(ctx, m, u); err != nil {
				return err
			}
			in.say("deleted " + describe(u))
			gone = append(gone, u)
		}
		if kind := m.GroupVersionKind.Kind; kind == "StatefulSet" || kind == "CustomResourceDefinition" {
			// While the policies still stand nobody can write what is being
			// deleted; wait for it before they go.
			if err := in.awaitGone(ctx, gone); err != nil {
				return err
			}
			gone = nil
		}
	}
	return in.awaitGone(ctx, gone)
}

// kinds are those of a full install, in the order of deletion. Those that the
// cluster does not know cannot be there.
func (in *installer) kinds() ([]*meta.RESTMapping, error) {
	o := deploy.Options{Image: "any", AgentImage: "any", Replicas: 1, NodePort: 30000, Users: []string{"any"}}
	if in.only != "" {
		o = deploy.Options{Image: "any", AgentImage: "any", NodePort: 30000, Namespace: in.only, Namespaced: true}
	}
	objects, err := deploy.Render(o)
	if err != nil {
		return nil, err
	}
	rank := func(kind string) int {
		switch i := slices.Index(order, kind); {
		case i >= 0:
			return i
		case kind == "Namespace":
			return len(order) + 1
		default:
			return len(order)
		}
	}
	var kinds []*meta.RESTMapping
	seen := map[schema.GroupKind]bool{}
	for _, u := range objects {
		gvk := u.GroupVersionKind()
		if seen[gvk.GroupKind()] {
			continue
		}
		seen[gvk.GroupKind()] = true
		if m, err := in.mapper.RESTMapping(gvk.GroupKind(), gvk.Version); err == nil {
			kinds = append(kinds, m)
		}
	}
	slices.SortStableFunc(kinds, func(a, b *meta.RESTMapping) int {
		return rank(a.GroupVersionKind.Kind) - rank(b.GroupVersionKind.Kind)
	})
	return kinds, nil
}

func (in *installer) find(ctx context.Context, m *meta.RESTMapping) ([]unstructured.Unstructured, error) {
	call, cancel := withTimeoutAlways(ctx, requestTimeout)
	defer cancel()
	var from dynamic.ResourceInterface = in.dynamic.Resource(m.Resource)
	which := metav1.ListOptions{LabelSelector: partOf}
	if in.only != "" {
		from, which.LabelSelector = in.dynamic.Resource(m.Resource).Namespace(in.only), partOfAlone
	}
	list, err := from.List(call, which)
	switch {
	case apierrors.IsForbidden(err):
		return nil, in.mayNot("list", m, in.only)
	case err != nil:
		return nil, in.explain("list "+m.Resource.Resource+" of", err)
	}
	return list.Items, nil
}

func (in *installer) mayNot(verb string, m *meta.RESTMapping, namespace string) error {
	return &ForbiddenError{User: in.User, Permission: Permission{Verb: verb, Group: m.Resource.Group, Resource: m.Resource.Resource, Namespace: namespace,
		ClusterScoped: m.Scope.Name() == meta.RESTScopeNameRoot}}
}

func (in *installer) remove(ctx context.Context, m *meta.RESTMapping, u *unstructured.Unstructured) error {
	call, cancel := withTimeoutAlways(ctx, requestTimeout)
	defer cancel()
	how := metav1.DeletePropagationBackground
	if m.GroupVersionKind.Kind == "StatefulSet" {
		// It is there until its pods have ended: before that they lead Services that
		// they steer to their pods again, for which they need what goes next.
		how = metav1.DeletePropagationForeground
	}
	err := in.at(m, u).Delete(call, u.GetName(), metav1.DeleteOptions{PropagationPolicy: &how})
	switch {
	case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err): // a conflict: it is going already
		return nil
	case apierrors.IsForbidden(err):
		return in.mayNot("delete", m, u.GetNamespace())
	}
	return in.explain("delete "+describe(u)+" from", err)
}

func (in *installer) at(m *meta.RESTMapping, u *unstructured.Unstructured) dynamic.ResourceInterface {
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		return in.dynamic.Resource(m.Resource).Namespace(u.GetNamespace())
	}
	return in.dynamic.Resource(m.Resource)
}

// awaitGone waits until none of the objects is there any more.
func (in *installer) awaitGone(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, u := range objects {
		r, _, err := in.resource(u)
		if err != nil {
			continue // its very kind is gone
		}
		for told := false; ; told = true {
			call, cancel := withTimeoutAlways(ctx, requestTimeout)
			have, err := r.Get(call, u.GetName(), metav1.GetOptions{})
			cancel()
			if apierrors.IsNotFound(err) || err == nil && have.GetUID() != u.GetUID() {
				break
			}
			if err != nil && ctx.Err() == nil {
				return in.explain("read "+describe(u)+" from", err)
			}
			if !told && u.GetKind() == "Namespace" {
				in.say("waiting until " + describe(u) + " is gone")
			}
			if err := sleep(ctx, 2*pollEvery); err != nil {
				return &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("%s is still being deleted", describe(u)),
					Hint: "kubectl describe says what holds it; run podnet uninstall again"}
			}
		}
	}
	return nil
}
