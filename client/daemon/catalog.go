package daemon

import (
	"context"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Catalog is what a session's cluster has to choose from, once the session is ready.
type Catalog interface {
	// Namespaces are those that the user may list, else those of the session, sorted.
	Namespaces(ctx context.Context) ([]string, error)
	// Services are those of a namespace by name; "" is the session's own.
	Services(ctx context.Context, namespace string) ([]localapi.Service, error)
}

func (d *daemon) contexts(w http.ResponseWriter, r *http.Request) {
	asked(d, w, r, func(_ context.Context, req localapi.ContextsRequest) (localapi.ContextList, error) {
		if d.Contexts == nil {
			return localapi.NewContextList(nil), nil
		}
		all, err := d.Contexts(req.Kube)
		return localapi.NewContextList(all), err
	})
}

func (d *daemon) namespaces(w http.ResponseWriter, r *http.Request) {
	s, err := d.sessions.of(r)
	var all []string
	if err == nil {
		all, err = s.Namespaces(r.Context())
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewNamespaceList(all))
}

func (d *daemon) services(w http.ResponseWriter, r *http.Request) {
	namespace := r.URL.Query().Get("namespace")
	s, err := d.sessions.of(r)
	if err == nil && namespace != "" {
		err = localapi.CheckNamespace(namespace)
	}
	var all []localapi.Service
	if err == nil {
		all, err = s.Services(r.Context(), namespace)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewServiceList(all))
}
