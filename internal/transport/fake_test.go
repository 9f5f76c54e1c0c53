package transport_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// pipeListener accepts the far ends of net.Pipe.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// nat forwards the datagrams of one client to a server from a port of its own,
// which rebind changes. Some of them it may lose.
type nat struct {
	t      testing.TB
	inside *net.UDPConn
	to     netip.AddrPort
	loses  atomic.Pointer[func(toServer bool, size int) bool]

	mu      sync.Mutex
	client  netip.AddrPort
	outside *net.UDPConn
	wait    sync.WaitGroup
}

func newNAT(t testing.TB, to netip.AddrPort) *nat {
	n := &nat{t: t, to: to, inside: listenLoopback(t)}
	n.rebind()
	n.wait.Go(func() {
		b := make([]byte, 65536)
		for {
			m, from, err := n.inside.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.client = from
			if !n.lost(true, m) {
				n.outside.WriteToUDPAddrPort(b[:m], n.to)
			}
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		n.inside.Close()
		n.mu.Lock()
		n.outside.Close()
		n.mu.Unlock()
		n.wait.Wait()
	})
	return n
}

// lose decides from now on what is lost: nothing, if f is nil. Several
// goroutines call f.
func (n *nat) lose(f func(toServer bool, size int) bool) {
	if f == nil {
		n.loses.Store(nil)
		return
	}
	n.loses.Store(&f)
}

func (n *nat) lost(toServer bool, size int) bool {
	f := n.loses.Load()
	return f != nil && (*f)(toServer, size)
}

// aim sends to another server from now on.
func (n *nat) aim(to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.to = to
}

func listenLoopback(t testing.TB) *net.UDPConn {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *nat) addr() netip.AddrPort { return n.inside.LocalAddr().(*net.UDPAddr).AddrPort() }

func (n *nat) rebind() {
	c := listenLoopback(n.t)
	n.mu.Lock()
	if n.outside != nil {
		n.outside.Close()
	}
	n.outside = c
	n.mu.Unlock()
	n.wait.Go(func() {
		b := make([]byte, 65536)
		for {
			m, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			client := n.client
			n.mu.Unlock()
			if !n.lost(false, m) {
				n.inside.WriteToUDPAddrPort(b[:m], client)
			}
		}
	})
}
