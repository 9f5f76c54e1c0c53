package crowd

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Wire is what lies between one laptop and the cluster: a NAT with a port of
// its own on loopback for each UDP endpoint of the gateway, and the streams
// through the API server. It fails on demand, for this laptop alone.
type Wire struct {
	blocked atomic.Bool

	mu      sync.Mutex
	relays  map[netip.AddrPort]*relay // by the endpoint they lead to
	streams map[*stream]struct{}
	closed  bool
	wg      sync.WaitGroup
}

// NewWire makes a wire that carries everything.
func NewWire() *Wire {
	return &Wire{relays: map[netip.AddrPort]*relay{}, streams: map[*stream]struct{}{}}
}

// Via is the address that stands for endpoint on this wire.
func (w *Wire) Via(endpoint netip.AddrPort) (netip.AddrPort, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return netip.AddrPort{}, net.ErrClosed
	}
	r, ok := w.relays[endpoint]
	if !ok {
		inside, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return netip.AddrPort{}, err
		}
		r = &relay{w: w, to: endpoint, inside: inside}
		if err := r.rebindLocked(); err != nil {
			return netip.AddrPort{}, errors.Join(err, inside.Close())
		}
		w.relays[endpoint] = r
		w.wg.Go(r.out)
	}
	return r.inside.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

// Block drops all UDP, or carries it again.
func (w *Wire) Block(on bool) { w.blocked.Store(on) }

// Rebind gives the NAT new ports, as one does that has forgotten its mappings:
// what is sent to the old ones is lost.
func (w *Wire) Rebind() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.relays {
		_ = r.rebindLocked() // without a new port it keeps the old one
	}
}

// Cut closes the streams that are open now.
func (w *Wire) Cut() {
	for _, s := range w.open() {
		_ = s.Conn.Close()
	}
}

// Lose makes the streams that are open now swallow everything, as those do
// whose far end has gone without a word.
func (w *Wire) Lose() {
	for _, s := range w.open() {
		s.lost.Store(true)
	}
}

func (w *Wire) open() []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.streams))
}

// Stream puts a connection on the wire.
func (w *Wire) Stream(c net.Conn) net.Conn {
	s := &stream{Conn: c, w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams[s] = struct{}{}
	return s
}

// Close ends the relays and waits for them. The streams are their dialler's.
func (w *Wire) Close() error {
	w.mu.Lock()
	w.closed = true
	var errs []error
	for _, r := range w.relays {
		errs = append(errs, r.inside.Close(), r.outside.Close())
	}
	w.relays = nil
	w.mu.Unlock()
	w.wg.Wait()
	return errors.Join(errs...)
}

// relay is the NAT's entry for one endpoint. It knows one client: the laptop
// has one socket.
type relay struct {
	w      *Wire
	to     netip.AddrPort
	inside *net.UDPConn
	client atomic.Pointer[netip.AddrPort]

	outside *net.UDPConn // under w.mu
}

// maxDatagram is the largest there is.
const maxDatagram = 65535

func (r *relay) out() {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := r.inside.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		r.client.Store(&from)
		if r.w.blocked.Load() {
			continue
		}
		r.w.mu.Lock()
		c := r.outside
		r.w.mu.Unlock()
		_, _ = c.Write(b[:n]) // lost, like anything on a wire
	}
}

func (r *relay) in(c *net.UDPConn) {
	b := make([]byte, maxDatagram)
	for {
		n, err := c.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		to := r.client.Load()
		if err != nil || to == nil || r.w.blocked.Load() {
			continue // nobody listens there just now, or nobody may hear it
		}
		_, _ = r.inside.WriteToUDPAddrPort(b[:n], *to)
	}
}

// rebindLocked replaces the socket towards the gateway; w.mu is held.
func (r *relay) rebindLocked() error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.to))
	if err != nil {
		return err
	}
	if r.outside != nil {
		_ = r.outside.Close()
	}
	r.outside = c
	r.w.wg.Go(func() { r.in(c) })
	return nil
}

// stream is a connection through the API server that Cut can find.
type stream struct {
	net.Conn
	w    *Wire
	lost atomic.Bool
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if err != nil || !s.lost.Load() {
			return n, err
		}
	}
}

func (s *stream) Write(b []byte) (int, error) {
	if s.lost.Load() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func (s *stream) Close() error {
	s.w.mu.Lock()
	delete(s.w.streams, s)
	s.w.mu.Unlock()
	return s.Conn.Close()
}
