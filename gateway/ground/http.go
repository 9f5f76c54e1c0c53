package ground

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// callerConns is how many connections for probes and metrics one address may have:
// every pod may call, and each connection takes some 20 KB. The kubelet and who
// scrapes have one or two.
const callerConns = 16

// ServeHTTP answers at l, which other pods reach, until ctx ends.
func ServeHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(&callers{Listener: l, conns: map[netip.Addr]int{}}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve probes: %w", err)
	}
	return nil
}

// callers is a listener that closes what an address has beyond callerConns.
type callers struct {
	net.Listener

	mu    sync.Mutex
	conns map[netip.Addr]int
}

func (l *callers) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && l.take(from.Addr()) {
			return &called{Conn: c, over: sync.OnceFunc(func() { l.give(from.Addr()) })}, nil
		}
		_ = c.Close()
	}
}

func (l *callers) take(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[a] >= callerConns {
		return false
	}
	l.conns[a]++
	return true
}

func (l *callers) give(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[a]--; l.conns[a] == 0 {
		delete(l.conns, a)
	}
}

// called is a connection that counts until it is closed.
type called struct {
	net.Conn
	over func()
}

func (c *called) Close() error {
	defer c.over()
	return c.Conn.Close()
}
