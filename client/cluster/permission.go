package cluster

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Permission is one thing that may be allowed. An empty Namespace means all of
// them, or that the resource has none.
type Permission struct {
	Verb, Group, Resource, Subresource, Namespace, Name string
	// ClusterScoped resources have no namespace.
	ClusterScoped bool
}

// String says it as a person would: "create pods/portforward in namespace pay".
func (p Permission) String() string {
	s := p.Verb + " " + p.Resource
	if p.Subresource != "" {
		s += "/" + p.Subresource
	}
	if p.Verb == verbRoute || p.Verb == verbDomain { // of podnet's own, about no peer
		return p.Verb + " " + p.Name
	}
	if p.Group != "" && strings.Contains(p.Group, ".") && p.Group != "podnet.dev" {
		s += "." + p.Group
	}
	switch {
	case p.ClusterScoped:
		return s
	case p.Namespace == "":
		return s + " in all namespaces"
	}
	return s + " in namespace " + p.Namespace
}

// Can asks the API server whether we may.
func (c *Client) Can(ctx context.Context, p Permission) (bool, error) {
	review := authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"},
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: p.Verb, Group: p.Group, Resource: p.Resource, Subresource: p.Subresource, Namespace: p.Namespace, Name: p.Name,
		}},
	}
	err := c.post(ctx, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, &review)
	return review.Status.Allowed, err
}

// missing finds the first of the permissions that we lack. It is asked only
// after a refusal, to say why; when nothing is missing, nil.
func (c *Client) missing(ctx context.Context, needs []Permission) *Permission {
	for _, p := range needs {
		if ok, err := c.Can(ctx, p); err == nil && !ok {
			return &p
		}
	}
	return nil
}

// subject is how kubectl create rolebinding names us.
func (c *Client) subject() string {
	if rest, ok := strings.CutPrefix(c.User, "system:serviceaccount:"); ok {
		return "--serviceaccount=" + rest
	}
	return "--user=" + shellWord(c.User)
}

// askUser is how an administrator lets us open a namespace.
func (c *Client) askUser(namespace string) string {
	return "kubectl -n " + namespace + " create rolebinding " + c.bindingName() + " --clusterrole=podnet-user " + c.subject()
}

// bindingName is a fit name for a binding of ours.
func (c *Client) bindingName() string { return nameOf(c.User) + "-podnet" }

func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.@:/", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// nameOf makes a lower-case DNS label of any text.
func nameOf(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	if len(s) > 40 {
		s = s[:40]
	}
	if s = strings.Trim(s, "-"); s == "" {
		return "x"
	}
	return s
}

// Namespaces lists the names of all namespaces, for those who may.
func (c *Client) Namespaces(ctx context.Context) ([]string, error) {
	var list metav1.PartialObjectMetadataList
	if err := c.get(ctx, "/api/v1/namespaces", &list); err != nil {
		return nil, c.explain("list the namespaces of", err)
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names, nil
}
