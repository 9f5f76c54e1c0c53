package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// What TCP has under way to a peer waits in queues in which nothing can overtake it:
// in the device, and in the socket's buffer at the other end. TCP finds out what they
// hold by losing the rest, which on a short way it does all the time. So what all
// connections to a peer have under way together is bounded here, by the sizes of
// their send buffers (docs/adr/0025).
const (
	// flightLeast is for a peer that is near, in bytes: two processors stay busy, and
	// the laptop's socket holds it (transport.Options). At 2 Gbit/s it is 4 ms.
	flightLeast = 1 << 20
	// flightPerMillisecond of round trip is what a longer way takes: 1.6 Gbit/s.
	flightPerMillisecond = 200 << 10
	// shareLeast is what a connection may have, however many there are.
	shareLeast = 32 << 10

	// Who has sent shareBytes in a flightEpoch is one of those who share.
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

// flight is what the TCP connections to one peer have under way.
type flight struct {
	users int // connections that know it

	epoch     int64
	now, last int // connections that share, in this epoch and in the one before

	rtt, rttLast time.Duration // the shortest of this memory, and of the one before; 0: none
	since        time.Duration // of clock: when this memory began
}

// join counts one more in an epoch, and returns about how many share.
func (f *flight) join(epoch int64) int {
	if f.epoch != epoch {
		f.last = f.now
		if f.epoch != epoch-1 {
			f.last = 0
		}
		f.epoch, f.now = epoch, 0
	}
	f.now++
	return max(f.now, f.last)
}

// hear takes note of a round trip, and returns the shortest.
func (f *flight) hear(rtt, now time.Duration) time.Duration {
	if now-f.since > rttMemory {
		f.since, f.rttLast, f.rtt = now, f.rtt, 0
	}
	if f.rtt == 0 || rtt < f.rtt {
		f.rtt = rtt
	}
	if f.rttLast > 0 {
		return min(f.rttLast, f.rtt)
	}
	return f.rtt
}

// share is what one of those who share may have, in bytes.
func (f *flight) share(rtt, now time.Duration) int64 {
	all := max(flightLeast, flightPerMillisecond*int64(f.hear(rtt, now))/int64(time.Millisecond))
	return max(all/int64(f.join(epochOf(now))), shareLeast)
}

// epochOf is the flightEpoch of a clock's time.
func epochOf(now time.Duration) int64 { return int64(now / flightEpoch) }

// part is a connection's in its peer's flight.
type part struct {
	mu    sync.Mutex
	epoch int64
	bytes int  // sent in this epoch
	ours  bool // the send buffer's size is: gVisor does not tune it any more

	flight *flight // under flights.mu; nil: not yet, or not any more
}

// sent is told how much has gone into the send buffer. It gives that the size of the
// connection's share, unless gVisor's own is smaller.
func (c *TCPConn) sent(n int) {
	p, now := &c.part, clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch := epochOf(now); p.epoch != epoch {
		p.epoch, p.bytes = epoch, 0
	}
	before := p.bytes
	p.bytes += n
	if before >= shareBytes || p.bytes < shareBytes {
		return
	}
	o := c.ep.SocketOptions()
	if size := c.share(now); size > 0 && (p.ours || size < o.GetSendBufferSize()) {
		o.SetSendBufferSize(min(size, maxSendBuf), !p.ours)
		p.ours = true
	}
}

// share is how much the connection may have under way; 0: nobody knows.
func (c *TCPConn) share(now time.Duration) int64 {
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
	return c.part.flight.share(info.RTT, now)
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
