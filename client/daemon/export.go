package daemon

import (
	"context"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Exporting lets devices without podnet into clusters, and renews them while it runs.
// It belongs to the daemon and to no session.
type Exporting interface {
	Run(ctx context.Context)
	Export(ctx context.Context, req localapi.ExportRequest) (localapi.Exported, error)
	List(ctx context.Context, req localapi.ExportListRequest) ([]localapi.Export, error)
	Revoke(ctx context.Context, req localapi.ExportRevokeRequest) ([]string, error)
	// Exports says what there is to know without asking anybody.
	Exports() []localapi.Export
	// Renewing says whether there is anything to renew, for which a daemon stays.
	Renewing() bool
}

// noExports is what a daemon without Exporting has.
type noExports struct{ Exporting }

func (noExports) Run(context.Context)        {}
func (noExports) Exports() []localapi.Export { return nil }
func (noExports) Renewing() bool             { return false }

// asked answers a call that takes a request, while which the daemon does not end for
// want of work.
func asked[Request, Answer any](d *daemon, w http.ResponseWriter, r *http.Request, do func(context.Context, Request) (Answer, error)) {
	var req Request
	err := httpjson.Read(r, &req)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var answer Answer
	if err == nil {
		var done func()
		if done, err = d.sessions.busy(cancel); err == nil {
			defer done()
			answer, err = do(ctx, req)
		}
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, answer)
}

func (d *daemon) export(w http.ResponseWriter, r *http.Request) {
	asked(d, w, r, d.Exports.Export)
}

func (d *daemon) exports(w http.ResponseWriter, r *http.Request) {
	asked(d, w, r, func(ctx context.Context, req localapi.ExportListRequest) (localapi.ExportList, error) {
		all, err := d.Exports.List(ctx, req)
		return localapi.NewExportList(all), err
	})
}

func (d *daemon) revokeExports(w http.ResponseWriter, r *http.Request) {
	asked(d, w, r, func(ctx context.Context, req localapi.ExportRevokeRequest) (localapi.ExportsRevoked, error) {
		names, err := d.Exports.Revoke(ctx, req)
		return localapi.ExportsRevoked{Exports: append([]string{}, names...)}, err
	})
}
