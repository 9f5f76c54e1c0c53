package cluster

import (
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/client/localapi"
)

func TestNames(t *testing.T) {
	f := newFakeAPI(t)
	list := func(names ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("limit") != maxNames || !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
				t.Errorf("asked for everything: %s, %s", r.URL, r.Header.Get("Accept"))
			}
			var l metav1.PartialObjectMetadataList
			for _, n := range names {
				l.Items = append(l.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: n}})
			}
			reply(w, 200, l)
		}
	}
	f.on["GET /api/v1/namespaces"] = list("shop", "pay")
	f.on["GET /api/v1/namespaces/shop/services"] = list("web")
	f.on["GET /apis/apps/v1/namespaces/pay/deployments"] = list("cart", "bank")
	c := f.client()
	for _, want := range []struct{ resource, namespace, names string }{
		{"namespaces", "", "shop pay"}, {"services", "", "web"}, {"deployments", "pay", "cart bank"}, // shop is the context's
	} {
		got, err := c.Names(t.Context(), want.resource, want.namespace)
		if err != nil || strings.Join(got, " ") != want.names {
			t.Errorf("%s in %q: %q, %v", want.resource, want.namespace, got, err)
		}
	}
	if _, err := c.Names(t.Context(), "secrets", "shop"); err == nil {
		t.Error("lists secrets")
	}
	f.on["GET /api/v1/namespaces"] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "no")
	}
	_, err := c.Names(t.Context(), "namespaces", "")
	explained(t, err, localapi.CodeForbidden)
}
