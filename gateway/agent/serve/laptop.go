package serve

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
)

// laptopTime is how long a laptop may take to be connected.
const laptopTime = 3 * time.Second

// laptopConn is a connection to a laptop, which counts among its rule's until it
// is closed.
type laptopConn struct {
	net.Conn
	release func()
}

// dialLaptop connects to the laptop of a TCP rule.
func (s *Server) dialLaptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	name := r.Name
	if !s.laptops.take(name) {
		return nil, fmt.Errorf("the laptop of %s has %d connections of the rule already", r.Owner, MaxLaptop)
	}
	conn, err := s.connectLaptop(ctx, r)
	if err != nil {
		s.laptops.give(name)
		return nil, err
	}
	return &laptopConn{conn, sync.OnceFunc(func() { s.laptops.give(name) })}, nil
}

func (s *Server) connectLaptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, laptopTime)
	defer cancel()
	conn, err := s.Config.Laptop(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("connect to the laptop of %s: %w", r.Owner, err)
	}
	return conn, nil
}

func (c *laptopConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite says that no more comes.
func (c *laptopConn) CloseWrite() error { return splice.CloseWrite(c.Conn) }

// SetLinger does what it does to the connection within, if that can.
func (c *laptopConn) SetLinger(sec int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return nil
}
