// Package daemon is the user's daemon: it keeps the sessions and serves the
// local API (package localapi) on a unix socket that only its owner can open.
// It knows no Kubernetes and no network set-up; a Session does the work.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/resident"
	"podnet.dev/internal/version"
)

// Session is one laptop joined to one cluster.
type Session interface {
	// Run connects, keeps the session until ctx is done or it ends by itself,
	// and returns when everything is undone. Its error is why it ended, nil when
	// ctx did that to a session that had become ready.
	Run(ctx context.Context) error
	// Status may be called at any time, also before and after Run.
	Status() (localapi.Connection, []localapi.Warning)
	Steering
	Exposing
	Naming
	Probing
	Catalog
}

// Options of a daemon.
type Options struct {
	// Socket is the unix socket's file name; its folder must be private.
	Socket string
	// NewSession makes a session that tells events what happens to it, in the
	// order in which it happens. events does not wait for anybody, but it may ask
	// for the session's Status.
	NewSession func(req localapi.ConnectRequest, events func(localapi.Event)) Session
	// Where says which cluster a request means, without asking it: the
	// kubeconfig's context and the API server, which tells clusters apart. nil:
	// every request means the same one.
	Where func(localapi.Kube) (context, server string, err error)
	// Contexts are those of the kubeconfig that a caller means. nil: there are none.
	Contexts func(localapi.Kube) ([]localapi.Context, error)
	// Profiles are those of the user's configuration. nil: there are none.
	Profiles Profiles
	// Doctor examines, and says each finding when it is known. status is what
	// this daemon would answer.
	Doctor func(ctx context.Context, req localapi.DoctorRequest, status func() localapi.Status, say func(localapi.Finding)) error
	// Exports are the devices without podnet; nil: there are none.
	Exports Exporting
	// Dashboard is the page in a browser; nil: there is none.
	Dashboard Dashboard
	// OnDemand says that the CLI started this daemon: it ends when its last
	// session does, or after Idle without one, unless there are exports to renew or
	// somebody has the dashboard open.
	OnDemand bool
	Idle     time.Duration
	// LogFile is told to whoever asks for the version.
	LogFile string
	Log     *slog.Logger
}

// ErrRunning is returned when another daemon has the socket.
var ErrRunning = errors.New("another podnet daemon is running")

// Run serves until ctx is done or, when started on demand, until there is
// nothing left to do. It returns when every session is undone.
func Run(ctx context.Context, o Options) (err error) {
	if err := localapi.MakePrivateDir(filepath.Dir(o.Socket)); err != nil {
		return fmt.Errorf("prepare the folder of the socket: %w", err)
	}
	unlock, err := lock(o.Socket + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	ln, err := listen(o.Socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Requests outlive the sessions, to hear how these ended.
	requests, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	if o.Exports == nil {
		o.Exports = noExports{}
	}
	if o.Profiles == nil {
		o.Profiles = noProfiles{}
	}
	if o.Dashboard == nil {
		o.Dashboard = noDashboard{}
	}
	d := &daemon{Options: o, events: newEvents(o.Log), stop: stop}
	d.sessions = newSessions(ctx, o, d.events.publish)
	if !o.OnDemand {
		d.begin(os.Environ())
	}
	srv := &http.Server{
		Handler:           httpjson.Local(localapi.Host, d.routes()),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	var beside sync.WaitGroup
	beside.Go(func() { o.Exports.Run(ctx) })
	beside.Go(func() { o.Dashboard.Run(ctx) })
	beside.Go(func() { _ = resident.Follow(ctx, d.sessions.count) })
	defer beside.Wait()
	o.Log.Info("daemon started", "socket", o.Socket, "pid", os.Getpid(), "version", version.Version)

	select {
	case <-ctx.Done():
	case <-d.idle(ctx):
		o.Log.Info("nothing to do any more")
	case err = <-served:
		served <- nil
	}
	stop()
	d.sessions.close()
	hangUp()
	// Answers under way, the one to a disconnect above all, get their second.
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	<-served
	o.Log.Info("daemon stopped")
	return err
}

// listen opens the socket; the lock that the caller holds says that a file
// which is already there is nobody's.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ownOnly{ln}, nil
}

// ownOnly drops connections of other users before a byte is read.
type ownOnly struct{ net.Listener }

func (l ownOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == os.Geteuid() || uid == 0) {
			return c, nil
		}
		_ = c.Close()
	}
}

type daemon struct {
	Options
	sessions *sessions
	events   *events
	stop     context.CancelFunc
}

// idle is done when an on-demand daemon has had no session for Idle.
func (d *daemon) idle(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	if !d.OnDemand {
		return done
	}
	go func() {
		tick := time.NewTicker(max(d.Idle/8, time.Millisecond))
		defer tick.Stop()
		for d.sessions.idle() < d.Idle || d.wanted() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		close(done)
	}()
	return done
}

// wanted says that there is something to do without a session.
func (d *daemon) wanted() bool { return d.Exports.Renewing() || d.Dashboard.Wanted() }

// routes are the calls of the local API; docs/openapi.yaml describes them.
func (d *daemon) routes() http.Handler {
	mux := http.NewServeMux()
	d.register(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		httpjson.WriteError(w, &localapi.Error{Code: localapi.CodeUsage, Message: "no such call: " + r.Method + " " + r.URL.Path, Status: http.StatusNotFound})
	})
	return mux
}

// registrar is an http.ServeMux to those who fill it.
type registrar interface {
	HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request))
}

