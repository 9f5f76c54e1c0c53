package tunnel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/key"
)

// sorter is a tun.Device that can pass over what is for one peer and give out what
// is for others. netstack's is one.
type sorter interface {
	tun.Device
	// Sort makes Read go by whose packets those to an address are, as of says, 0 for
	// nobody, and by whether that peer has room for more and is slow to take it.
	Sort(of func(netip.Addr) uint64, credit func(peer uint64) (room, slow bool))
	// Look makes a Read that waits ask for credit again.
	Look()
}

const (
	// slowFor is how long a peer counts as slow after it was: a stream that lets a
	// batch in at once takes long over the next.
	slowFor = 100 * time.Millisecond
	// slowQueue is how much of what a slow peer takes may be under way to it, in time.
	// What is on the wire is not counted any more by then (transport).
	slowQueue = 20 * time.Millisecond
	// lostAfter is when nothing of what is under way will arrive any more: no session
	// carries it. A stream holds back for 2 s at most.
	lostAfter = 3 * time.Second
	// rateOver is about how long a slow peer's rate is averaged over.
	rateOver = 200 * time.Millisecond
)

// credits are a window for each peer, of what is under way to it inside the device.
// Peers that are prompt share limit: it is the computer that they wait for, and it
// is the same for all. One that is slow has only as much under way as it takes in
// slowQueue, at most narrow, and the others do not notice it.
type credits struct {
	limit  int    // units
	look   func() // has the TUN ask for credit
	routes atomic.Pointer[routes]
	room   chan struct{}
	done   chan struct{} // closed: wait no more

	mu     sync.Mutex
	sum    int // under way to prompt peers
	shares map[uint64]*share
}

// share is what is under way to a peer, as long as there is something, or it is
// slow.
type share struct {
	sum   int
	moved time.Time // when something last arrived, or began to be under way
	slow  time.Time // until when the peer counts as slow
	apart bool      // it does: sum is not in credits.sum

	// What arrived lately, and how long it took.
	went int
	took time.Duration
}

func newCredits(limit int, look func()) *credits {
	c := &credits{limit: limit, look: look, room: make(chan struct{}, 1), done: make(chan struct{}), shares: map[uint64]*share{}}
	c.routes.Store(&routes{})
	return c
}

// judgeLocked looks at a share in the light of now, and reports whether it is slow.
func (c *credits) judgeLocked(peer uint64, s *share, now time.Time) (slow bool) {
	if s.sum > 0 {
		switch still := now.Sub(s.moved); {
		case still > lostAfter:
			c.changeLocked(s, -s.sum)
			s.slow = time.Time{}
		case still > slowSend:
			s.slow = now.Add(slowFor)
		}
	}
	if slow = now.Before(s.slow); slow != s.apart {
		sum := s.sum
		c.changeLocked(s, -sum)
		s.apart = slow
		c.changeLocked(s, sum)
	}
	if s.sum == 0 && !slow {
		delete(c.shares, peer)
	}
	return slow
}

func (c *credits) changeLocked(s *share, n int) {
	s.sum += n
	if !s.apart {
		c.sum += n
	}
}

// allowed is how much may be under way to a peer that is slow.
func (s *share) allowed() int {
	if s.took == 0 {
		return narrow / unit
	}
	return min(int(int64(s.went)*int64(slowQueue)/int64(s.took)), narrow/unit)
}

// credit reports whether there is room for another packet to a peer, and whether
// the peer is slow. Prompt ones wait for each other, in wait.
func (c *credits) credit(peer uint64) (room, slow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shares[peer]
	if s == nil {
		return true, false
	}
	slow = c.judgeLocked(peer, s, time.Now())
	return !slow || s.sum == 0 || s.sum < s.allowed(), slow
}

// wait blocks while too much is under way to prompt peers. It finds those out that
// are not prompt.
func (c *credits) wait() {
	var timer *time.Timer
	for {
		left := slowSend
		c.mu.Lock()
		if c.sum >= c.limit {
			now := time.Now()
			for peer, s := range c.shares {
				if !c.judgeLocked(peer, s, now) && s.sum > 0 {
					left = min(left, slowSend-now.Sub(s.moved))
				}
			}
		}
		full := c.sum >= c.limit
		c.mu.Unlock()
		if !full {
			return
		}
		left += time.Millisecond // and not a moment too early
		if timer == nil {
			timer = time.NewTimer(left)
			defer timer.Stop()
		} else {
			timer.Reset(left)
		}
		select {
		case <-c.room:
		case <-timer.C:
		case <-c.done:
			return
		}
	}
}

