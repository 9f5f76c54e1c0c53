// Package transport carries WireGuard's datagrams: over UDP, and over byte
// streams where UDP does not get through. It sees ciphertext only and decides
// nothing about peers; whatever it delivers, WireGuard authenticates.
//
// A Bind serves both sides. On a gateway it listens for UDP and accepts
// streams. On a laptop it has a Gateway per remote gateway: one endpoint to
// WireGuard, whatever path the datagrams take.
package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/resident"
)

// Kind names a way for datagrams.
type Kind = paths.Kind

const (
	UDP       = paths.UDP
	APIServer = paths.APIServer // a stream through the Kubernetes API's port-forward
)

// Options of a Bind. The zero value is good for a laptop.
type Options struct {
	Log *slog.Logger
	// RecvBuffer and SendBuffer are the UDP sockets' buffers in bytes, 0: 2 MiB
	// and 256 KiB. What waits in them is latency, and what does not fit is lost:
	// segments that arrive one by one take twice their size, and a reader
	// without a processor leaves them there for milliseconds. 512 KiB lost 20 % of
	// an upload's datagrams on a busy computer, 2 MiB 4 %; and 2 MiB hold what a
	// stack has under way in a download (docs/adr/0025). Without CAP_NET_ADMIN the
	// kernel caps them at net.core.{r,w}mem_max.
	RecvBuffer, SendBuffer int
	// MaxStreams is how many streams ServeStreams carries at once; 0: 1024.
	MaxStreams int
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RecvBuffer == 0 {
		o.RecvBuffer = 2 << 20
	}
	if o.SendBuffer == 0 {
		o.SendBuffer = 256 << 10
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 1024
	}
	return o
}

// Bind is a conn.Bind over UDP sockets and streams. Close ends what Open began:
// the sockets and the receive functions. Streams and Gateways have lives of
// their own (ServeStreams' context, Gateway.Close), because the device closes
// and reopens its Bind as it likes.
type Bind struct {
	opt   Options
	udp   udpSockets
	inbox chan *batch     // from all streams
	spare *resident.Spare // the buffers for what comes from inbox

	// carry is the batch whose frames did not fit into the last receive.
	carryMu sync.Mutex
	carry   *batch

	answers answers // the gateway's side of probing
	puncher puncher
	stun    stunWaits

	epoch    atomic.Uint64 // counts changes to what origin tells
	streamID atomic.Uint64
	pieceID  atomic.Uint32
	moved    atomic.Pointer[func()]
	closed   atomic.Pointer[chan struct{}] // of the present Open; nil: not open

	mu       sync.RWMutex
	gateways map[netip.AddrPort]*Gateway // by synthetic address
	byKey    map[probe.ID][]*Gateway
	udpPaths map[netip.AddrPort][]*udpPath // by the gateway's UDP address, the newest Gateway's last
	nextGate uint64
}

var _ conn.Bind = (*Bind)(nil)

// udpSockets is the UDP half of a Bind: our own on Linux, wireguard-go's
// elsewhere. Receive functions return net.ErrClosed after close.
type udpSockets interface {
	open(port uint16) (fns []conn.ReceiveFunc, actual uint16, err error)
	close() error
	send(bufs [][]byte, ep *udpEndpoint) error
	// probe sends one datagram that is not WireGuard's. It does not wait, and
	// asks routers not to fragment it.
	probe(m []byte, ep *udpEndpoint) error
	setMark(mark uint32) error
	batchSize() int
}

// NewBind makes a Bind; the device opens it.
func NewBind(opt Options) *Bind {
	b := &Bind{
		opt:      opt.withDefaults(),
		inbox:    make(chan *batch),
		spare:    resident.NewSpare(),
		gateways: map[netip.AddrPort]*Gateway{},
		byKey:    map[probe.ID][]*Gateway{},
		udpPaths: map[netip.AddrPort][]*udpPath{},
	}
	b.answers = answers{b: b, udp: map[netip.AddrPort]*udpWay{}}
	b.puncher = puncher{b: b, wishes: map[probe.ID]*wish{}}
	b.udp = newUDP(b)
	return b
}

// Open implements conn.Bind.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	closed := make(chan struct{})
	if !b.closed.CompareAndSwap(nil, &closed) {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	fns, actual, err := b.udp.open(port)
	if err != nil {
		b.closed.Store(nil)
		return nil, 0, fmt.Errorf("open UDP port %d: %w", port, err)
	}
	fns = append(fns, func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		return b.receiveStreams(closed, bufs, sizes, eps)
	})
	b.puncher.start()
	return fns, actual, nil
}

// Close implements conn.Bind. A Bind that is not open stays so.
func (b *Bind) Close() error {
	closed := b.closed.Swap(nil)
	if closed == nil {
		return nil
	}
	close(*closed)
	b.puncher.wait.Wait()
	return b.udp.close()
}

// SetMark implements conn.Bind for the UDP sockets; streams are somebody
// else's connections.
func (b *Bind) SetMark(mark uint32) error { return b.udp.setMark(mark) }

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int { return b.udp.batchSize() }

