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

// attempt is a session from the first connect to the end of its undoing.
type attempt struct {
	req localapi.ConnectRequest
	// name is the session's, server its cluster's.
	name, server string

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

// publish hands an event to whoever waits for the session, until it is ready,
// and to whoever listens to the daemon.
func (a *attempt) publish(e localapi.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Connection = a.name; e.Connection == "" {
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

// stays says that nobody has given it up.
func (a *attempt) stays() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.ending
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

// called is the session's name.
func (a *attempt) called() string {
	if a.name != "" {
		return a.name
	}
	c, _ := a.session.Status()
	return c.Name
}

func (a *attempt) notReady() error {
	return &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session " + a.called() + " is not ready yet", Hint: "podnet status", Status: http.StatusConflict}
}

// tellPrimary says that short names are this session's now.
func (a *attempt) tellPrimary() {
	if a.wasReady() {
		a.publish(localapi.Event{Type: localapi.EventPrimary, Text: "short names are those of " + a.called()})
	}
}
