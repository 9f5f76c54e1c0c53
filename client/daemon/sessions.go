package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// sessions are those of this daemon, each with another cluster.
//
// One is primary: the first, or whichever is asked to be. When the primary is
// disconnected the oldest of the others takes its place. When it ends by itself
// nobody does: a name that meant one cluster must not come to mean another
// because of a lost lease.
type sessions struct {
	ctx  context.Context
	make func(localapi.ConnectRequest, func(localapi.Event)) Session
	// where says which cluster a request means.
	where func(localapi.Kube) (context, server string, err error)
	// tell hears of everything that happens to a session.
	tell func(localapi.Event)
	wg   sync.WaitGroup

	// moving is held while another session is made the primary.
	moving sync.Mutex

	mu        sync.Mutex
	all       []*attempt // the oldest first
	primary   *attempt   // nil: nobody
	wants     []*want
	lastError *localapi.Error
	others    int // things to do that are no sessions
	idleSince time.Time
}

func newSessions(ctx context.Context, o Options, tell func(localapi.Event)) *sessions {
	s := &sessions{ctx: ctx, make: o.NewSession, where: o.Where, tell: tell, idleSince: time.Now()}
	if s.where == nil {
		s.where = func(localapi.Kube) (string, string, error) { return "", "", nil }
	}
	return s
}

// connect begins a session or joins the one that serves the same request. It is
// somebody's wish, in place of what has been wanted of that cluster.
func (s *sessions) connect(ctx context.Context, req localapi.ConnectRequest) (*attempt, error) {
	a, err := s.connectOnce(ctx, req)
	if err == nil {
		s.mu.Lock()
		s.unwantLocked(func(w *want) bool { return w.name == a.name || w.server != "" && w.server == a.server })
		s.mu.Unlock()
	}
	return a, err
}

func (s *sessions) connectOnce(ctx context.Context, req localapi.ConnectRequest) (*attempt, error) {
	name, server, err := s.where(req.Kube)
	if err != nil {
		e := httpjson.FromError(err)
		e.Phase = string(localapi.PhaseAuth)
		return nil, e
	}
	name = cmp.Or(req.Name, name, server)
	for {
		a, started, err := s.startOrJoin(req, name, server)
		if err != nil || started {
			return a, err
		}
		if a.join() {
			return a, nil
		}
		// It is being given up or has ended; wait until the host is clean.
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *sessions) startOrJoin(req localapi.ConnectRequest, name, server string) (a *attempt, started bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, false, errStopping()
	}
	for _, a := range s.all {
		switch {
		case a.server == server:
			if !a.req.SameAs(req) || req.Name != "" && req.Name != a.name {
				return nil, false, &localapi.Error{Code: localapi.CodeConflict, Message: "already connected to " + a.called() + " in another way",
					Hint: "podnet disconnect " + a.called(), Status: http.StatusConflict}
			}
			a.req.Reconnect = a.req.Reconnect || req.Reconnect
			return a, false, nil
		case localapi.Alias(a.name) == localapi.Alias(name):
			return nil, false, &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("the session %s is with another cluster, %s", a.name, a.server),
				Hint: "--name gives this one another name", Status: http.StatusConflict}
		}
	}
	req.Name = name
	ctx, cancel := context.WithCancel(s.ctx)
	a = &attempt{req: req, name: name, server: server, tell: s.tell, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}), waiting: 1}
	a.session = s.make(req, a.publish)
	s.all, s.lastError = append(s.all, a), nil
	if s.primary == nil {
		s.primary = a
	}
	_ = a.session.SetPrimary(ctx, s.primary == a) // it has not begun: there is nothing to fail
	s.wg.Add(1)
	go s.run(ctx, a)
	return a, true, nil
}