// ParseEndpoint implements conn.Bind: "ip:port", or what a Gateway's Endpoint
// returned.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	if gatewayPrefix.Contains(ap.Addr()) || streamPrefix.Contains(ap.Addr()) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		if g := b.gateways[ap]; g != nil {
			return g, nil
		}
		return nil, fmt.Errorf("endpoint %s: no such gateway", s)
	}
	return b.newUDPEndpoint(ap, netip.Addr{}), nil
}

func (b *Bind) newUDPEndpoint(dst netip.AddrPort, src netip.Addr) *udpEndpoint {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	return &udpEndpoint{address: address{dst}, src: src}
}

// Send implements conn.Bind. On a stream it holds the caller back for as long as
// the stream moves, see carrier.send.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	closed := b.closed.Load()
	if closed == nil {
		return net.ErrClosed
	}
	switch ep := ep.(type) {
	case *udpEndpoint:
		n, limit := longest(bufs), 0
		if n > paths.MinDatagram {
			limit = b.answers.limit(ep.dst)
		}
		if ep.way != nil {
			ep.way.sends(time.Now(), bufs, n)
		}
		sent, err := b.sendUDP(bufs, ep, n, limit)
		if ep.way != nil {
			ep.way.sent.Add(sent)
		}
		return err
	case *streamEndpoint:
		ep.c.send(bufs, *closed)
		return nil
	case *Gateway:
		return ep.send(bufs, *closed)
	}
	return conn.ErrWrongEndpointType
}

// OnMove makes the Bind call f, from a goroutine of its own, whenever a Gateway
// begins to use another path or another stream. tunnel.New sets it. A nil f
// ends it.
func (b *Bind) OnMove(f func()) {
	if f == nil {
		b.moved.Store(nil)
		return
	}
	b.moved.Store(&f)
}

func (b *Bind) notifyMoved() {
	if f := b.moved.Load(); f != nil {
		(*f)()
	}
}

// origin decides whom a UDP datagram is from. A Bind with Gateways is a
// laptop's: it takes datagrams only from addresses it sends to, and gives them
// to WireGuard as the Gateway's, so that roaming never replaces the Gateway by
// a plain address. A Bind without is a gateway's and listens to everybody.
func (b *Bind) origin(k originKey) origin {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if ps := b.udpPaths[k.from]; len(ps) > 0 {
		p := ps[len(ps)-1]
		return origin{ep: p.g, rx: &p.rx, pieces: true}
	}
	if len(b.gateways) > 0 {
		return origin{drop: true}
	}
	ep := b.newUDPEndpoint(k.from, k.to)
	if ep.way = b.answers.way(k.from); ep.way == nil {
		return origin{ep: ep}
	}
	return origin{ep: ep, rx: &ep.way.received, pieces: true}
}

// batch is a run of whole frames on its way from a stream to the device. The
// stream does not read on until done is signalled: that is the back-pressure.
type batch struct {
	frames []byte
	from   conn.Endpoint
	done   chan struct{} // capacity 1
	begun  *rate.Limiter // of handshakes
}

// A laptop begins a handshake every two minutes, and every five seconds while
// nobody answers. A stream that begins more than these is not shown to the device
// with the rest: it would take itself for overloaded, and from then on have
// everybody's first handshake wait for a cookie and its repetition, five seconds.
const (
	handshakesPerSecond = 20
	handshakeBurst      = 20
)

func newBatch(from conn.Endpoint) *batch {
	return &batch{from: from, done: make(chan struct{}, 1), begun: rate.NewLimiter(handshakesPerSecond, handshakeBurst)}
}

// passes says whether the device is to see the message.
func (b *batch) passes(m []byte) bool {
	switch m[0] {
	case msgControl:
		return false
	case msgInitiation:
		return b.begun.Allow()
	}
	return true
}

// receiveStreams is the conn.ReceiveFunc of all streams together.
func (b *Bind) receiveStreams(closed <-chan struct{}, bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	b.carryMu.Lock()
	defer b.carryMu.Unlock()
	select {
	case <-closed:
		return 0, net.ErrClosed
	default:
	}
	if b.carry == nil {
		b.spare.Lend(bufs)
		select {
		case b.carry = <-b.inbox:
		case <-closed:
		}
		b.spare.Take()
		if b.carry == nil {
			return 0, net.ErrClosed
		}
	}
	n := 0
	for n < len(bufs) && len(b.carry.frames) > 0 {
		m, rest, _, _ := nextFrame(b.carry.frames)
		b.carry.frames = rest
		if len(m) > len(bufs[n]) || !b.carry.passes(m) {
			continue
		}
		if m[0] != msgTransport {
			b.heedHandshake(b.carry.from, m)
		}
		sizes[n], eps[n] = copy(bufs[n], m), b.carry.from
		n++
	}
	if len(b.carry.frames) == 0 {
		b.carry.done <- struct{}{}
		b.carry = nil
	}
	return n, nil
}

// errDown ends waits of a Bind that closes.
var errDown = errors.New("transport: closed")