func (d *daemon) register(mux registrar) {
	mux.HandleFunc("GET /v1/version", d.version)
	mux.HandleFunc("GET /v1/status", d.status)
	mux.HandleFunc("GET /v1/events", d.events.serve)
	mux.HandleFunc("POST /v1/connect", d.connect)
	mux.HandleFunc("POST /v1/disconnect", d.disconnect)
	mux.HandleFunc("POST /v1/primary", d.setPrimary)
	mux.HandleFunc("POST /v1/probe", d.probe)
	mux.HandleFunc("POST /v1/doctor", d.doctor)
	mux.HandleFunc("POST /v1/contexts", d.contexts)
	mux.HandleFunc("GET /v1/namespaces", d.namespaces)
	mux.HandleFunc("GET /v1/services", d.services)
	mux.HandleFunc("GET /v1/profiles", d.profiles)
	mux.HandleFunc("PUT /v1/profiles/{name}", d.saveProfile)
	mux.HandleFunc("DELETE /v1/profiles/{name}", d.removeProfile)
	mux.HandleFunc("GET /v1/dns", d.queryDNS)
	mux.HandleFunc("GET /v1/dns/queries", d.dnsQueries)
	mux.HandleFunc("POST /v1/namespace", d.setNamespace)
	mux.HandleFunc("POST /v1/addresses", d.openAddress)
	mux.HandleFunc("POST /v1/steer", d.steer)
	mux.HandleFunc("GET /v1/steer", d.steered)
	mux.HandleFunc("DELETE /v1/steer", d.stopSteering)
	mux.HandleFunc("DELETE /v1/steer/{name}", d.stopSteering)
	mux.HandleFunc("GET /v1/steer/{name}/requests", d.steeredRequests)
	mux.HandleFunc("GET /v1/steer/{name}/inspected", d.inspectSteering)
	mux.HandleFunc("POST /v1/steer/{name}/replay", d.replaySteered)
	mux.HandleFunc("POST /v1/steer/revoke", d.revokeSteering)
	mux.HandleFunc("POST /v1/as", d.as)
	mux.HandleFunc("POST /v1/expose", d.expose)
	mux.HandleFunc("GET /v1/expose", d.exposed)
	mux.HandleFunc("DELETE /v1/expose", d.stopExposing)
	mux.HandleFunc("DELETE /v1/expose/{name}", d.stopExposing)
	mux.HandleFunc("POST /v1/ui", d.ui)
	mux.HandleFunc("POST /v1/export", d.export)
	mux.HandleFunc("POST /v1/export/list", d.exports)
	mux.HandleFunc("POST /v1/export/revoke", d.revokeExports)
}

func (d *daemon) version(w http.ResponseWriter, _ *http.Request) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	httpjson.Write(w, http.StatusOK, localapi.Version{
		APIVersion: localapi.APIVersion, Kind: "Version", Version: version.Version, PID: os.Getpid(), Log: d.LogFile,
		Goroutines: runtime.NumGoroutine(), HeapBytes: int64(live[0].Value.Uint64()),
	})
}

func (d *daemon) status(w http.ResponseWriter, _ *http.Request) {
	httpjson.Write(w, http.StatusOK, d.now())
}

// now is everything that there is to know. What happens while it is put
// together comes after its Seq: better heard twice than never.
func (d *daemon) now() localapi.Status {
	seq := d.events.newest()
	s := d.sessions.status()
	s.Seq, s.Exports = seq, d.Exports.Exports()
	return s
}

// connect streams the progress of the session. Who hangs up before it is ready
// gives it up; afterwards the session stays, unless it is held.
func (d *daemon) connect(w http.ResponseWriter, r *http.Request) {
	var req localapi.ConnectRequest
	err := httpjson.Read(r, &req)
	if err == nil {
		req = req.WithDefaults()
		err = req.Check()
	}
	var a *attempt
	if err == nil {
		a, err = d.sessions.connect(r.Context(), req)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	defer a.leave(req.Hold)
	lines := httpjson.NewLines(w)
	for i := 0; ; i++ {
		e, ok := a.event(r.Context(), i)
		if !ok {
			return
		}
		if e.Type == localapi.EventReady {
			if err := d.lead(r.Context(), req, a); err != nil && lines.Send(localapi.Event{Time: time.Now(), Type: localapi.EventWarning, Connection: a.name, Text: err.Error()}) != nil {
				return
			}
			s := d.now()
			e.Status = &s
		}
		if lines.Send(e) != nil || e.Type == localapi.EventError {
			return
		}
		if e.Type == localapi.EventReady {
			break
		}
	}
	if req.Hold {
		select {
		case <-a.done:
		case <-r.Context().Done():
		}
	}
}

// lead makes a session primary where its request asks for that.
func (d *daemon) lead(ctx context.Context, req localapi.ConnectRequest, a *attempt) error {
	if !req.Primary {
		return nil
	}
	return d.sessions.setPrimary(ctx, a.called())
}

func (d *daemon) disconnect(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	held := q.Get("held") == "1"
	result, err := d.sessions.disconnect(r.Context(), q.Get("session"), q.Get("all") == "1", held)
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	result.PID = os.Getpid()
	result.Exits = d.OnDemand && (result.Sessions > 0 || !held) && d.sessions.none() && !d.wanted()
	httpjson.Write(w, http.StatusOK, result)
	if result.Exits {
		d.stop()
	}
}

// doctor streams findings. The daemon has something to do meanwhile, and gives
// it up when it stops.
func (d *daemon) doctor(w http.ResponseWriter, r *http.Request) {
	var req localapi.DoctorRequest
	if err := httpjson.Read(r, &req); err != nil {
		httpjson.WriteError(w, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	done, err := d.sessions.busy(cancel)
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	defer done()
	lines := httpjson.NewLines(w)
	err = d.Doctor(ctx, req, d.now, func(f localapi.Finding) {
		if lines.Send(f) != nil {
			cancel() // nobody listens any more
		}
	})
	if err != nil {
		d.Log.Debug("examination given up", "err", err)
	}
}