func (s *sessions) run(ctx context.Context, a *attempt) {
	defer s.wg.Done()
	err := a.session.Run(ctx)
	if err == nil && !a.wasReady() {
		err = context.Canceled
	}
	meant := !a.stays()
	a.giveUp()
	byItself := err != nil && !errors.Is(err, context.Canceled)
	s.moving.Lock() // who moves the primary finds a, or its heir
	s.mu.Lock()
	s.all = slices.DeleteFunc(s.all, func(o *attempt) bool { return o == a })
	s.idleSince = time.Now()
	if byItself {
		s.lastError = httpjson.FromError(err)
	}
	again := byItself && !meant && a.req.Reconnect && !a.req.Hold && a.wasReady()
	req := a.req
	req.Primary = req.Primary || s.primary == a
	var heir *attempt
	if s.primary == a {
		if s.primary = nil; !(byItself && a.wasReady()) && s.ctx.Err() == nil {
			if i := slices.IndexFunc(s.all, (*attempt).stays); i >= 0 {
				heir = s.all[i]
				s.primary = heir
			}
		}
	}
	s.mu.Unlock()
	a.over(err)
	if heir != nil {
		_ = heir.session.SetPrimary(s.ctx, true) // which warns where it fails
		heir.tellPrimary()
	}
	s.moving.Unlock()
	if again {
		s.want(req, a.name, a.server, httpjson.FromError(err))
	}
	close(a.done)
}

// setPrimary makes the session of a name the primary.
func (s *sessions) setPrimary(ctx context.Context, name string) error {
	s.moving.Lock()
	defer s.moving.Unlock()
	a, err := s.find(name)
	if err != nil {
		return err
	}
	if !a.wasReady() {
		return a.notReady()
	}
	s.mu.Lock()
	was := s.primary
	s.mu.Unlock()
	if was == a {
		return nil
	}
	// The new one first: in between a name is two sessions', never nobody's.
	if err := a.session.SetPrimary(ctx, true); err != nil {
		return errors.Join(err, a.session.SetPrimary(context.WithoutCancel(ctx), false))
	}
	s.mu.Lock()
	s.primary = a
	s.mu.Unlock()
	if was != nil {
		_ = was.session.SetPrimary(context.WithoutCancel(ctx), false) // which warns where it fails
	}
	a.tellPrimary()
	return nil
}

// idle is how long there has been no session.
func (s *sessions) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) > 0 || len(s.wants) > 0 || s.others > 0 {
		return 0
	}
	return time.Since(s.idleSince)
}

// count is how many sessions there are, ready or not.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// none says that there is no session, and none wanted.
func (s *sessions) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all) == 0 && len(s.wants) == 0
}

// busy keeps the daemon from ending for want of work, until done. When it ends
// for another reason it calls stop, and waits.
func (s *sessions) busy(stop func()) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, errStopping()
	}
	s.others++
	s.wg.Add(1)
	keep := context.AfterFunc(s.ctx, stop)
	return func() {
		keep()
		s.mu.Lock()
		s.others--
		s.idleSince = time.Now()
		s.mu.Unlock()
		s.wg.Done()
	}, nil
}

func errStopping() error {
	return &localapi.Error{Code: localapi.CodeDaemon, Message: "the daemon is stopping", Hint: "try again", Status: http.StatusServiceUnavailable}
}

