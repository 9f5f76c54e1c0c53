package daemon

import (
	"context"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Naming is what a session does about names, once it is ready.
type Naming interface {
	// QueryDNS answers as the session's proxy does, and says from where.
	QueryDNS(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error)
	// SetNamespace makes short names those of another namespace of the session.
	SetNamespace(ctx context.Context, namespace string) error
}

func (d *daemon) queryDNS(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s, err := d.sessions.ready()
	var a localapi.DNSAnswer
	if err == nil {
		a, err = s.QueryDNS(r.Context(), q.Get("name"), q.Get("type"))
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, a)
}

func (d *daemon) setNamespace(w http.ResponseWriter, r *http.Request) {
	var req localapi.NamespaceRequest
	err := httpjson.Read(r, &req)
	var s Session
	if err == nil {
		s, err = d.sessions.ready()
	}
	if err == nil {
		err = s.SetNamespace(r.Context(), req.Namespace)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, struct{}{})
}
