package gateway

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"podnet.dev/deploy"
)

func TestJudge(t *testing.T) {
	peers := schema.GroupResource{Group: "podnet.dev", Resource: "peers"}
	for _, c := range []struct {
		what string
		err  error
		want verdict
	}{
		{"accepted", nil, missing},
		{"refused by the policy", apierrors.NewForbidden(peers, "x", errors.New("ValidatingAdmissionPolicy 'podnet-owner' denied request: PODNET-OWNER: spec.user must be the caller")), refused},
		{"refused by the other policy", apierrors.NewForbidden(peers, "x", errors.New("PODNET-ACCESS: no")), missing},
		{"refused by RBAC", apierrors.NewForbidden(peers, "x", errors.New(`User "g" cannot create resource`)), missing},
		{"refused by the schema", apierrors.NewBadRequest("unknown field"), missing},
		{"the word in a mere error", errors.New("PODNET-OWNER"), unclear},
		{"no API server", errors.New("dial tcp: connection refused"), unclear},
		{"a busy API server", apierrors.NewTooManyRequests("later", 1), unclear},
		{"a broken API server", apierrors.NewInternalError(fmt.Errorf("etcd")), unclear},
		{"no CRD", apierrors.NewNotFound(peers, "x"), unclear},
		{"no credentials", apierrors.NewUnauthorized("who?"), unclear},
	} {
		if got := judge(c.err, deploy.ReasonOwner); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.what, got, c.want)
		}
	}
}