// disconnect ends the session of a name, the only one without, or all, and waits
// until that is undone. With held it ends only what one caller holds and nobody
// keeps.
func (s *sessions) disconnect(ctx context.Context, name string, all, held bool) (localapi.DisconnectResult, error) {
	r := localapi.DisconnectResult{Names: []string{}}
	s.mu.Lock()
	ending, was := slices.Clone(s.all), s.primary
	there := called(ending)
	if !held {
		there = append(there, s.wantedLocked()...)
	}
	if len(there) > 1 && name == "" && !all {
		s.mu.Unlock()
		return r, which(there, "podnet disconnect NAME, or --all")
	}
	s.lastError = nil
	unwanted := s.unwantLocked(func(w *want) bool { return !held && (name == "" || w.name == name) })
	s.mu.Unlock()
	if name != "" && len(ending) > 0 {
		a, err := s.find(name)
		switch {
		case err == nil:
			ending = []*attempt{a}
		case len(unwanted) > 0:
			ending = nil
		default:
			return r, err
		}
	}
	ending = slices.DeleteFunc(ending, func(a *attempt) bool { return held && a.shared() })
	for _, a := range ending {
		a.giveUp()
	}
	for _, a := range ending {
		select {
		case <-a.done:
			r.Sessions, r.Names = r.Sessions+1, append(r.Names, a.called())
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	for _, name := range unwanted {
		if !slices.Contains(r.Names, name) {
			r.Sessions, r.Names = r.Sessions+1, append(r.Names, name)
		}
	}
	s.mu.Lock()
	if s.primary != nil && s.primary != was {
		r.Primary = s.primary.called()
	}
	s.mu.Unlock()
	return r, nil
}

// close waits for what the end of the daemon's context set going.
func (s *sessions) close() { s.wg.Wait() }

// find is the session of a name.
func (s *sessions) find(name string) (*attempt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		if a.called() == name {
			return a, nil
		}
	}
	e := &localapi.Error{Code: localapi.CodeNotConnected, Message: "no session is called " + name, Hint: "podnet connect", Status: http.StatusNotFound}
	if len(s.all) > 0 {
		e.Hint = "connected are " + strings.Join(called(s.all), ", ") + ": podnet status"
	}
	return nil, e
}

// ready is the session of a name, without one the primary, or the only one where
// nobody is primary. It is ready.
func (s *sessions) ready(name string) (Session, error) {
	if name != "" {
		a, err := s.find(name)
		if err == nil && !a.wasReady() {
			err = a.notReady()
		}
		if err != nil {
			return nil, err
		}
		return a.session, nil
	}
	s.mu.Lock()
	all, a := slices.Clone(s.all), s.primary
	s.mu.Unlock()
	switch {
	case a == nil && len(all) > 1:
		return nil, which(called(all), "--session NAME; podnet primary NAME makes one the default")
	case a == nil && len(all) == 1:
		a = all[0]
	}
	switch {
	case a == nil, !a.wasReady() && len(all) == 1:
		return nil, &localapi.Error{Code: localapi.CodeNotConnected, Message: "nothing is connected", Hint: "podnet connect", Status: http.StatusConflict}
	case !a.wasReady():
		return nil, a.notReady()
	}
	return a.session, nil
}

// of is the session that a request is about.
func (s *sessions) of(r *http.Request) (Session, error) { return s.ready(r.URL.Query().Get("session")) }

// which asks for a name.
func which(names []string, hint string) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("which of the sessions: %s?", strings.Join(names, ", ")), Hint: hint, Status: http.StatusBadRequest}
}

func called(all []*attempt) []string {
	var names []string
	for _, a := range all {
		names = append(names, a.called())
	}
	return names
}

func (s *sessions) status() localapi.Status {
	s.mu.Lock()
	all, primary, last := slices.Clone(s.all), s.primary, s.lastError
	waiting := s.waitingLocked()
	s.mu.Unlock()
	out := localapi.NewStatus()
	if out.LastError = last; last != nil {
		out.State = localapi.Failed
	}
	if len(all) > 0 {
		out.State = localapi.Connecting
	}
	for _, a := range all {
		c, warnings := a.session.Status()
		c.Name, c.Primary = cmp.Or(a.name, c.Name), a == primary
		if since := a.readySince(); since != nil {
			c.Since = since
			if out.State == localapi.Connecting {
				out.State, out.Since = localapi.Connected, since
			}
			for _, w := range warnings {
				if w.Severity == "high" {
					out.State = localapi.Degraded
				}
			}
		}
		for i := range warnings {
			warnings[i].Connection = c.Name
		}
		out.Connections, out.Warnings = append(out.Connections, c), append(out.Warnings, warnings...)
	}
	out.Warnings = append(out.Warnings, waiting...)
	if len(all) > 0 && primary == nil {
		out.Warnings = append(out.Warnings, localapi.Warning{Code: "no-primary", Severity: "medium",
			Text: "the primary session has ended by itself: short names and those of the cluster's zone resolve nowhere", Hint: "podnet primary " + all[0].called()})
	}
	return out
}
