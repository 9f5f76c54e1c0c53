package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// What TCP has under way between two peers waits in queues in which nothing can
// overtake it: in the device, and in the socket's buffer at the other end. TCP finds
// out what they hold by losing the rest, which on a short way it does all the time. So
// what all connections with a peer have under way together is bounded here, one
// direction by the sizes of their send buffers, the other by what their receive
// buffers let the peer send (docs/adr/0025).
const (
	// flightLeast is for a peer that is near, in bytes: two processors stay busy, and
	// the laptop's socket holds it (transport.Options). At 2 Gbit/s it is 4 ms.
	flightLeast = 1 << 20
	// flightPerMillisecond of round trip is what a longer way takes: 1.6 Gbit/s.
	flightPerMillisecond = 200 << 10
	// shareLeast is what a connection may have, however many there are.
	shareLeast = 32 << 10
	// windowPart is of how many bytes of a receive buffer gVisor offers one: the rest
	// is for what it takes to keep them (its rcvAdvWndScale).
	windowPart = 2

	// Who has moved shareBytes in a flightEpoch is one of those who share.
	flightEpoch = 100 * time.Millisecond
	shareBytes  = 64 << 10
	// rttMemory is for how long the shortest round trip is remembered, at least:
	// later ones may have waited in a queue, or the peer may have moved.
	rttMemory = time.Minute
)

// flights are those to all peers.
type flights struct {
	mu sync.Mutex
	to map[netip.Addr]*flight
}

// flight is what the TCP connections with one peer have under way.
type flight struct {
	users   int // connections that know it
	out, in sharers

	rtt, rttLast time.Duration // the shortest of this memory, and of the one before; 0: none
	since        time.Duration // of clock: when this memory began
}

// sharers counts the connections that share a direction.
type sharers struct {
	epoch     int64
	now, last int // in this epoch and in the one before
}

// join counts one more in an epoch, and returns about how many share.
func (s *sharers) join(epoch int64) int {
	if s.epoch != epoch {
		s.last = s.now
		if s.epoch != epoch-1 {
			s.last = 0
		}
		s.epoch, s.now = epoch, 0
	}
	s.now++
	return max(s.now, s.last)
}

// hear takes note of a round trip.
func (f *flight) hear(rtt, now time.Duration) {
	if now-f.since > rttMemory {
		f.since, f.rttLast, f.rtt = now, f.rtt, 0
	}
	if f.rtt == 0 || rtt < f.rtt {
		f.rtt = rtt
	}
}

// shortest is the shortest round trip there was lately, or else the one given.
func (f *flight) shortest(rtt, now time.Duration) time.Duration {
	known := rtt
	if f.rtt > 0 && now-f.since <= 2*rttMemory {
		known = f.rtt
	}
	if f.rttLast > 0 && now-f.since <= rttMemory {
		known = min(known, f.rttLast)
	}
	return known
}

// share is what one of those who share a direction may have, in bytes. rtt is the
// connection's own round trip.
func (f *flight) share(s *sharers, rtt, now time.Duration) int64 {
	all := max(flightLeast, flightPerMillisecond*int64(f.shortest(rtt, now))/int64(time.Millisecond))
	return max(all/int64(s.join(epochOf(now))), shareLeast)
}

// epochOf is the flightEpoch of a clock's time.
func epochOf(now time.Duration) int64 { return int64(now / flightEpoch) }

// part is a connection's in its peer's flight.
type part struct {
	out, in portion

	// Under flights.mu.
	flight *flight       // nil: not yet, or not any more
	rtt    time.Duration // that was heard last: one that stays says nothing new
}

// portion is one direction of a connection.
type portion struct {
	mu    sync.Mutex
	epoch int64
	bytes int  // moved in this epoch
	ours  bool // the buffer's size is: gVisor does not tune it any more
}

// shares is told that n more bytes were moved, and reports, once in an epoch, that
// the connection is one of those that share. p.mu is held.
func (p *portion) shares(n int, now time.Duration) bool {
	if epoch := epochOf(now); p.epoch != epoch {
		p.epoch, p.bytes = epoch, 0
	}
	before := p.bytes
	p.bytes += n
	return before < shareBytes && p.bytes >= shareBytes
}

// sent is told how much has gone into the send buffer. It gives that the size of the
// connection's share, unless gVisor's own is smaller.
func (c *TCPConn) sent(n int) {
	p, now := &c.part.out, clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shares(n, now) {
		return
	}
	o := c.ep.SocketOptions()
	if size := c.share(now, func(f *flight) *sharers { return &f.out }); size > 0 && (p.ours || size < o.GetSendBufferSize()) {
		o.SetSendBufferSize(min(size, maxSendBuf), !p.ours)
		p.ours = true
	}
}

// received is told how much was taken from the receive buffer. It gives that what has
// gVisor offer the connection's share as window, unless its own is smaller.
func (c *TCPConn) received(n int) {
	c.ep.ModerateRecvBuf(n)
	p, now := &c.part.in, clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shares(n, now) {
		return
	}
	o := c.ep.SocketOptions()
	size := windowPart * c.share(now, func(f *flight) *sharers { return &f.in })
	if size > 0 && (p.ours || size < o.GetReceiveBufferSize()) {
		o.SetReceiveBufferSize(min(size, maxReceiveBuf), true)
		p.ours = true
	}
}

// share is how much the connection may have under way in a direction; 0: nobody
// knows.
func (c *TCPConn) share(now time.Duration, of func(*flight) *sharers) int64 {
	var info tcpip.TCPInfoOption
	if c.ep.GetSockOpt(&info); info.RTT == 0 {
		return 0
	}
	fs := &c.stack.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if c.closed.Load() {
		return 0 // and has left
	}
	if c.part.flight == nil {
		c.part.flight = fs.joinLocked(c.remote.Addr())
	}
	f := c.part.flight
	if info.RTT != c.part.rtt {
		c.part.rtt = info.RTT
		f.hear(info.RTT, now)
	}
	return f.share(of(f), info.RTT, now)
}

func (fs *flights) joinLocked(a netip.Addr) *flight {
	f := fs.to[a]
	if f == nil {
		f = &flight{}
		fs.to[a] = f
	}
	f.users++
	return f
}

// leave is for a connection that is closed.
func (fs *flights) leave(c *TCPConn) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := c.part.flight
	if f == nil {
		return
	}
	c.part.flight = nil
	if f.users--; f.users == 0 {
		delete(fs.to, c.remote.Addr())
	}
}
