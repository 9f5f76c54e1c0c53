package serve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/internal/splice"
)

const (
	// dialTime is how long a laptop may take to connect to its local program.
	dialTime = 10 * time.Second
	// noRoom is how long a port accepts nothing when the process has no
	// descriptor left.
	noRoom = 50 * time.Millisecond
)

// keepAlive finds clients that vanished: half-open connections are gone after two
// minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// accept takes connections until the listener is closed.
func (x *served) accept(l *net.TCPListener, to netip.AddrPort) {
	for {
		client, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(noRoom)
			continue
		}
		c := x.enter()
		if c == nil {
			x.s.log.Debug("too many connections to exposed ports", "exposure", x.Name, "flow", client.RemoteAddr())
			splice.Reset(client)
			continue
		}
		x.work.Go(func() {
			defer x.leave(c)
			x.carry(c.ctx, client, to)
		})
	}
}

// enter makes room for a connection; nil: there is none.
func (x *served) enter() *carried {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.conns) >= MaxConns || !x.s.take() {
		return nil
	}
	c := &carried{}
	c.ctx, c.end = context.WithCancel(x.ctx)
	x.conns = append(x.conns, c)
	return c
}

func (x *served) leave(c *carried) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c.end()
	x.conns = slices.DeleteFunc(x.conns, func(o *carried) bool { return o == c })
	x.s.give()
}

// carry joins a client with the laptop. The kernel has accepted it already, so
// that a laptop that refuses can only have it reset.
func (x *served) carry(life context.Context, client *net.TCPConn, to netip.AddrPort) {
	defer client.Close()
	_ = client.SetKeepAliveConfig(keepAlive)
	ctx, cancel := context.WithTimeout(life, dialTime)
	laptop, err := x.s.dial.DialTCP(ctx, to)
	cancel()
	if err != nil {
		x.s.log.Debug("exposed port not reached", "exposure", x.Name, "addr", to, "flow", client.RemoteAddr(), "err", err)
		splice.Reset(client)
		return
	}
	defer laptop.Close()
	stop := context.AfterFunc(life, func() {
		splice.Reset(client)
		splice.Reset(laptop)
	})
	defer stop()
	if err := splice.Join(client, laptop, nil, nil); err != nil {
		x.s.log.Debug("exposed connection broke", "exposure", x.Name, "flow", client.RemoteAddr(), "err", err)
	}
}
