// Package fakedaemon is a podnet daemon that connects to nothing: the part of the
// local API that a tray speaks, on a unix socket, for tests.
package fakedaemon

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Daemon answers with what its fields say; Change changes them.
type Daemon struct {
	Contexts   []localapi.Context
	Namespaces []string
	Services   []localapi.Service
	Rules      []localapi.SteerRule
	Findings   []localapi.Finding
	// Refuse is why nobody connects.
	Refuse *localapi.Error
	// Hold keeps whoever connects waiting until it is closed.
	Hold chan struct{}

	mu      sync.Mutex
	status  localapi.Status
	events  []localapi.Event
	changed chan struct{}
	asked   []string
	listed  int
	reqs    []localapi.ConnectRequest
	stop    func()
}

// New is a daemon that does not run yet.
func New() *Daemon {
	return &Daemon{status: localapi.NewStatus(), changed: make(chan struct{})}
}

// Ready is a session as a daemon tells of it.
func Ready(name, namespace string) localapi.Connection {
	since := time.Date(2026, 3, 2, 10, 2, 11, 0, time.Local)
	return localapi.Connection{
		Name: name, Context: name, Server: "https://" + name, User: "alice", Namespace: namespace, Namespaces: []string{namespace}, Phase: localapi.PhaseReady, Since: &since,
		Gateway: localapi.Gateway{Namespace: "podnet-system", Pod: "podnet-gateway-0"},
		Tunnel:  localapi.Tunnel{Interface: "podnet0", Address: "198.18.0.7", MTU: 1420, LastHandshake: "8s", Rx: 1258291, Tx: 314572},
		Path:    localapi.Path{Kind: "udp", Remote: "203.0.113.7:31820", RTTMs: 12},
		Routes:  []string{"10.96.0.0/12", "10.244.0.0/16"},
		DNS:     localapi.DNS{Mode: "systemd-resolved", Zone: "cluster.local", Healthy: true},
	}
}

// Start serves on socket until Stop, or the end of the test.
func (d *Daemon) Start(t testing.TB, socket string) {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: httpjson.Local(localapi.Host, d.routes()), ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	d.mu.Lock()
	d.stop = sync.OnceFunc(func() {
		_ = srv.Close()
		<-served
	})
	stop := d.stop
	d.mu.Unlock()
	t.Cleanup(stop)
}

// Stop ends it, as kill does.
func (d *Daemon) Stop() {
	d.mu.Lock()
	stop := d.stop
	d.mu.Unlock()
	stop()
}

// Change changes the status, and tells of it by events.
func (d *Daemon) Change(f func(*localapi.Status), events ...localapi.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changeLocked(f, events...)
}

func (d *Daemon) changeLocked(f func(*localapi.Status), events ...localapi.Event) {
	f(&d.status)
	if len(events) == 0 {
		events = []localapi.Event{{Type: localapi.EventNetwork}}
	}
	for _, e := range events {
		d.status.Seq++
		e.Seq = d.status.Seq
		d.events = append(d.events, e)
	}
	close(d.changed)
	d.changed = make(chan struct{})
}

// Asked are the calls that have changed something, as METHOD PATH?QUERY.
func (d *Daemon) Asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.asked)
}

// Listed is how often the contexts were asked for.
func (d *Daemon) Listed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listed
}

// Requests are those to connect.
func (d *Daemon) Requests() []localapi.ConnectRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.reqs)
}

func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, what func() any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if r.Method != http.MethodGet && r.URL.Path != "/v1/contexts" {
				d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI())
			}
			httpjson.Write(w, http.StatusOK, what())
		})
	}
	answer("GET /v1/version", func() any {
		return localapi.Version{APIVersion: localapi.APIVersion, Kind: "Version", Version: "dev", PID: 1}
	})
	answer("GET /v1/status", func() any { return d.status })
	answer("POST /v1/contexts", func() any { d.listed++; return localapi.NewContextList(d.Contexts) })
	answer("GET /v1/namespaces", func() any { return localapi.NewNamespaceList(d.Namespaces) })
	answer("GET /v1/services", func() any { return localapi.NewServiceList(d.Services) })
	answer("GET /v1/steer", func() any { return localapi.NewSteerList(d.Rules) })
	answer("DELETE /v1/steer/{name}", func() any { return localapi.SteerStopped{} })
	answer("POST /v1/ui", func() any { return localapi.UI{URL: "http://127.0.0.1:1/?token=x"} })
	answer("POST /v1/primary", func() any { return struct{}{} })
	answer("POST /v1/namespace", func() any { return struct{}{} })
	mux.HandleFunc("GET /v1/events", d.stream)
	mux.HandleFunc("POST /v1/connect", d.connect)
	mux.HandleFunc("POST /v1/disconnect", d.disconnect)
	mux.HandleFunc("POST /v1/doctor", func(w http.ResponseWriter, _ *http.Request) {
		lines := httpjson.NewLines(w)
		for _, f := range d.Findings {
			_ = lines.Send(f)
		}
	})
	return mux
}

func (d *Daemon) stream(w http.ResponseWriter, r *http.Request) {
	var since int64
	_, _ = fmt.Sscan(r.URL.Query().Get("since"), &since)
	lines := httpjson.NewLines(w)
	for {
		d.mu.Lock()
		news, changed := slices.Clone(d.events[min(int(since), len(d.events)):]), d.changed
		since = d.status.Seq
		d.mu.Unlock()
		for _, e := range news {
			if lines.Send(e) != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (d *Daemon) connect(w http.ResponseWriter, r *http.Request) {
	var req localapi.ConnectRequest
	if err := httpjson.Read(r, &req); err != nil {
		httpjson.WriteError(w, err)
		return
	}
	d.mu.Lock()
	d.reqs = append(d.reqs, req)
	d.mu.Unlock()
	if d.Hold != nil {
		<-d.Hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := httpjson.NewLines(w)
	if d.Refuse != nil {
		_ = lines.Send(localapi.Event{Type: localapi.EventError, Error: d.Refuse})
		return
	}
	name := "staging"
	if c := req.Kube.Flags["context"]; len(c) > 0 {
		name = c[0]
	}
	if req.Name != "" {
		name = req.Name
	}
	c := Ready(name, "shop")
	c.Primary = len(d.status.Connections) == 0
	d.changeLocked(func(s *localapi.Status) {
		s.State, s.Since, s.Connections = localapi.Connected, c.Since, append(slices.Clone(s.Connections), c)
	}, localapi.Event{Type: localapi.EventReady, Connection: name})
	status := d.status
	_ = lines.Send(localapi.Event{Type: localapi.EventReady, Connection: name, Status: &status})
}

func (d *Daemon) disconnect(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI())
	name, all := r.URL.Query().Get("session"), r.URL.Query().Get("all") == "1"
	var result localapi.DisconnectResult
	var over []localapi.Event
	d.changeLocked(func(s *localapi.Status) {
		var left []localapi.Connection
		for _, c := range s.Connections {
			if !all && c.Name != name {
				left = append(left, c)
				continue
			}
			result.Names = append(result.Names, c.Name)
			over = append(over, localapi.Event{Type: localapi.EventDisconnected, Connection: c.Name})
		}
		s.Connections = left
		if len(left) == 0 {
			s.State, s.Since, s.Connections = localapi.Disconnected, nil, []localapi.Connection{}
		}
	})
	d.changeLocked(func(*localapi.Status) {}, over...)
	result.Sessions = len(result.Names)
	httpjson.Write(w, http.StatusOK, result)
}
