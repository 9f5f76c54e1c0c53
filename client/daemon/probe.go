package daemon

import (
	"context"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Probing is a session that can be tried.
type Probing interface {
	// Probe tries a session that is ready. Its error is that there is nothing to try.
	Probe(ctx context.Context) (localapi.Probe, error)
}

func (d *daemon) probe(w http.ResponseWriter, r *http.Request) {
	s, err := d.sessions.of(r)
	var p localapi.Probe
	if err == nil {
		p, err = s.Probe(r.Context())
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, p)
}
