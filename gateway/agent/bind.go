package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/resident"
)

const (
	// batch is how many datagrams WireGuard is given at once. It keeps a buffer of
	// 64 KiB for each: the 128 of its own Bind, for each of two sockets, are 16
	// MiB, a third of what the agent may have in all.
	batch = 16
	// A train is of up to 64 datagrams (UDP_MAX_SEGMENTS), which must not exceed
	// 64 KiB with the headers of every link that they pass as one.
	trainDatagrams = 64
	trainBytes     = 65000
	// maxDatagram is what comes at once at most, one or a train.
	maxDatagram = 1 << 16
)

// bind is a conn.Bind of one socket. Where the kernel can, one call of it takes or
// gives a train: datagrams of one size, one behind the other.
type bind struct {
	mu     sync.Mutex
	socket *net.UDPConn
	trains atomic.Bool // the kernel cuts up what is sent
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
	b.trains.Store(allowTrains(c))
	r := &receiver{socket: c, buf: make([]byte, maxDatagram), control: make([]byte, controlSize), spare: resident.NewSpare()}
	return []conn.ReceiveFunc{r.receive}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// receiver gives out what comes, one datagram after another.
type receiver struct {
	socket       *net.UDPConn
	buf, control []byte
	spare        *resident.Spare
	from         *endpoint // most comes from where the last came from

	left []byte // of buf
	size int    // of each datagram in left but the last
}

func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
	if len(r.left) == 0 {
		r.spare.Lend(bufs)
		err := r.fill()
		r.spare.Take()
		if err != nil {
			return 0, err
		}
	}
	for n < len(bufs) && len(r.left) > 0 {
		m := r.left[:min(r.size, len(r.left))]
		r.left = r.left[len(m):]
		sizes[n], eps[n] = copy(bufs[n], m), r.from
		n++
	}
	return n, nil
}

// fill waits for a datagram or a train.
func (r *receiver) fill() error {
	n, controls, _, from, err := r.socket.ReadMsgUDPAddrPort(r.buf, r.control)
	if err != nil {
		return err
	}
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if r.from == nil || r.from.AddrPort != from {
		r.from = &endpoint{from}
	}
	r.left, r.size = r.buf[:n], n
	if size := trainSize(r.control[:controls]); size > 0 {
		r.size = size
	}
	return nil
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
	for len(bufs) > 0 {
		n := 1
		if b.trains.Load() {
			n = train(bufs)
		}
		err := send(c, bufs[:n], e.AddrPort)
		if n > 1 && refusesTrains(err) {
			b.trains.Store(false)
			continue
		}
		errs = errors.Join(errs, err)
		bufs = bufs[n:]
	}
	return errs
}

// train counts how many datagrams may go at once: all but the last have the size
// of the first.
func train(bufs [][]byte) int {
	size := len(bufs[0])
	n, sum := 1, size
	for ; n < min(len(bufs), trainDatagrams) && len(bufs[n]) <= size && sum+len(bufs[n]) <= trainBytes; n++ {
		sum += len(bufs[n])
		if len(bufs[n]) < size {
			return n + 1
		}
	}
	return n
}

var trainBuffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// send sends a datagram, or several as a train.
func send(c *net.UDPConn, bufs [][]byte, to netip.AddrPort) error {
	if len(bufs) == 1 {
		_, err := c.WriteToUDPAddrPort(bufs[0], to)
		return err
	}
	buf := trainBuffers.Get().(*[maxDatagram]byte)
	defer trainBuffers.Put(buf)
	all := buf[:0]
	for _, m := range bufs {
		all = append(all, m...)
	}
	_, _, err := c.WriteMsgUDPAddrPort(all, trainControl(len(bufs[0])), to)
	return err
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("parse endpoint: %w", err)
	}
	return &endpoint{a}, nil
}

func (b *bind) BatchSize() int       { return batch }
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
