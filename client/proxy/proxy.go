// Package proxy lets programs that know of proxies, or of nothing but a port, reach
// what a dialler reaches: SOCKS5 and HTTP on one port (Server), and ports that lead to
// one address each (Forward).
package proxy

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Dial reaches "tcp" and "udp" addresses, also by name. Names go to it as they came.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

const (
	// talkTime is how long a program may take to say what it wants.
	talkTime = 10 * time.Second
	// dialTime is how long it may take to get there.
	dialTime = 30 * time.Second
	// atOnce is how many connections there may be, to each listener.
	atOnce = 4096
)

// Server is a proxy for SOCKS5 (CONNECT, names welcome, no password) and for HTTP
// (CONNECT, and requests with a whole URL), on the same port: their first bytes
// differ. Whoever reaches the port may use it.
type Server struct {
	Dial Dial
	Log  *slog.Logger
}

// Serve serves connections to l until ctx is done, and closes l. It returns when all
// have ended: nil, or why l failed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	browsers := &handover{addr: l.Addr(), conns: make(chan net.Conn), done: ctx.Done()}
	web := &http.Server{
		Handler: s.web(ctx), ReadHeaderTimeout: talkTime, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = web.Serve(browsers) })
	defer wg.Wait()
	defer web.Close()
	defer cancel()
	return accept(ctx, l, s.Log, func(conn net.Conn) {
		c := &peeked{Conn: conn, r: bufio.NewReader(conn), closed: make(chan struct{})}
		_ = c.SetReadDeadline(time.Now().Add(talkTime))
		first, err := c.r.Peek(1)
		_ = c.SetReadDeadline(time.Time{})
		switch {
		case err != nil:
			_ = c.Close()
		case first[0] == socksVersion:
			s.socks(ctx, c)
		default:
			browsers.give(c)
		}
	})
}

// accept serves connections to l until ctx is done, and waits for them. Who serves one
// closes it, and must when ctx is done.
func accept(ctx context.Context, l net.Listener, log *slog.Logger, serve func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, atOnce)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE): // until some have ended
			log.Warn("too many open files", "listen", l.Addr().String())
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case err != nil:
			return err
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				serve(conn)
			})
		default:
			log.Warn("too many connections at once", "limit", atOnce, "listen", l.Addr().String())
			_ = conn.Close()
		}
	}
}

// peeked is a connection of which something has been read.
type peeked struct {
	net.Conn
	r      *bufio.Reader
	once   sync.Once
	closed chan struct{}
}

func (p *peeked) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// CloseWrite says that no more comes.
func (p *peeked) CloseWrite() error {
	if half, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return p.Close()
}

// SetLinger is the TCP connection's.
func (p *peeked) SetLinger(seconds int) error {
	if c, ok := p.Conn.(interface{ SetLinger(int) error }); ok {
		return c.SetLinger(seconds)
	}
	return nil
}

// handover is a listener for connections that another one accepted.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  <-chan struct{}
}

// give hands c over and waits until it has ended.
func (h *handover) give(c *peeked) {
	select {
	case h.conns <- c:
		<-c.closed
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { return nil }
func (h *handover) Addr() net.Addr { return h.addr }
