package cluster

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

// managedBy is Kubernetes' label for who keeps an object, and ourselves.
const managedBy, ourselves = "app.kubernetes.io/managed-by", "podnet"

func servicePath(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/services" + slash(name)
}

// nameService is the Service by which an exposure is reached in its namespace. It
// goes with the exposure.
func nameService(e *v1alpha1.Exposure) *corev1.Service {
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name, Labels: map[string]string{managedBy: ourselves},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Exposure", Name: e.Name, UID: e.UID}}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: e.Status.Host},
	}
	for _, p := range e.Spec.Ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("%s-%d", p.Protocol, p.Port), Port: p.Port, Protocol: corev1.Protocol(strings.ToUpper(string(p.Protocol)))})
	}
	return s
}

// ours says that a Service is the name of an exposure, the one there is or one that
// was there before it.
func ours(s *corev1.Service) bool {
	if s.Labels[managedBy] != ourselves {
		return false
	}
	for _, o := range s.OwnerReferences {
		if o.Kind == "Exposure" && strings.HasPrefix(o.APIVersion, v1alpha1.GroupVersion.Group+"/") && o.Name == s.Name {
			return true
		}
	}
	return false
}

// NameFree says that no Service has the name, or one that is an exposure's. Its
// error is a conflict otherwise. Who may not look is not told.
func (c *Client) NameFree(ctx context.Context, namespace, name string) error {
	have, err := c.service(ctx, namespace, name)
	switch {
	case err == ErrGone, apierrors.IsForbidden(err):
		return nil
	case err != nil:
		return c.explain("read a service at", err)
	case !ours(have):
		return c.taken(namespace, name)
	}
	return nil
}

func (c *Client) taken(namespace, name string) error {
	return &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("there is a Service %s in namespace %s already, and it is not podnet's", name, namespace),
		Hint: "choose another name by --as, or podnet steer svc/" + name + " takes what reaches its pods", Status: http.StatusConflict}
}

// service reads one; ErrGone when there is none.
func (c *Client) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	var s corev1.Service
	err := c.get(ctx, servicePath(namespace, name), &s)
	if apierrors.IsNotFound(err) {
		return nil, ErrGone
	}
	return &s, err
}

// PointService has the exposure's name lead to its status.host: it writes the
// Service of type ExternalName, or changes the one of an exposure before it. What is
// right already is left alone.
func (c *Client) PointService(ctx context.Context, e *v1alpha1.Exposure) error {
	want := nameService(e)
	have, err := c.service(ctx, e.Namespace, e.Name)
	if err == ErrGone || apierrors.IsForbidden(err) { // who may not look may write
		err = c.post(ctx, servicePath(e.Namespace, ""), want, nil)
		switch {
		case apierrors.IsAlreadyExists(err):
			return c.taken(e.Namespace, e.Name)
		case apierrors.IsForbidden(err):
			return c.refusedService(ctx, e.Namespace, "create", err)
		}
		return c.explain("write a service to", err)
	}
	switch {
	case err != nil:
		return c.explain("read a service at", err)
	case !ours(have):
		return c.taken(e.Namespace, e.Name)
	case leadsTo(have, want):
		return nil
	}
	err = c.do(ctx, c.rest.Patch("application/merge-patch+json"), servicePath(e.Namespace, e.Name), mergePatch{
		"metadata": map[string]any{"ownerReferences": want.OwnerReferences},
		"spec":     map[string]any{"type": want.Spec.Type, "externalName": want.Spec.ExternalName, "ports": want.Spec.Ports},
	}, nil)
	switch {
	case apierrors.IsNotFound(err):
		return ErrGone // with the exposure before; it is tried again
	case apierrors.IsForbidden(err):
		return c.refusedService(ctx, e.Namespace, "patch", err)
	}
	return c.explain("change a service at", err)
}

func leadsTo(have, want *corev1.Service) bool {
	if have.Spec.Type != want.Spec.Type || have.Spec.ExternalName != want.Spec.ExternalName || len(have.Spec.Ports) != len(want.Spec.Ports) {
		return false
	}
	for i, p := range want.Spec.Ports {
		if h := have.Spec.Ports[i]; h.Port != p.Port || h.Protocol != p.Protocol {
			return false
		}
	}
	return reflect.DeepEqual(have.OwnerReferences, want.OwnerReferences)
}

func (c *Client) refusedService(ctx context.Context, namespace, verb string, err error) error {
	if p := c.missing(ctx, []Permission{{Verb: verb, Resource: "services", Namespace: namespace}}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: c.askEdit(namespace)}
	}
	return c.explain("write a service to", err)
}

// DropService deletes the Service that is the name of the exposure that has been
// here; that it is gone already, or somebody else's, is no error.
func (c *Client) DropService(ctx context.Context, e *v1alpha1.Exposure) error {
	have, err := c.service(ctx, e.Namespace, e.Name)
	if err == nil && ours(have) && have.OwnerReferences[0].UID == e.UID {
		err = c.deleteExactly(ctx, servicePath(e.Namespace, e.Name), have.UID)
	}
	if err == ErrGone {
		return nil
	}
	return c.explain("delete a service at", err)
}
