package daemon

import (
	"context"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Dashboard is the page in a browser that shows what this daemon does.
type Dashboard interface {
	// Run serves the page while it is wanted, until ctx is done.
	Run(ctx context.Context)
	// Open is the way to it.
	Open(ctx context.Context, req localapi.UIRequest) (localapi.UI, error)
	// Wanted says that somebody may have it open.
	Wanted() bool
}

// noDashboard is that of a daemon without.
type noDashboard struct{}

func (noDashboard) Run(context.Context) {}
func (noDashboard) Open(context.Context, localapi.UIRequest) (localapi.UI, error) {
	return localapi.UI{}, &localapi.Error{Code: localapi.CodeNotFound, Message: "this daemon has no dashboard", Status: http.StatusNotFound}
}
func (noDashboard) Wanted() bool { return false }

func (d *daemon) ui(w http.ResponseWriter, r *http.Request) {
	var req localapi.UIRequest
	err := httpjson.Read(r, &req)
	var u localapi.UI
	if err == nil {
		u, err = d.Dashboard.Open(r.Context(), req)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, u)
}
