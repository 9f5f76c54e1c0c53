package serve

import (
	"context"
	"errors"
	"net"
	"net/netip"
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
		case !x.enter():
			x.s.log.Debug("too many connections to exposed ports", "exposure", x.Name, "flow", client.RemoteAddr())
			splice.Reset(client)
			continue
		}
		x.work.Go(func() {
			defer x.leave()
			x.carry(client, to)
		})
	}
}

func (x *served) enter() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conns >= MaxConns || !x.s.take() {
		return false
	}
	x.conns++
	return true
}

func (x *served) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conns--
	x.s.give()
}

// carry joins a client with the laptop. The kernel has accepted it already, so
// that a laptop that refuses can only have it reset.
func (x *served) carry(client *net.TCPConn, to netip.AddrPort) {
	defer client.Close()
	_ = client.SetKeepAliveConfig(keepAlive)
	ctx, cancel := context.WithTimeout(x.ctx, dialTime)
	laptop, err := x.s.dial.DialTCP(ctx, to)
	cancel()
	if err != nil {
		x.s.log.Debug("exposed port not reached", "exposure", x.Name, "addr", to, "flow", client.RemoteAddr(), "err", err)
		splice.Reset(client)
		return
	}
	defer laptop.Close()
	stop := context.AfterFunc(x.ctx, func() {
		splice.Reset(client)
		splice.Reset(laptop)
	})
	defer stop()
	if err := splice.Join(client, laptop, nil, nil); err != nil {
		x.s.log.Debug("exposed connection broke", "exposure", x.Name, "flow", client.RemoteAddr(), "err", err)
	}
}
