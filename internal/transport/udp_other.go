//go:build !linux

package transport

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/transport/fragment"
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
	var in inlet
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := fn(bufs, sizes, eps)
		for i := range max(n, 0) {
			from, ok := eps[i].(*conn.StdNetEndpoint)
			if !ok {
				sizes[i] = 0
				continue
			}
			k := originKey{from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), to: from.SrcIP()}
			m, o := in.datagram(s.b, k, bufs[i][:sizes[i]])
			if len(m) > len(bufs[i]) {
				m = nil
			}
			if sizes[i] = copy(bufs[i], m); m == nil {
				continue
			}
			if u, ok := o.ep.(*udpEndpoint); ok && u.std == nil {
				u.std = from
			}
			eps[i] = o.ep
		}
		return n, err
	}
}

// inlet is what one of the sockets' receivers knows.
type inlet struct {
	cache originCache
	asm   fragment.Assembler
}

// datagram is what the device is to see of m: m itself, the datagram of which m
// was the last piece, or nil.
func (in *inlet) datagram(b *Bind, k originKey, m []byte) ([]byte, origin) {
	whole := isWireGuard(m)
	if !whole && !b.heedUDP(k, m) {
		return nil, origin{}
	}
	o := in.cache.lookup(b, k)
	if o.drop || !whole && !o.pieces {
		return nil, origin{}
	}
	o.count(len(m))
	if whole && m[0] != msgTransport {
		b.heedHandshake(o.ep, m)
	}
	if !whole {
		if m = in.asm.Add(time.Now(), k.from, m); !isWireGuard(m) {
			return nil, origin{}
		}
	}
	return m, o
}

// probe does what the sockets can: they may wait for an instant, and leave
// fragmenting to the system.
func (s *stdSockets) probe(m []byte, ep *udpEndpoint) error {
	return s.send([][]byte{m}, ep)
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
