package transport

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// repeatAfter is when a laptop sends a handshake initiation again that went by UDP
// and of which nothing has come. WireGuard itself makes a new one 5 s later at the
// earliest, which is long for somebody who waits for the first byte. A gateway that
// has it already drops it as a replay; transport answers it once more.
var repeatAfter = [...]time.Duration{300 * time.Millisecond, time.Second, 2500 * time.Millisecond}

// initiation is the last handshake initiation that a laptop sent to a gateway, as
// long as nothing has come of it.
type initiation struct {
	msg   []byte // nil: none
	sent  time.Time
	times int         // that it was repeated
	timer *time.Timer // of the next
}

// initiated keeps an initiation that is about to be sent, and has it repeated.
func (g *Gateway) initiated(m []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := &g.init
	i.msg, i.sent, i.times = append(i.msg[:0], m...), time.Now(), 0
	if i.timer == nil {
		i.timer = time.AfterFunc(repeatAfter[0], g.initiateAgain)
	} else {
		i.timer.Reset(repeatAfter[0])
	}
}

// initiateAgain repeats the initiation, unless it has been answered.
func (g *Gateway) initiateAgain() {
	g.mu.Lock()
	i := &g.init
	if g.closed || i.msg == nil || i.times == len(repeatAfter) {
		g.mu.Unlock()
		return
	}
	if i.times++; i.times < len(repeatAfter) {
		i.timer.Reset(repeatAfter[i.times] - repeatAfter[i.times-1])
	}
	m := slices.Clone(i.msg)
	g.mu.Unlock()
	if a := g.active.Load(); a != nil {
		if u, udp := a.path.(*udpPath); udp { // a stream loses nothing
			_ = g.b.udp.probe(m, u.ep) // it must not wait, and may be lost as well
		}
	}
}

// waiting is the initiation that may have been lost with the path it took; nil: none.
// g.mu is held.
func (i *initiation) waiting() []byte {
	if i.msg == nil || time.Since(i.sent) >= rekeyTimeout {
		return nil
	}
	return slices.Clone(i.msg)
}

// heedHandshake is told of each message about a handshake that arrives.
func (b *Bind) heedHandshake(from conn.Endpoint, m []byte) {
	switch ep := from.(type) {
	case *Gateway:
		if m[0] != msgInitiation { // then it is a response, or a cookie to come again with
			ep.mu.Lock()
			ep.init.msg = nil
			ep.mu.Unlock()
		}
	case *udpEndpoint:
		if ep.way == nil || m[0] != msgInitiation {
			return
		}
		if r := ep.way.shake.initiation(time.Now(), m); r != nil {
			_ = b.udp.probe(r, ep)
		}
	}
}

// shake is what a gateway remembers of a handshake with the laptop at an address
// that has proved itself. The zero shake is none.
type shake struct {
	mu   sync.Mutex
	init []byte
	resp []byte // nil: none yet
	at   time.Time
}

// initiation returns the response to an initiation that has come before: it may have
// been lost.
func (s *shake) initiation(now time.Time, m []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(s.init, m) {
		if now.Sub(s.at) < rekeyTimeout {
			return s.resp
		}
		return nil
	}
	s.init, s.resp, s.at = append(s.init[:0], m...), nil, now
	return nil
}

// response keeps what the device answers.
func (s *shake) response(m []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.init != nil && s.resp == nil {
		s.resp = slices.Clone(m)
	}
}
