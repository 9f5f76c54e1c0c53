package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Pauses between attempts to connect again: as a session waits between attempts to
// enrol again.
const (
	againMin = 5 * time.Second
	againMax = time.Minute
)

// want is a session that is to come by itself: one that has ended and was asked to
// be connected again, or a profile's at the start. It is over when there is one, and
// when somebody disconnects it.
type want struct {
	req          localapi.ConnectRequest
	name, server string
	cancel       context.CancelFunc

	// below are guarded by the sessions' mu.
	next time.Time       // of the next attempt; zero: one is under way
	err  *localapi.Error // why there was none; nil: none was tried
}

// begin connects by every profile that asks for it. The first is tried first, and
// all go on trying beside each other.
func (d *daemon) begin(env []string) {
	all, err := d.Profiles.Profiles()
	if err != nil {
		d.Log.Warn("no profile is connected at the start", "err", err)
		return
	}
	for _, p := range all {
		if p.AutoConnect {
			req := p.Request(env).WithDefaults()
			req.Reconnect = true
			d.Log.Info("profile wanted", "profile", p.Name)
			d.sessions.want(req, p.Name, "", nil)
		}
	}
}

// want has a session come by itself. err is why the last one of it has ended.
func (s *sessions) want(req localapi.ConnectRequest, name, server string, err *localapi.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	w := &want{req: req, name: name, server: server, cancel: cancel, err: err}
	s.wants = append(s.wants, w)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer cancel()
		s.pursue(ctx, w)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wants = slices.DeleteFunc(s.wants, func(o *want) bool { return o == w })
		s.idleSince = time.Now()
	}()
}

// pursue tries until there is the session or nobody wants it any more.
func (s *sessions) pursue(ctx context.Context, w *want) {
	pause := time.Duration(0)
	if w.err != nil { // it has just ended
		pause = againMin
	}
	for {
		if !s.await(ctx, w, pause) {
			return
		}
		err := s.attempt(ctx, w)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !worthwhile(err.Code) {
			s.tell(localapi.Event{Type: localapi.EventWarning, Connection: w.name, Text: w.name + " is not connected, nor tried again: " + err.Message})
			return
		}
		s.mu.Lock()
		w.err = err
		s.mu.Unlock()
		pause = min(max(2*pause, againMin), againMax)
	}
}

// worthwhile says whether time may mend what an attempt failed of.
func worthwhile(code string) bool {
	switch code {
	case localapi.CodeUsage, localapi.CodeConflict, localapi.CodeCanceled:
		return false
	}
	return true
}

// await waits for the next attempt.
func (s *sessions) await(ctx context.Context, w *want, pause time.Duration) bool {
	pause = pause*9/10 + rand.N(pause/5+1)
	s.mu.Lock()
	w.next = time.Now().Add(pause)
	s.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	w.next = time.Time{}
	s.mu.Unlock()
	return true
}

// attempt connects once, and says why it did not.
func (s *sessions) attempt(ctx context.Context, w *want) *localapi.Error {
	a, err := s.connectOnce(ctx, w.req)
	if err != nil {
		return httpjson.FromError(err)
	}
	defer a.leave(false) // which keeps a session that is ready, and gives up another
	for i := 0; ; i++ {
		e, ok := a.event(ctx, i)
		switch {
		case !ok:
			return &localapi.Error{Code: localapi.CodeCanceled, Message: "nobody wants it any more"}
		case e.Type == localapi.EventReady:
			if w.req.Primary {
				_ = s.setPrimary(ctx, a.called()) // which warns where it fails
			}
			return nil
		case e.Type == localapi.EventError:
			return e.Error
		}
	}
}

// unwantLocked gives up what is wanted and meant, and says whose that was.
func (s *sessions) unwantLocked(meant func(*want) bool) []string {
	var names []string
	s.wants = slices.DeleteFunc(s.wants, func(w *want) bool {
		if !meant(w) {
			return false
		}
		w.cancel()
		names = append(names, w.name)
		return true
	})
	return names
}

// wantedLocked are the names of what is wanted and has no session, not even one that
// is being tried.
func (s *sessions) wantedLocked() []string {
	var names []string
	for _, w := range s.wants {
		if !slices.ContainsFunc(s.all, func(a *attempt) bool { return a.name == w.name }) {
			names = append(names, w.name)
		}
	}
	return names
}

// waitingLocked says what is wanted and not under way.
func (s *sessions) waitingLocked() []localapi.Warning {
	var all []localapi.Warning
	for _, w := range s.wants {
		if w.next.IsZero() || w.err == nil {
			continue
		}
		all = append(all, localapi.Warning{Connection: w.name, Code: "reconnect", Severity: "medium",
			Text: fmt.Sprintf("%s is not connected: %s; tried again at %s", w.name, w.err.Message, w.next.Format("15:04:05")), Hint: "podnet disconnect " + w.name + " gives it up"})
	}
	return all
}