// add counts n units that set out to a peer.
func (c *credits) add(peer uint64, n int) {
	if peer == 0 || n == 0 {
		return // it goes nowhere
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shares[peer]
	if s == nil {
		s = &share{}
		c.shares[peer] = s
	}
	if s.sum == 0 {
		s.moved = time.Now()
	}
	c.changeLocked(s, n)
}

// remove counts n units that arrived at a peer.
func (c *credits) remove(peer uint64, n int) {
	c.mu.Lock()
	s := c.shares[peer]
	if s == nil || s.sum == 0 {
		c.mu.Unlock() // it was forgotten meanwhile
		return
	}
	now := time.Now()
	waited := now.Sub(s.moved)
	n = min(n, s.sum)
	gone := n
	switch {
	case waited <= slowSend:
	case s.went == 0:
		// Its session may have begun just now. Of what was for it before, the device
		// has dropped what it could not keep, and that never arrives.
		gone, waited, s.slow = s.sum, 0, time.Time{}
	default:
		s.slow = now.Add(slowFor)
	}
	if s.took += waited; s.took > rateOver {
		s.took, s.went = s.took/2, s.went/2
	}
	s.went += n
	s.moved = now
	c.changeLocked(s, -gone)
	was := s.apart // who waits because it is slow is to know when that is over
	look := c.judgeLocked(peer, s, now) || was || gone > n
	room := c.sum < c.limit
	c.mu.Unlock()
	if look {
		c.look()
	}
	if room {
		select {
		case c.room <- struct{}{}:
		default:
		}
	}
}

// setPeers tells whose addresses are whose.
func (c *credits) setPeers(set peerSet) {
	old := c.routes.Load()
	r := newRoutes(old, set)
	c.routes.Store(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, id := range old.ids {
		if s := c.shares[id]; s != nil && r.ids[k] != id {
			c.changeLocked(s, -s.sum)
			delete(c.shares, id)
		}
	}
}

func (c *credits) of(a netip.Addr) uint64 { return c.routes.Load().of(a) }

// read counts packets that the device has read, and marks each as its peer's.
func (c *credits) read(bufs [][]byte, sizes []int, offset, mtu int) {
	var dst netip.Addr
	var peer uint64
	sum := 0
	for i, size := range sizes {
		if a := destination(bufs[i][offset : offset+size]); a != dst {
			c.add(peer, sum)
			dst, peer, sum = a, c.of(a), 0
		}
		size = padded(size, mtu)
		mark(bufs[i][offset:], size, peer)
		sum += units(size)
	}
	c.add(peer, sum)
}

// destination is where an IP packet goes; the zero Addr when it is none.
func destination(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}

// The device encrypts a packet in the buffer into which it was read, and leaves what
// is behind the message as it is: there stands whose it is.
const (
	markSize = 8
	tagSize  = 16 // of ChaCha20-Poly1305
)

// mark makes a packet of size bytes, with padding, at the start of buf its peer's.
func mark(buf []byte, size int, peer uint64) {
	if at := size + tagSize; at+markSize <= len(buf) {
		binary.LittleEndian.PutUint64(buf[at:], peer)
	}
}

// marked is the peer for whom the packet in a data message was read. What is not
// marked gives 0, or some number.
func marked(m []byte) uint64 {
	if cap(m) < len(m)+markSize {
		return 0
	}
	return binary.LittleEndian.Uint64(m[len(m) : len(m)+markSize])
}

// routes tells peers by their allowed IPs.
type routes struct {
	ids  map[key.Public]uint64
	last uint64
	by   map[netip.Prefix]uint64
	bits [2][]int // the lengths of prefixes that occur, IPv4 and IPv6, the longest first
}

// newRoutes gives each peer a number that no other has or had, or the one it had.
func newRoutes(old *routes, set peerSet) *routes {
	r := &routes{ids: make(map[key.Public]uint64, len(set)), last: old.last, by: map[netip.Prefix]uint64{}}
	for k, p := range set {
		id := old.ids[k]
		if id == 0 {
			r.last++
			id = r.last
		}
		r.ids[k] = id
		for _, ip := range p.AllowedIPs {
			r.by[ip] = id
			f := family(ip.Addr())
			if at, have := slices.BinarySearchFunc(r.bits[f], ip.Bits(), func(a, b int) int { return b - a }); !have {
				r.bits[f] = slices.Insert(r.bits[f], at, ip.Bits())
			}
		}
	}
	return r
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (r *routes) of(a netip.Addr) uint64 {
	if !a.IsValid() {
		return 0
	}
	for _, bits := range r.bits[family(a)] {
		if p, err := a.Prefix(bits); err == nil {
			if id, ok := r.by[p]; ok {
				return id
			}
		}
	}
	return 0
}
