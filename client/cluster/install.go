package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/internal/wake"
)

// partOf selects all that an install makes, whichever version made it: one for the
// whole cluster, or one for a namespace alone.
const (
	partOf      = "app.kubernetes.io/part-of=podnet," + deploy.LabelMode + "!=" + deploy.ModeNamespace
	partOfAlone = "app.kubernetes.io/part-of=podnet," + deploy.LabelMode + "=" + deploy.ModeNamespace
)

// crdTime is how long the API server may take to serve a new kind.
const crdTime = 10 * time.Second

// installer applies and deletes objects of any kind.
type installer struct {
	*Client
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
	say     func(string)
	only    string // the namespace that it is about; "": the whole cluster
}

// Install brings the cluster to what o describes and waits until the gateway
// is ready, at most until ctx is done. A first install that fails is taken
// back; say hears of the progress.
func (c *Client) Install(ctx context.Context, o deploy.Options, say func(string)) error {
	objects, err := deploy.Render(o)
	if err != nil {
		return &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet install --help lists the flags", Status: http.StatusBadRequest}
	}
	in, err := c.installer(say)
	if err != nil {
		return err
	}
	if o.Namespaced {
		in.only = objects[0].GetNamespace()
	}
	if err := in.mayApply(ctx, objects); err != nil {
		return err
	}
	if err := in.sameMode(ctx, objects); err != nil {
		return err
	}
	fresh, err := in.fresh(ctx, objects)
	if err != nil {
		return err
	}
	if objects, err = in.keepNamespace(ctx, objects); err != nil {
		return err
	}
	err = in.apply(ctx, objects)
	if err == nil {
		namespace := objects[len(objects)-1].GetNamespace()
		say("waiting for the gateway")
		err = c.rollout(ctx, namespace, o.Image, say)
	}
	if err == nil {
		return nil
	}
	if !fresh {
		return deployError(err)
	}
	say("taking it back")
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), uninstallTime)
	defer cancel()
	in.say = func(string) {}
	return errors.Join(deployError(err), in.uninstall(undo))
}

// deployError gives err the code of a failed install unless it has a better one.
func deployError(err error) error {
	var forbidden *ForbiddenError
	var unreachable *UnreachableError
	var credentials *CredentialsError
	var known *localapi.Error
	switch {
	case errors.As(err, &forbidden), errors.As(err, &unreachable), errors.As(err, &credentials), errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return &localapi.Error{Code: localapi.CodeCanceled, Message: "installing was interrupted"}
	}
	return &localapi.Error{Code: localapi.CodeDeploy, Message: err.Error(), Hint: "podnet install --dry-run -o yaml shows what is applied"}
}

func (c *Client) installer(say func(string)) (*installer, error) {
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return nil, c.explain("ask for the kinds of", err)
	}
	dyn, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	return &installer{Client: c, dynamic: dyn, mapper: restmapper.NewDiscoveryRESTMapper(groups), say: say}, nil
}

// resource finds where objects of u's kind live.
func (in *installer) resource(u *unstructured.Unstructured) (dynamic.ResourceInterface, *meta.RESTMapping, error) {
	gvk := u.GroupVersionKind()
	m, err := in.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, nil, fmt.Errorf("the cluster does not know the kind %s of %s", gvk.Kind, gvk.GroupVersion())
	}
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		return in.dynamic.Resource(m.Resource).Namespace(u.GetNamespace()), m, nil
	}
	return in.dynamic.Resource(m.Resource), m, nil
}

