//go:build unix

// Package serve is podnet-helper at work: it gives whoever may have one a session
// of the host, a connection each, and takes everything back when the connection
// ends, however it does. The kernel says who is at the other end; nothing that
// they send is believed.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/router"
	"podnet.dev/internal/peercred"
	"podnet.dev/internal/version"
)

// maxConnections is how many one user may have at a time, sessions or not.
const maxConnections = 16

// Server answers on a socket.
type Server struct {
	// Open begins a session of the host; helper.Host's.
	Open func(ctx context.Context, warn func(string)) (helper.Session, error)
	// Networks are those that the host has without podnet.
	Networks func() ([]router.Network, error)
	// Operators says who may have sessions; it is asked for each connection.
	Operators func() (Operators, error)
	Log       *slog.Logger

	mu    sync.Mutex
	conns []*conn
}

// Serve answers until ctx is done, and returns when all sessions have ended.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.conns {
			_ = c.wire.CloseRead() // what is under way is answered
		}
	})
	defer stop()
	for {
		uc, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		c, err := s.admit(uc)
		if err != nil {
			s.Log.Warn("connection refused", "err", err)
			_ = uc.Close()
			continue
		}
		if ctx.Err() != nil { // it came in between
			_ = uc.CloseRead()
		}
		handlers.Go(func() {
			c.run(ctx)
			s.forget(c)
		})
	}
}

// admit finds out who is there.
func (s *Server) admit(uc *net.UnixConn) (*conn, error) {
	who, err := peercred.Of(uc)
	if err != nil {
		return nil, fmt.Errorf("ask who is there: %w", err)
	}
	operators, err := s.Operators()
	if err != nil { // root is one all the same
		s.Log.Error("nobody but root may have a session", "err", err)
	}
	c := &conn{server: s, wire: wire.NewConn(uc), who: who, operator: operators.Include(who), log: s.Log.With("uid", who.UID, "pid", who.PID)}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, o := range s.conns {
		if o.who.UID == who.UID {
			n++
		}
	}
	if n >= maxConnections {
		return nil, fmt.Errorf("user %d has %d connections", who.UID, n)
	}
	s.conns = append(s.conns, c)
	return c, nil
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(o *conn) bool { return o == c })
}

// begin notes that c is about to have a session. The host is one user's at a time:
// the names of one user's clusters are nothing to another's proxy.
func (s *Server) begin(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.conns {
		if o.open && o.who.UID != c.who.UID {
			return &takenError{o.who.UID}
		}
	}
	c.open = true
	return nil
}

// end notes that c has no session, or none any more.
func (s *Server) end(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.open, c.name = false, ""
}

// named notes the interface of c's session.
func (s *Server) named(c *conn, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.name = name
}

// sessions are those that there are.
func (s *Server) sessions() []wire.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []wire.Session
	for _, c := range s.conns {
		if c.open {
			all = append(all, wire.Session{UID: c.who.UID, PID: c.who.PID, Interface: c.name})
		}
	}
	return all
}

// greeting is what c is told first.
func greeting(c *conn) *wire.Greeting {
	return &wire.Greeting{Version: wire.Version, Program: version.Version, UID: c.who.UID, Operator: c.operator}
}

// takenError says that another user has sessions.
type takenError struct{ uid int }

func (e *takenError) Error() string {
	return fmt.Sprintf("another user (%d) has this machine's network by podnet-helper", e.uid)
}
func (e *takenError) Code() string { return "conflict" }
func (e *takenError) Hint() string { return "podnet disconnect as that user" }

// Listen makes the socket at path for everybody: whom it serves the kernel says.
// One that a killed helper has left goes.
func Listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	if c, err := net.DialUnix("unix", nil, addr); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another podnet-helper answers on %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
