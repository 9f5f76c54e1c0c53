package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// bind is a conn.Bind of one socket that takes a datagram at a time. WireGuard
// keeps a buffer of 64 KiB for each datagram that a Bind may give it at once:
// with the 128 of its own Bind, for two sockets, they are 16 MiB, a third of
// what the agent may have in all.
type bind struct {
	mu     sync.Mutex
	socket *net.UDPConn
}

func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socket != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, 0, err
	}
	b.socket = c
	var last *endpoint // most datagrams come from where the one before came from
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := c.ReadFromUDPAddrPort(bufs[0])
		if err != nil {
			return 0, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if last == nil || last.AddrPort != from {
			last = &endpoint{from}
		}
		sizes[0], eps[0] = n, last
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socket == nil {
		return nil
	}
	err := b.socket.Close()
	b.socket = nil
	return err
}

func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	c := b.socket
	b.mu.Unlock()
	if c == nil {
		return net.ErrClosed
	}
	var errs error
	for _, buf := range bufs {
		_, err := c.WriteToUDPAddrPort(buf, e.AddrPort)
		errs = errors.Join(errs, err)
	}
	return errs
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("parse endpoint: %w", err)
	}
	return &endpoint{a}, nil
}

func (b *bind) BatchSize() int       { return 1 }
func (b *bind) SetMark(uint32) error { return nil }

// endpoint is where datagrams go. A pod has one address of a family, so the
// kernel may choose the source.
type endpoint struct{ netip.AddrPort }

func (e *endpoint) DstToString() string { return e.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.Addr() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.MarshalBinary(); return b }
func (*endpoint) ClearSrc()             {}
func (*endpoint) SrcToString() string   { return "" }
func (*endpoint) SrcIP() netip.Addr     { return netip.Addr{} }