// mayApply asks before anything is changed whether everything may be.
func (in *installer) mayApply(ctx context.Context, objects []*unstructured.Unstructured) error {
	type place struct {
		gr        schema.GroupResource
		namespace string
	}
	seen := map[place]bool{}
	var needs []Permission
	for _, u := range objects {
		_, m, err := in.resource(u)
		if err != nil {
			return deployError(err)
		}
		at := place{m.Resource.GroupResource(), u.GetNamespace()}
		if seen[at] {
			continue
		}
		seen[at] = true
		for _, verb := range []string{"create", "patch"} {
			needs = append(needs, Permission{Verb: verb, Group: m.Resource.Group, Resource: m.Resource.Resource, Namespace: u.GetNamespace(),
				ClusterScoped: m.Scope.Name() == meta.RESTScopeNameRoot})
		}
	}
	allowed := make([]bool, len(needs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, p := range needs {
		g.Go(func() (err error) { allowed[i], err = in.Can(gctx, p); return err })
	}
	if err := g.Wait(); err != nil {
		return in.explain("ask for permissions at", err)
	}
	for i, p := range needs {
		if !allowed[i] {
			if in.only != "" {
				return &ForbiddenError{User: in.User, Permission: p, Ask: "kubectl -n " + in.only + " create rolebinding " + in.bindingName() + " --clusterrole=edit " + in.subject()}
			}
			return &ForbiddenError{User: in.User, Permission: p, Ask: "kubectl create clusterrolebinding NAME --clusterrole=cluster-admin " + in.subject() +
				", or have them run podnet install"}
		}
	}
	return nil
}

// sameMode refuses to make one namespace's gateway of the whole cluster's, or the
// reverse: both have the same name, and the laptops of the one know nothing of the other.
func (in *installer) sameMode(ctx context.Context, objects []*unstructured.Unstructured) error {
	set := objects[len(objects)-1]
	r, _, err := in.resource(set)
	if err != nil {
		return deployError(err)
	}
	call, cancel := withTimeoutAlways(ctx, requestTimeout)
	defer cancel()
	have, err := r.Get(call, set.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return in.explain("read "+describe(set)+" from", err)
	case have.GetLabels()[deploy.LabelMode] == set.GetLabels()[deploy.LabelMode]:
		return nil
	case in.only != "":
		return &localapi.Error{Code: localapi.CodeConflict, Message: "the gateway in namespace " + in.only + " is the whole cluster's", Hint: "podnet connect uses it; podnet install --gateway-namespace " + in.only + " brings it up to date", Status: http.StatusConflict}
	}
	ns := set.GetNamespace()
	return &localapi.Error{Code: localapi.CodeConflict, Message: "the gateway in namespace " + ns + " is that of the namespace alone", Hint: "podnet uninstall --namespace " + ns + " takes it away, or another --gateway-namespace", Status: http.StatusConflict}
}

// fresh says whether there is nothing of podnet's in the gateway's namespace
// yet, so that a failure may be taken back.
func (in *installer) fresh(ctx context.Context, objects []*unstructured.Unstructured) (bool, error) {
	for _, u := range objects {
		r, _, err := in.resource(u)
		if err != nil {
			return false, deployError(err)
		}
		ctx, cancel := withTimeoutAlways(ctx, requestTimeout)
		have, err := r.Get(ctx, u.GetName(), metav1.GetOptions{})
		cancel()
		switch {
		case err == nil && have.GetLabels()["app.kubernetes.io/part-of"] == "podnet" && u.GetKind() != "Namespace":
			return false, nil
		case err != nil && !apierrors.IsNotFound(err):
			return false, in.explain("read "+describe(u)+" from", err)
		}
	}
	return true, nil
}

// keepNamespace leaves a namespace alone that somebody else made: with our
// label on it an uninstall would delete it.
func (in *installer) keepNamespace(ctx context.Context, objects []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	var kept []*unstructured.Unstructured
	for _, u := range objects {
		if u.GetKind() == "Namespace" {
			r, _, err := in.resource(u)
			if err != nil {
				return nil, err
			}
			call, cancel := withTimeoutAlways(ctx, requestTimeout)
			have, err := r.Get(call, u.GetName(), metav1.GetOptions{})
			cancel()
			if err == nil && have.GetLabels()["app.kubernetes.io/part-of"] != "podnet" {
				in.say("Namespace " + u.GetName() + " is there already and stays as it is")
				continue
			}
		}
		kept = append(kept, u)
	}
	return kept, nil
}

func withTimeoutAlways(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func (in *installer) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	var served []string
	for i, u := range objects {
		r, _, err := in.resource(u)
		if err != nil {
			return err
		}
		if err := in.applyOne(ctx, r, u); err != nil {
			return err
		}
		in.say("applied " + describe(u))
		if u.GetKind() == "CustomResourceDefinition" {
			served = append(served, u.GetName())
			if i+1 == len(objects) || objects[i+1].GetKind() != "CustomResourceDefinition" {
				if err := in.established(ctx, served); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (in *installer) applyOne(ctx context.Context, r dynamic.ResourceInterface, u *unstructured.Unstructured) error {
	call, cancel := withTimeoutAlways(ctx, requestTimeout)
	defer cancel()
	_, err := r.Apply(call, u.GetName(), u, metav1.ApplyOptions{FieldManager: "podnet", Force: true})
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err):
		return fmt.Errorf("apply %s: %s", describe(u), reason(err))
	}
	return in.explain("apply "+describe(u)+" to", err)
}

func describe(u *unstructured.Unstructured) string {
	if ns := u.GetNamespace(); ns != "" {
		return u.GetKind() + " " + ns + "/" + u.GetName()
	}
	return u.GetKind() + " " + u.GetName()
}

// established waits until the API server serves the new kinds.
func (in *installer) established(ctx context.Context, names []string) error {
	ctx, cancel := withTimeoutAlways(ctx, crdTime)
	defer cancel()
	for _, name := range names {
		for {
			var crd apiextensionsv1.CustomResourceDefinition
			if err := in.get(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name, &crd); err != nil {
				return in.explain("read CustomResourceDefinition "+name+" from", err)
			}
			if ok, refused := establishedCRD(&crd); ok {
				break
			} else if refused != "" {
				return fmt.Errorf("the API server does not serve %s: %s", name, refused)
			}
			if err := sleep(ctx, pollEvery); err != nil {
				return fmt.Errorf("the API server does not serve %s after %v", name, crdTime)
			}
		}
	}
	return nil
}

func establishedCRD(crd *apiextensionsv1.CustomResourceDefinition) (ok bool, refused string) {
	for _, c := range crd.Status.Conditions {
		switch {
		case c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue:
			ok = true
		case c.Type == apiextensionsv1.NamesAccepted && c.Status == apiextensionsv1.ConditionFalse:
			refused = c.Message
		}
	}
	return ok, refused
}

func sleep(ctx context.Context, d time.Duration) error {
	wake.After(ctx, d)
	return ctx.Err()
}

const gatewayPod = deploy.StatefulSetName + "-0"

func statefulSetDone(s *appsv1.StatefulSet) bool {
	want := int32(1)
	if s.Spec.Replicas != nil {
		want = *s.Spec.Replicas
	}
	return s.Status.ObservedGeneration >= s.Generation && s.Status.UpdatedReplicas == want && s.Status.ReadyReplicas == want &&
		(s.Status.UpdateRevision == s.Status.CurrentRevision || s.Status.UpdatedReplicas == want)
}
