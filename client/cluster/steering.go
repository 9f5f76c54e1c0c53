package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
)

// ErrExists is returned when an object of that name is there already.
var ErrExists = errors.New("there is one of that name already")

func steeringPath(namespace, name string) string {
	if namespace == "" {
		return api + "/steeringrules"
	}
	return api + "/namespaces/" + namespace + "/steeringrules" + slash(name)
}

// CreateSteeringRule writes a rule. Its name, namespace, owner and spec are the
// caller's; the user is who we are, the label follows spec.rule, and renew is at
// least 1. The error is ErrExists when the name is taken, a *ForbiddenError when
// a permission is missing.
func (c *Client) CreateSteeringRule(ctx context.Context, rule *v1alpha1.SteeringRule) error {
	r := rule.DeepCopy()
	r.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SteeringRule"}
	r.Spec.User, r.Spec.Renew = c.User, max(r.Spec.Renew, 1)
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	r.Labels[v1alpha1.LabelRule] = r.Spec.Rule
	err := c.post(ctx, steeringPath(r.Namespace, ""), r, nil)
	switch {
	case apierrors.IsAlreadyExists(err):
		return ErrExists
	case apierrors.IsNotFound(err):
		return c.unknown(ctx, r.Namespace, "steeringrules", "steer")
	case apierrors.IsForbidden(err):
		return c.refusedSteering(ctx, r, "create", err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return c.admission(err)
	}
	return c.explain("write a steering rule to", err)
}

// refusedSteering says which of the permissions that a rule takes is missing.
// One for a single pod or Service counts where it is known.
func (c *Client) refusedSteering(ctx context.Context, r *v1alpha1.SteeringRule, verb string, err error) error {
	namespace := r.Namespace
	if p := c.missing(ctx, []Permission{{Verb: verb, Group: "podnet.dev", Resource: "steeringrules", Namespace: namespace}}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: c.askUser(namespace)}
	}
	need, ask := Permission{Verb: "patch", Resource: "pods", Subresource: "ephemeralcontainers", Namespace: namespace, Name: r.Spec.Pod}, c.askSteer(namespace)
	if r.Spec.Service != "" {
		need, ask = Permission{Verb: "patch", Resource: "services", Namespace: namespace, Name: r.Spec.Service}, c.askServices(namespace)
	}
	if p := c.missing(ctx, []Permission{need}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: ask}
	}
	return c.admission(err)
}

// named is a rule as the API has it; what cannot be read is not known.
func (c *Client) named(ctx context.Context, namespace, name string) *v1alpha1.SteeringRule {
	r, err := c.SteeringRule(ctx, namespace, name)
	if err != nil {
		r = &v1alpha1.SteeringRule{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
	}
	return r
}

// askSteer is how an administrator lets us steer in a namespace.
func (c *Client) askSteer(namespace string) string {
	return fmt.Sprintf("kubectl -n %s create rolebinding %s-steer --clusterrole=podnet-steer %s", namespace, c.bindingName(), c.subject())
}

// askServices is how an administrator lets us steer a namespace's Services.
func (c *Client) askServices(namespace string) string {
	name := c.bindingName() + "-services"
	return fmt.Sprintf("kubectl -n %[1]s create role %[2]s --verb=get,list,watch,patch --resource=services && kubectl -n %[1]s create rolebinding %[2]s --role=%[2]s %[3]s", namespace, name, c.subject())
}

// RenewSteeringRule prolongs a rule, with the errors of RenewPeer.
func (c *Client) RenewSteeringRule(ctx context.Context, namespace, name string, renew int64) error {
	return c.patchSteering(ctx, namespace, name, "renew", renew, "renew a steering rule at")
}

// SetAgentKey writes the public key of the pod's agent into a rule, with the
// errors of RenewPeer.
func (c *Client) SetAgentKey(ctx context.Context, namespace, name, key string) error {
	return c.patchSteering(ctx, namespace, name, "agentKey", key, "write the agent's key at")
}

func (c *Client) patchSteering(ctx context.Context, namespace, name, field string, value any, purpose string) error {
	err := c.patch(ctx, steeringPath(namespace, name), field, value)
	switch {
	case apierrors.IsForbidden(err):
		return c.refusedSteering(ctx, c.named(ctx, namespace, name), "patch", err)
	case apierrors.IsInvalid(err):
		return c.admission(err)
	}
	return c.explain(purpose, err)
}

// DeleteSteeringRule ends a rule, whoever's it is; that it is gone already is
// no error.
func (c *Client) DeleteSteeringRule(ctx context.Context, namespace, name string) error {
	err := ignoreNotFound(c.delete(ctx, steeringPath(namespace, name)))
	if apierrors.IsForbidden(err) {
		return c.refusedSteering(ctx, c.named(ctx, namespace, name), "delete", err)
	}
	return c.explain("delete a steering rule at", err)
}

// SteeringRule reads one; ErrGone when there is none.
func (c *Client) SteeringRule(ctx context.Context, namespace, name string) (*v1alpha1.SteeringRule, error) {
	var r v1alpha1.SteeringRule
	err := c.get(ctx, steeringPath(namespace, name), &r)
	if apierrors.IsNotFound(err) {
		return nil, ErrGone
	}
	return &r, c.explain("read a steering rule at", err)
}

// SteeringRules are everybody's rules in a namespace, or in all of them when it
// is empty. A label selector narrows them, as podnet.dev/rule=web; empty: all.
// Without podnet's definitions in the cluster there are none.
func (c *Client) SteeringRules(ctx context.Context, namespace, selector string) ([]v1alpha1.SteeringRule, error) {
	path := steeringPath(namespace, "")
	if selector != "" {
		path += "?" + url.Values{"labelSelector": {selector}}.Encode()
	}
	var list v1alpha1.SteeringRuleList
	err := c.list(ctx, path, &list, namespace, "steeringrules", "the steering rules")
	return list.Items, err
}

// list reads objects of podnet's into a list, which stays empty in a cluster without
// podnet's definitions. They are a resource, and called what in an error.
func (c *Client) list(ctx context.Context, path string, into any, namespace, resource, what string) error {
	err := c.get(ctx, path, into)
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err):
		return c.refusedList(namespace, resource, err)
	}
	return c.explain("list "+what+" of", err)
}
