package daemon

import (
	"context"
	"net/http"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Exposing is what a session does about exposures, once it is ready.
type Exposing interface {
	// Expose makes an exposure and tells say how far it is. It returns when that is
	// ready, one that is held when ctx is done; or with the reason why there is none.
	Expose(ctx context.Context, req localapi.ExposeRequest, say func(localapi.ExposeEvent)) error
	// Exposed lists the session's exposures, or with all everybody's in a namespace.
	Exposed(ctx context.Context, all bool, namespace string) ([]localapi.Exposure, error)
	// StopExposing ends an exposure, or all with the name "".
	StopExposing(ctx context.Context, namespace, name string) ([]string, error)
}

// expose streams how far an exposure is.
func (d *daemon) expose(w http.ResponseWriter, r *http.Request) {
	begin(d, w, r, func(ctx context.Context, s Session, req localapi.ExposeRequest, send func(localapi.ExposeEvent)) {
		err := s.Expose(ctx, req, func(e localapi.ExposeEvent) {
			if e.Type == localapi.ExposeReady {
				d.Log.Info("exposing", "exposure", e.Exposure.Namespace+"/"+e.Exposure.Name, "count", len(e.Exposure.Ports))
			}
			send(e)
		})
		if err != nil {
			e := httpjson.FromError(err)
			d.Log.Info("not exposing", "what", req.Local+" as "+req.Name, "err", err)
			send(localapi.ExposeEvent{Time: time.Now(), Type: localapi.ExposeFailed, Text: e.Message, Error: e})
		}
	})
}

func (d *daemon) exposed(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s, err := d.sessions.of(r)
	var all []localapi.Exposure
	if err == nil {
		all, err = s.Exposed(r.Context(), q.Get("all") == "1", q.Get("namespace"))
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewExposeList(all))
}

func (d *daemon) stopExposing(w http.ResponseWriter, r *http.Request) {
	name, q := r.PathValue("name"), r.URL.Query()
	if name == "" && q.Get("all") != "1" {
		httpjson.WriteError(w, &localapi.Error{Code: localapi.CodeUsage, Message: "which exposure?", Hint: "/v1/expose/NAME or /v1/expose?all=1", Status: http.StatusBadRequest})
		return
	}
	s, err := d.sessions.of(r)
	var names []string
	if err == nil {
		names, err = s.StopExposing(r.Context(), q.Get("namespace"), name)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.ExposeStopped{Exposures: append([]string{}, names...)})
}
