package cluster

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
)

func exposurePath(namespace, name string) string {
	if namespace == "" {
		return api + "/exposures"
	}
	return api + "/namespaces/" + namespace + "/exposures" + slash(name)
}

// CreateExposure writes an exposure and returns it as the cluster has it. Its name,
// namespace and spec are the caller's; the user is who we are, and renew is at least
// 1. The error is ErrExists when the name is taken, a *ForbiddenError when a
// permission is missing.
func (c *Client) CreateExposure(ctx context.Context, e *v1alpha1.Exposure) (*v1alpha1.Exposure, error) {
	e = e.DeepCopy()
	e.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Exposure"}
	e.Spec.User, e.Spec.Renew = c.User, max(e.Spec.Renew, 1)
	var have v1alpha1.Exposure
	err := c.post(ctx, exposurePath(e.Namespace, ""), e, &have)
	switch {
	case err == nil:
		return &have, nil
	case apierrors.IsAlreadyExists(err):
		return nil, ErrExists
	case apierrors.IsNotFound(err):
		return nil, c.unknown(ctx, e.Namespace, "exposures", "expose ports")
	case apierrors.IsForbidden(err):
		return nil, c.refusedExposure(ctx, e.Namespace, "create", err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return nil, c.admission(err)
	}
	return nil, c.explain("write an exposure to", err)
}

// refusedExposure says which of the permissions that an exposure takes is missing.
func (c *Client) refusedExposure(ctx context.Context, namespace, verb string, err error) error {
	if p := c.missing(ctx, []Permission{{Verb: verb, Group: "podnet.dev", Resource: "exposures", Namespace: namespace}}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: c.askUser(namespace)}
	}
	if p := c.missing(ctx, []Permission{{Verb: "create", Resource: "services", Namespace: namespace}}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: c.askEdit(namespace)}
	}
	return c.admission(err)
}

// askEdit is how an administrator lets us write Services in a namespace.
func (c *Client) askEdit(namespace string) string {
	return fmt.Sprintf("kubectl -n %s create rolebinding %s-edit --clusterrole=edit %s", namespace, c.bindingName(), c.subject())
}

// RenewExposure prolongs an exposure, with the errors of RenewPeer.
func (c *Client) RenewExposure(ctx context.Context, namespace, name string, renew int64) error {
	err := c.patch(ctx, exposurePath(namespace, name), "renew", renew)
	switch {
	case apierrors.IsForbidden(err):
		return c.refusedExposure(ctx, namespace, "patch", err)
	case apierrors.IsInvalid(err):
		return c.admission(err)
	}
	return c.explain("renew an exposure at", err)
}

// DeleteExposure ends the exposure that has this UID; that it is gone already is
// no error.
func (c *Client) DeleteExposure(ctx context.Context, namespace, name string, uid types.UID) error {
	err := c.deleteExactly(ctx, exposurePath(namespace, name), uid)
	if apierrors.IsForbidden(err) {
		return c.refusedExposure(ctx, namespace, "delete", err)
	}
	return c.explain("delete an exposure at", err)
}

// Exposure reads one; ErrGone when there is none.
func (c *Client) Exposure(ctx context.Context, namespace, name string) (*v1alpha1.Exposure, error) {
	var e v1alpha1.Exposure
	err := c.get(ctx, exposurePath(namespace, name), &e)
	switch {
	case err == nil:
		return &e, nil
	case apierrors.IsNotFound(err):
		return nil, ErrGone
	case apierrors.IsForbidden(err):
		return nil, c.refusedExposure(ctx, namespace, "get", err)
	}
	return nil, c.explain("read an exposure at", err)
}

// Exposures are everybody's in a namespace, or in all of them when it is empty.
// Without podnet's definitions in the cluster there are none.
func (c *Client) Exposures(ctx context.Context, namespace string) ([]v1alpha1.Exposure, error) {
	var list v1alpha1.ExposureList
	err := c.list(ctx, exposurePath(namespace, ""), &list, namespace, "exposures", "the exposures")
	return list.Items, err
}
