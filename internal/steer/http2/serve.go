// Package http2 steers the streams of one HTTP/2 connection: each request goes to
// the pod's own program or to a laptop as package steer decides, and its response
// comes back as if nothing stood between.
//
// The client has one connection to us, and we have one to the app and to each
// laptop that a rule calls for. Header blocks are decoded and encoded anew, as
// each connection has its own compression; their fields stay the same, in order,
// as often as they came, and never indexed if they came so. Bodies, trailers,
// interim responses, and the codes of RST_STREAM and GOAWAY go through. PING and
// SETTINGS are each connection's own, flow control is end to end (window.go), and
// priorities are dropped, as every proxy may. Pushes are refused.
//
// Where there is doubt the app has it: a connection that does not begin as HTTP/2,
// or whose app does not speak it, is passed on byte for byte; a request with an
// odd head goes to the app with just that head. After that it is too late to step
// aside, and a client that breaks the protocol gets the GOAWAY that a server gives.
//
// The package opens no connection itself and knows nothing of Kubernetes.
package http2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/backlog"
)

// Names of fields as HTTP/2 has them.
var (
	lowerSteeredBy = strings.ToLower(steer.SteeredBy)
	lowerMirrored  = strings.ToLower(steer.Mirrored)
)

// session is one client's connection with all that are open on its behalf.
type session struct {
	rules steer.Rules
	out   steer.Outlet
	see   steer.Observer
	ctx   context.Context // over when the session is
	wg    sync.WaitGroup  // of all but the client's goroutine

	copies *backlog.Budget // of what waits on mirrors

	mu      sync.Mutex
	client  *conn
	app     *conn
	laptops map[string]*conn // by rule; open to new streams, or being connected
	mirrors map[string]*conn // these, or dropped
	dialed  map[*conn]bool   // all to laptops that are not over yet

	resets      tally  // of streams before their answer
	lastAllowed uint32 // the client's streams above it are ignored
	toldStreams uint32 // what the client was told last of
	toldConnect bool   // the app's SETTINGS
	seen        []steer.Seen
}

// Serve steers a client's connection until it is over or ctx is, and closes it.
// first is what was read of it already. The error says why a connection ended
// before its client wanted to.
func Serve(ctx context.Context, client net.Conn, first []byte, rules steer.Rules, out steer.Outlet, see steer.Observer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer closeWith(ctx, client)()

	s := newSession(ctx, rules, out, see)
	began := time.Now()
	o, err := readOpening(client, first)
	if err != nil {
		return s.passOn(client, o, began, fmt.Errorf("client: %w", err))
	}
	appConn, err := out.App(ctx)
	if err != nil {
		return fmt.Errorf("connect to app: %w", err)
	}
	defer closeWith(ctx, appConn)()
	if err := s.open(client, appConn, o); err != nil {
		_ = appConn.Close()
		return s.passOn(client, o, began, fmt.Errorf("app: %w", err))
	}

	s.wg.Go(func() { _ = s.app.run() })
	err = s.client.run()
	s.close()
	s.wg.Wait()
	if isHangUp(err) {
		return nil
	}
	return fmt.Errorf("client: %w", err)
}

func newSession(ctx context.Context, rules steer.Rules, out steer.Outlet, see steer.Observer) *session {
	s := &session{
		rules: rules, out: out, see: see, ctx: ctx, copies: backlog.Of(out),
		laptops: make(map[string]*conn), mirrors: make(map[string]*conn),
		dialed:      make(map[*conn]bool),
		lastAllowed: windowMax,
	}
	s.client, s.app = newConn(s, client, nil), newConn(s, app, nil)
	return s
}

// open greets the app, and then the client by what the app has said.
func (s *session) open(client, app net.Conn, o *opening) error {
	s.mu.Lock()
	s.client.attachLocked(client, o.rest)
	err := s.client.settingsLocked(o.settings)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	_ = app.SetDeadline(time.Now().Add(steer.HeadTime))
	if err := s.app.greetUp(app); err != nil {
		return err
	}
	_ = app.SetDeadline(time.Time{})

	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.tell = nil // greet says it
	settings := []http2.Setting{
		{ID: http2.SettingMaxConcurrentStreams, Val: s.maxStreamsLocked()},
		{ID: http2.SettingMaxHeaderListSize, Val: s.app.headList},
	}
	if s.app.canConnect {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	s.client.greet(settings...)
	return nil
}

// close ends all connections after what is due was written.
func (s *session) close() {
	s.mu.Lock()
	defer s.unlock()
	for _, st := range s.client.streams {
		st.x.failLocked(errors.New("client closed the connection"))
		st.removeLocked()
		st.x.endOthersLocked(st, http2.ErrCodeCancel)
	}
	s.app.shutLocked(nil)
	for c := range s.dialed {
		c.shutLocked(nil)
		c.cancel()
	}
}

// unlock unlocks mu and tells the observer what is over.
func (s *session) unlock() {
	seen := s.seen
	s.seen = nil
	s.mu.Unlock()
	for _, one := range seen {
		s.see.Seen(one)
	}
}

// passOn has the app do with the bytes of a client what it likes. why is the
// doubt.
func (s *session) passOn(client net.Conn, o *opening, began time.Time, why error) error {
	app, err := s.out.App(s.ctx)
	if err != nil {
		return fmt.Errorf("connect to app: %w", err)
	}
	defer closeWith(s.ctx, app)()
	in, out, err := pass(client, app, o)
	s.see.Seen(steer.Seen{Began: began, Took: time.Since(began), In: in, Out: out, Err: fmt.Errorf("not decided: %w", why)})
	return err
}

// laptopLocked returns the connection to the laptop of rule; it may not be there
// yet, but takes streams.
func (s *session) laptopLocked(rule *steer.Rule) *conn {
	c := s.laptops[rule.Name]
	if c == nil || c.closing || !c.rule.Is(rule) {
		c = newConn(s, laptop, rule)
		s.laptops[rule.Name] = c
		s.dialLocked(c)
	}
	return c
}

// dialLocked connects c to its rule's laptop and runs it, in a goroutine.
func (s *session) dialLocked(c *conn) {
	ctx, cancel := context.WithTimeout(s.ctx, laptopTime)
	c.cancel = cancel
	s.dialed[c] = true
	s.wg.Go(func() {
		defer cancel()
		err := s.converse(ctx, c)
		s.mu.Lock()
		delete(s.dialed, c)
		c.lostLocked(err) // in case it never ran
		s.unlock()
	})
}

// converse connects c before ctx is over, and runs it.
func (s *session) converse(ctx context.Context, c *conn) error {
	nc, err := s.out.Laptop(ctx, c.rule)
	if err != nil {
		return err
	}
	defer closeWith(s.ctx, nc)()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	if c.rule.ClientAddress == steer.ClientByProxy {
		from, to := s.client.nc.RemoteAddr(), s.client.nc.LocalAddr()
		c.buf.Write(steer.AppendProxyHeader(nil, from, to))
	}
	if err := c.greetUp(nc); err != nil {
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	return c.run()
}

// closeWith closes nc when ctx is over or the function it returns is called.
func closeWith(ctx context.Context, nc net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	return func() {
		stop()
		_ = nc.Close()
	}
}
