//go:build !linux

package transport

import (
	"net/netip"

	"golang.zx2c4.com/wireguard/conn"
)

// udpRoute is the portable sockets' own form of an endpoint.
type udpRoute struct{ std conn.Endpoint }

// stdSockets are wireguard-go's portable sockets.
type stdSockets struct {
	b   *Bind
	std conn.Bind
}

func newUDP(b *Bind) udpSockets { return &stdSockets{b: b, std: conn.NewStdNetBind()} }

func (s *stdSockets) open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := s.std.Open(port)
	for i, fn := range fns {
		fns[i] = s.receive(fn)
	}
	return fns, actual, err
}

// receive gives the datagrams of fn to whom they belong.
func (s *stdSockets) receive(fn conn.ReceiveFunc) conn.ReceiveFunc {
	var cache originCache
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := fn(bufs, sizes, eps)
		for i := range max(n, 0) {
			from, ok := eps[i].(*conn.StdNetEndpoint)
			if !ok || !isWireGuard(bufs[i][:sizes[i]]) {
				sizes[i] = 0
				continue
			}
			addr := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			o := cache.lookup(s.b, originKey{from: addr, to: from.SrcIP()})
			if o.drop {
				sizes[i] = 0
				continue
			}
			if u, ok := o.ep.(*udpEndpoint); ok && u.std == nil {
				u.std = from
			}
			if o.rx != nil {
				o.rx.Add(uint64(sizes[i]))
			}
			eps[i] = o.ep
		}
		return n, err
	}
}

func (s *stdSockets) send(bufs [][]byte, ep *udpEndpoint) error {
	to := ep.std
	if to == nil || ep.noSrc.Load() {
		to = &conn.StdNetEndpoint{AddrPort: ep.dst}
	}
	// These sockets segment nothing, so a batch size of their own is no limit.
	for len(bufs) > 0 {
		n := min(len(bufs), s.std.BatchSize())
		if err := s.std.Send(bufs[:n], to); err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}

func (s *stdSockets) close() error              { return s.std.Close() }
func (s *stdSockets) setMark(mark uint32) error { return s.std.SetMark(mark) }
func (s *stdSockets) batchSize() int            { return s.std.BatchSize() }
