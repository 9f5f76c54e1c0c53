package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/rawtcp"
	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/backlog"
	"podnet.dev/internal/steer/http1"
	"podnet.dev/internal/steer/http2"
)

// knockTime is how long the pod's own program may take to accept a connection:
// its queue may be full, and the kernel tries again after 1 s and after 3 s.
const knockTime = 10 * time.Second

func (s *Server) accept(l net.Listener, k PortKey) {
	const pause = 50 * time.Millisecond
	for {
		client, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of file descriptors, or of memory
			s.Log.Warn("accept of redirected connections failed", "port", k.Port, "err", err)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			continue
		}
		decided := s.conns.Add(1) <= MaxConns
		s.wg.Go(func() {
			if !s.newConn(rawtcp.New(client.(*net.TCPConn)), k).serve(s.ctx, decided) {
				s.conns.Add(-1)
			}
		})
	}
}

// conn is a redirected connection. It is the backlog.Outlet of its own.
type conn struct {
	s      *Server
	key    PortKey
	client *rawtcp.Conn
	to     netip.AddrPort // what the client wanted to reach: the pod's own program
	see    steer.Observer
	began  time.Time

	mu    sync.Mutex
	knock *rawtcp.Conn // the first connection to the pod's own program; nil: in use, or closed
}

func (s *Server) newConn(client *rawtcp.Conn, k PortKey) *conn {
	// The kernel kept the address, and may have changed the port.
	local := client.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	return &conn{
		s: s, key: k, client: client, to: netip.AddrPortFrom(local, k.Port),
		see: s.Observer(k), began: time.Now(),
	}
}

// serve carries the connection to its end, or reports that a pump does. Unless it is
// to be decided it is the app's.
//
// The app is knocked at first whoever will answer: where it refuses, so do we.
func (c *conn) serve(ctx context.Context, decided bool) (pumped bool) {
	client := c.client
	defer client.Close()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	knock, err := c.dialApp(ctx)
	if err != nil {
		c.s.Log.Debug("pod refused a steered connection", "addr", c.to, "err", err)
		splice.Reset(c.client)
		return false
	}
	c.knock = knock
	defer c.dropKnock()

	port := c.rules()
	var o opening
	if decided && port != nil && (port.HTTP() || c.fromNode()) {
		o = c.sniff()
		switch {
		case o.kind == steer.HTTP1:
			if c.passOn(o.client) {
				return true
			}
			c.ended(http1.Serve(ctx, c.addressed(), o.client, c.rules, c, c.see))
			return false
		case o.kind == steer.HTTP2:
			c.ended(http2.Serve(ctx, c.addressed(), o.client, c.rules, c, c.see))
			return false
		case o.clientErr != nil && o.clientErr != io.EOF:
			knock.Write(o.client)
			splice.Reset(knock)
			return false
		case len(o.client) == 0 && o.clientErr == io.EOF && c.fromNode():
			return false // a probe of the kubelet that asks only whether there is somebody
		}
	}
	var d steer.Decision
	if decided {
		port = c.rules()
		d = port.Whole()
	}
	return c.carryWhole(ctx, d, o, port != nil)
}

func (c *conn) rules() *steer.Port { return c.s.Rules(c.key.Protocol, c.key.Port) }

// fromNode reports whether the client may be the kubelet.
func (c *conn) fromNode() bool {
	from := c.client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	return slices.Contains(c.s.NodeAddrs, from.Unmap().WithZone(""))
}

func (c *conn) ended(err error) {
	if err != nil {
		c.s.Log.Debug("steered connection broke", "addr", c.to, "flow", c.client.RemoteAddr(), "err", err)
	}
}

// addressed is the client's connection as it was before it was redirected.
func (c *conn) addressed() net.Conn {
	return &addressed{c.client, net.TCPAddrFromAddrPort(c.to)}
}

type addressed struct {
	*rawtcp.Conn
	to net.Addr
}

func (a *addressed) LocalAddr() net.Addr { return a.to }

// App gives the knock, or once that is used connects anew.
func (c *conn) App(ctx context.Context) (net.Conn, error) {
	if knock := c.takeKnock(); knock != nil {
		return knock, nil
	}
	return c.dialApp(ctx)
}

// Laptop connects to the laptop of a rule. One that answers instead of the app
// has no use for the knock.
func (c *conn) Laptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	conn, err := c.s.dialLaptop(ctx, r)
	if err == nil && r.Mode == steer.Steal {
		c.dropKnock()
	}
	return conn, err
}

// Copies is what waits on mirrors of all connections.
func (c *conn) Copies() *backlog.Budget { return c.s.waiting }

func (c *conn) dialApp(ctx context.Context) (*rawtcp.Conn, error) {
	conn, err := c.connectApp(ctx)
	if err != nil {
		return nil, err
	}
	return rawtcp.New(conn), nil
}

func (c *conn) connectApp(ctx context.Context) (*net.TCPConn, error) {
	if c.s.Config.App != nil {
		return c.s.Config.App(ctx, c.key)
	}
	d := net.Dialer{Timeout: knockTime, Control: redirect.ControlDialer}
	conn, err := d.DialContext(ctx, "tcp", c.to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func (c *conn) takeKnock() *rawtcp.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	knock := c.knock
	c.knock = nil
	return knock
}

func (c *conn) dropKnock() {
	if knock := c.takeKnock(); knock != nil {
		knock.Close()
	}
}

// carryWhole carries a connection that is not decided by request, or reports that a
// pump does. Where the port has no rules nobody is told of it.
func (c *conn) carryWhole(ctx context.Context, d steer.Decision, o opening, tell bool) (pumped bool) {
	w := &whole{conn: c, copies: c.openCopies(d.Mirrors), seen: steer.Seen{Rule: d.Steal, Began: c.began}, tell: tell}
	peer, err := w.connect(ctx, d.Steal, &o)
	if err != nil {
		splice.Reset(c.client)
		c.ended(err)
		w.copies.close(ctx)
		return false
	}
	if app, ok := peer.(*rawtcp.Conn); ok && o.clientErr == nil && o.appErr == nil && w.open(app, &o) && c.pump(app, nil, w) {
		return true
	}
	w.join(ctx, end{c.client, o.client}, end{peer, o.app})
	return false
}

// stealWhole connects to the laptop that gets the whole connection.
func (c *conn) stealWhole(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	conn, err := c.s.dialLaptop(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := c.writeProxyHeader(conn, r); err != nil {
		conn.Close()
		return nil, err
	}
	c.dropKnock()
	return conn, nil
}

// writeProxyHeader tells a laptop who its client is if its rule asks for that.
func (c *conn) writeProxyHeader(to net.Conn, r *steer.Rule) error {
	if r.ClientAddress != steer.ClientByProxy {
		return nil
	}
	header := steer.AppendProxyHeader(nil, c.client.RemoteAddr(), net.TCPAddrFromAddrPort(c.to))
	if _, err := to.Write(header); err != nil {
		return fmt.Errorf("write to the laptop of %s: %w", r.Owner, err)
	}
	return nil
}

func (c *conn) report(seen steer.Seen, err error) {
	seen.Took, seen.Err = time.Since(seen.Began), err
	c.see.Seen(seen)
}
