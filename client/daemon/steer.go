package daemon

import (
	"context"
	"net/http"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Steering is what a session does about steering rules, once it is ready.
type Steering interface {
	// Steer makes a rule and tells say how far it is. It returns when the rule is
	// ready, one that is held when ctx is done; or with the reason why there is
	// none.
	Steer(ctx context.Context, req localapi.SteerRequest, say func(localapi.SteerEvent)) error
	// Steered lists the session's rules, or with all everybody's in a namespace.
	Steered(ctx context.Context, all bool, namespace string) ([]localapi.SteerRule, error)
	// StopSteering ends a rule, or all with the name "".
	StopSteering(ctx context.Context, name string) ([]string, error)
	// SteeredRequests calls begin when there is that rule, and line with the
	// requests that it took and, to follow, with those that come.
	SteeredRequests(ctx context.Context, rule string, follow bool, begin func(), line func(localapi.SteeredRequest) error) error
	// InspectSteering is what the last connections of a rule carried, newest last.
	InspectSteering(ctx context.Context, rule string) ([]localapi.Inspection, error)
	// ReplaySteered sends a request that a rule took to its local program once more.
	// What it answers is among what InspectSteering tells from then on.
	ReplaySteered(ctx context.Context, rule string, req localapi.ReplayRequest) (localapi.Inspection, error)
	// As has what this machine sends leave from a pod until ctx is done, and tells say
	// how far it is; or returns why it does not, or not any more.
	As(ctx context.Context, req localapi.AsRequest, say func(localapi.SteerEvent)) error
	// RevokeSteering deletes somebody's rule.
	RevokeSteering(ctx context.Context, req localapi.RevokeRequest) ([]string, error)
}

// begin has do answer a request for something that lives with the session, a rule
// or an exposure, by a line for each event. Who hangs up before it is ready gives it
// up; afterwards it stays, unless it is held.
func begin[R interface{ Check() error }, E any](d *daemon, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, s Session, req R, send func(E))) {
	var req R
	err := httpjson.Read(r, &req)
	if err == nil {
		err = req.Check()
	}
	var s Session
	if err == nil {
		s, err = d.sessions.of(r)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	lines := httpjson.NewLines(w)
	do(ctx, s, req, func(e E) {
		if lines.Send(e) != nil {
			cancel() // nobody listens any more
		}
	})
}

// steer streams how far a rule is.
func (d *daemon) steer(w http.ResponseWriter, r *http.Request) {
	begin(d, w, r, func(ctx context.Context, s Session, req localapi.SteerRequest, send func(localapi.SteerEvent)) {
		d.tell(req.Words(), send, func(say func(localapi.SteerEvent)) error { return s.Steer(ctx, req, say) })
	})
}

// as streams how far an identity is.
func (d *daemon) as(w http.ResponseWriter, r *http.Request) {
	begin(d, w, r, func(ctx context.Context, s Session, req localapi.AsRequest, send func(localapi.SteerEvent)) {
		d.tell(req.Target, send, func(say func(localapi.SteerEvent)) error { return s.As(ctx, req, say) })
	})
}

// tell sends the events of a rule, its failure included, and notes the two that
// matter in the log.
func (d *daemon) tell(what string, send func(localapi.SteerEvent), do func(say func(localapi.SteerEvent)) error) {
	err := do(func(e localapi.SteerEvent) {
		if e.Type == localapi.SteerReady {
			d.Log.Info("steering", "rule", e.Rule.Name, "count", len(e.Rule.Pods))
		}
		send(e)
	})
	if err != nil {
		e := httpjson.FromError(err)
		d.Log.Info("not steering", "what", what, "err", err)
		send(localapi.SteerEvent{Time: time.Now(), Type: localapi.SteerFailed, Text: e.Message, Error: e})
	}
}

func (d *daemon) steered(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s, err := d.sessions.of(r)
	var rules []localapi.SteerRule
	if err == nil {
		rules, err = s.Steered(r.Context(), q.Get("all") == "1", q.Get("namespace"))
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewSteerList(rules))
}

func (d *daemon) stopSteering(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" && r.URL.Query().Get("all") != "1" {
		httpjson.WriteError(w, &localapi.Error{Code: localapi.CodeUsage, Message: "which rule?", Hint: "/v1/steer/NAME or /v1/steer?all=1", Status: http.StatusBadRequest})
		return
	}
	s, err := d.sessions.of(r)
	var names []string
	if err == nil {
		names, err = s.StopSteering(r.Context(), name)
	}
	answerStopped(w, names, err)
}

func (d *daemon) revokeSteering(w http.ResponseWriter, r *http.Request) {
	var req localapi.RevokeRequest
	err := httpjson.Read(r, &req)
	if err == nil && (req.Namespace == "" || req.Name == "") {
		err = &localapi.Error{Code: localapi.CodeUsage, Message: "a rule to revoke has a namespace and a name", Hint: "podnet steer list --all-owners", Status: http.StatusBadRequest}
	}
	var s Session
	if err == nil {
		s, err = d.sessions.of(r)
	}
	var names []string
	if err == nil {
		names, err = s.RevokeSteering(r.Context(), req)
	}
	answerStopped(w, names, err)
}

func answerStopped(w http.ResponseWriter, names []string, err error) {
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.SteerStopped{Rules: append([]string{}, names...)})
}

func (d *daemon) inspectSteering(w http.ResponseWriter, r *http.Request) {
	s, err := d.sessions.of(r)
	var all []localapi.Inspection
	if err == nil {
		all, err = s.InspectSteering(r.Context(), r.PathValue("name"))
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewInspections(r.PathValue("name"), all))
}

func (d *daemon) steeredRequests(w http.ResponseWriter, r *http.Request) {
	s, err := d.sessions.of(r)
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	stream(w, r, func(ctx context.Context, follow bool, begin func(), line func(localapi.SteeredRequest) error) error {
		return s.SteeredRequests(ctx, r.PathValue("name"), follow, begin, line)
	})
}

func (d *daemon) replaySteered(w http.ResponseWriter, r *http.Request) {
	var req localapi.ReplayRequest
	err := httpjson.Read(r, &req)
	var s Session
	if err == nil {
		s, err = d.sessions.of(r)
	}
	var i localapi.Inspection
	if err == nil {
		i, err = s.ReplaySteered(r.Context(), r.PathValue("name"), req)
	}
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, i)
}
