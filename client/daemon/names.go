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
	// DNSQueries calls begin when the session is ready, and line with the last
	// questions of this machine's programs and, to follow, with those that come.
	DNSQueries(ctx context.Context, follow bool, begin func(), line func(localapi.DNSQuery) error) error
	// OpenAddress lets this machine's programs use a virtual address that no name has
	// given them.
	OpenAddress(address string) error
	// SetNamespace makes short names those of another namespace of the session.
	SetNamespace(ctx context.Context, namespace string) error
	// SetPrimary says whether short names and those of the cluster's zone are this
	// session's on this machine. It may be called before Run; of a session that is
	// ready it returns when the host resolves by it. Where that fails the session
	// has a warning.
	SetPrimary(ctx context.Context, yes bool) error
}

func (d *daemon) setPrimary(w http.ResponseWriter, r *http.Request) {
	var req localapi.PrimaryRequest
	err := httpjson.Read(r, &req)
	if err == nil {
		err = d.sessions.setPrimary(r.Context(), req.Name)
	}
	answerDone(w, err)
}

func (d *daemon) queryDNS(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s, err := d.sessions.of(r)
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

func (d *daemon) openAddress(w http.ResponseWriter, r *http.Request) {
	var req localapi.AddressRequest
	err := httpjson.Read(r, &req)
	var s Session
	if err == nil {
		s, err = d.sessions.of(r)
	}
	if err == nil {
		err = s.OpenAddress(req.Address)
	}
	answerDone(w, err)
}

func (d *daemon) dnsQueries(w http.ResponseWriter, r *http.Request) {
	s, err := d.sessions.of(r)
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	stream(w, r, s.DNSQueries)
}

// stream answers with the lines of something that may be followed.
func stream[L any](w http.ResponseWriter, r *http.Request, do func(ctx context.Context, follow bool, begin func(), line func(L) error) error) {
	var lines *httpjson.Lines
	err := do(r.Context(), r.URL.Query().Get("follow") == "1", func() { lines = httpjson.NewLines(w) }, func(l L) error { return lines.Send(l) })
	if err != nil && lines == nil {
		httpjson.WriteError(w, err)
	}
}

func (d *daemon) setNamespace(w http.ResponseWriter, r *http.Request) {
	var req localapi.NamespaceRequest
	err := httpjson.Read(r, &req)
	var s Session
	if err == nil {
		s, err = d.sessions.of(r)
	}
	if err == nil {
		err = s.SetNamespace(r.Context(), req.Namespace)
	}
	answerDone(w, err)
}
