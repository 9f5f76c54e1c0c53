package daemon

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// sessions holds the one session of this daemon; a later version holds several.
type sessions struct {
	ctx  context.Context
	make func(localapi.ConnectRequest, func(localapi.Event)) Session
	// tell hears of everything that happens to a session.
	tell func(localapi.Event)
	wg   sync.WaitGroup

	mu        sync.Mutex
	current   *attempt
	lastError *localapi.Error
	others    int // things to do that are no sessions
	idleSince time.Time
}

func newSessions(ctx context.Context, make_ func(localapi.ConnectRequest, func(localapi.Event)) Session, tell func(localapi.Event)) *sessions {
	return &sessions{ctx: ctx, make: make_, tell: tell, idleSince: time.Now()}
}

// attempt is a session from the first connect to the end of its undoing.
type attempt struct {
	req     localapi.ConnectRequest
	session Session
	tell    func(localapi.Event)
	cancel  context.CancelFunc
	// done is closed when everything is undone.
	done chan struct{}

	mu sync.Mutex
	// events are those of connecting.
	events  []localapi.Event
	changed chan struct{}
	waiting int
	ready   *time.Time
	// kept says that somebody connected who does not hold the session: it stays when
	// those who do have left.
	kept   bool
	ending bool
}

// connect begins a session or joins the one that serves the same request.
func (s *sessions) connect(ctx context.Context, req localapi.ConnectRequest) (*attempt, error) {
	for {
		a, started, err := s.startOrJoin(req)
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

func (s *sessions) startOrJoin(req localapi.ConnectRequest) (a *attempt, started bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, false, errStopping()
	}
	if a := s.current; a != nil {
		if !a.req.SameAs(req) {
			c, _ := a.session.Status()
			return nil, false, &localapi.Error{Code: localapi.CodeConflict, Message: "already connected to " + c.Name + " in another way",
				Hint: "podnet disconnect", Status: http.StatusConflict}
		}
		return a, false, nil
	}
	ctx, cancel := context.WithCancel(s.ctx)
	a = &attempt{req: req, tell: s.tell, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}), waiting: 1}
	a.session = s.make(req, a.publish)
	s.current, s.lastError = a, nil
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
	a.giveUp()
	s.mu.Lock()
	s.current, s.idleSince = nil, time.Now()
	if err != nil && !errors.Is(err, context.Canceled) {
		s.lastError = httpjson.FromError(err)
	}
	s.mu.Unlock()
	a.over(err)
	close(a.done)
}

// idle is how long there has been no session.
func (s *sessions) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil || s.others > 0 {
		return 0
	}
	return time.Since(s.idleSince)
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

// disconnect ends the session, if there is one, and waits until it is undone. With
// held it ends only what one caller holds and nobody keeps.
func (s *sessions) disconnect(ctx context.Context, held bool) (int, error) {
	s.mu.Lock()
	a := s.current
	s.lastError = nil
	s.mu.Unlock()
	if a == nil || held && a.shared() {
		return 0, nil
	}
	a.giveUp()
	select {
	case <-a.done:
		return 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// close waits for what the end of the daemon's context set going.
func (s *sessions) close() { s.wg.Wait() }

func (s *sessions) status() localapi.Status {
	s.mu.Lock()
	a, last := s.current, s.lastError
	s.mu.Unlock()
	out := localapi.NewStatus()
	if a == nil {
		out.LastError = last
		if last != nil {
			out.State = localapi.Failed
		}
		return out
	}
	c, warnings := a.session.Status()
	c.Primary = true
	out.State = localapi.Connecting
	if since := a.readySince(); since != nil {
		out.State, out.Since, c.Since = localapi.Connected, since, since
		for _, w := range warnings {
			if w.Severity == "high" {
				out.State = localapi.Degraded
			}
		}
	}
	out.Connections = append(out.Connections, c)
	out.Warnings = append(out.Warnings, warnings...)
	return out
}

// publish hands an event to whoever waits for the session, until it is ready,
// and to whoever listens to the daemon.
func (a *attempt) publish(e localapi.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Connection == "" {
		c, _ := a.session.Status()
		e.Connection = c.Name
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ready == nil {
		a.events = append(a.events, e)
		if e.Type == localapi.EventReady {
			now := time.Now()
			a.ready = &now
		}
		close(a.changed)
		a.changed = make(chan struct{})
	}
	a.tell(e) // with the lock held, so that both hear the same order
}

// over tells of the end: err is why it came by itself.
func (a *attempt) over(err error) {
	e := localapi.Event{Type: localapi.EventDisconnected, Text: "disconnected"}
	switch {
	case !a.wasReady():
		e.Type, e.Error = localapi.EventError, httpjson.FromError(err)
		if errors.Is(err, context.Canceled) {
			e.Error = &localapi.Error{Code: localapi.CodeCanceled, Message: "connecting was given up"}
		}
		e.Phase, e.Text = localapi.Phase(e.Error.Phase), e.Error.Message
	case err != nil:
		e.Type, e.Error = localapi.EventEnded, httpjson.FromError(err)
		e.Text = "the session ended: " + e.Error.Message
	}
	a.publish(e)
}

// event is the i-th event, when it comes.
func (a *attempt) event(ctx context.Context, i int) (localapi.Event, bool) {
	for {
		a.mu.Lock()
		if i < len(a.events) {
			defer a.mu.Unlock()
			return a.events[i], true
		}
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return localapi.Event{}, false
		}
	}
}

// join adds a listener, unless the attempt is already over or given up.
func (a *attempt) join() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending {
		return false
	}
	a.waiting++
	return true
}

// leave takes a listener away, who held the session or not. The last one to leave
// before it is ready, or who held what nobody keeps, gives it up.
func (a *attempt) leave(held bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
	a.kept = a.kept || !held && a.ready != nil
	if a.waiting == 0 && !a.kept {
		a.ending = true
		a.cancel()
	}
}

// giveUp ends the session; nobody joins it any more.
func (a *attempt) giveUp() {
	a.mu.Lock()
	a.ending = true
	a.mu.Unlock()
	a.cancel()
}

// shared says that the session is not only one caller's who holds it.
func (a *attempt) shared() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kept || a.waiting > 1
}

func (a *attempt) wasReady() bool { return a.readySince() != nil }

func (a *attempt) readySince() *time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}
