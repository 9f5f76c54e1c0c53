package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
)

// maxQueued is how many datagrams of a flow may wait for a laptop. More are lost.
const maxQueued = 64

// flow is what one client sends to a UDP port. Each of its datagrams is decided.
type flow struct {
	port   *udpPort
	sock   *socket
	key    flowKey
	answer []byte       // the control message of answers
	last   atomic.Int64 // when something came, from either side; nanoseconds

	// Guarded by port.mu.
	turn   uint64 // of the client's last datagram
	closed bool
	legs   map[legKey]*leg
}

// legKey tells legs apart; the zero one is the app's. A rule that was made anew
// may have the name of another one, and another laptop.
type legKey struct {
	rule  string
	since int64
}

// leg is one way that datagrams of a flow go: to the app, or to a laptop.
type leg struct {
	flow   *flow
	key    legKey
	rule   *steer.Rule // nil: to the app
	ctx    context.Context
	cancel context.CancelCauseFunc
	in     chan []byte  // to a laptop
	app    *net.UDPConn // to the app
	tell   bool         // the port has rules

	began   time.Time
	sent    atomic.Int64 // bytes from the client
	replied atomic.Int64 // bytes to the client
}

func (f *flow) touch() { f.last.Store(time.Now().UnixNano()) }

func (f *flow) touched() time.Time { return time.Unix(0, f.last.Load()) }

// leaveLocked ends the legs to laptops that have no part in a decision.
func (f *flow) leaveLocked(d steer.Decision) {
	for _, l := range f.legs {
		if l.rule == nil || d.Steal != nil && l.key == keyOf(d.Steal) ||
			slices.ContainsFunc(d.Mirrors, func(r *steer.Rule) bool { return l.key == keyOf(r) }) {
			continue
		}
		l.endLocked()
	}
}

func keyOf(r *steer.Rule) legKey { return legKey{r.Name, r.Since.UnixNano()} }

// legLocked returns the leg to a rule's laptop, a new one if there is none. Of
// too many, the one whose client was silent longest makes room.
func (f *flow) legLocked(r *steer.Rule) *leg {
	key := keyOf(r)
	l := f.legs[key]
	if l == nil {
		if p := f.port; p.legs[key] >= MaxLaptop {
			p.silentLocked(func(f *flow) bool { return f.legs[key] != nil }).legs[key].endLocked()
		}
		l = f.newLegLocked(key, r)
		l.in = make(chan []byte, maxQueued)
		f.port.s.wg.Go(l.toLaptop)
	}
	return l
}

func (f *flow) newLegLocked(k legKey, r *steer.Rule) *leg {
	l := &leg{flow: f, key: k, rule: r, began: time.Now(), tell: true}
	l.ctx, l.cancel = context.WithCancelCause(f.port.s.ctx)
	f.legs[k] = l
	f.port.legs[k]++
	return l
}

// endLocked ends a leg, which may have ended already.
func (l *leg) endLocked() {
	l.cancel(nil)
	if l.flow.legs[l.key] != l {
		return
	}
	delete(l.flow.legs, l.key)
	if l.flow.port.legs[l.key]--; l.flow.port.legs[l.key] == 0 {
		delete(l.flow.port.legs, l.key)
	}
}

// toAppLocked sends a datagram to the app.
func (f *flow) toAppLocked(b []byte, tell bool) {
	l := f.legs[legKey{}]
	if l == nil {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.key.to))
		if err != nil {
			f.port.s.Log.Debug("datagram did not reach the app", "addr", f.key.to, "err", err)
			return
		}
		l = f.newLegLocked(legKey{}, nil)
		l.app, l.tell = conn, tell
		f.port.s.wg.Go(l.fromApp)
	}
	l.app.Write(b) // a refusal comes with the next call, and the client sends again
	l.sent.Add(int64(len(b)))
}

// closeLocked forgets the flow and ends all its legs.
func (f *flow) closeLocked() {
	delete(f.port.flows, f.key)
	f.closed = true
	for _, l := range f.legs {
		l.endLocked()
	}
}

// reply sends a datagram to the client, from the address it had sent to.
func (l *leg) reply(b []byte) {
	l.flow.touch()
	l.flow.sock.WriteMsgUDPAddrPort(b, l.flow.answer, l.flow.key.client)
	l.replied.Add(int64(len(b)))
}

// fromApp brings what the app answers.
func (l *leg) fromApp() {
	defer context.AfterFunc(l.ctx, func() { l.app.Close() })()
	defer l.app.Close()
	var refused error
	for {
		err := splice.ReadDatagram(l.app, l.reply)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		refused = err // there may be an app later
	}
	l.ended(refused)
}

// put gives a datagram to the laptop when it can take it.
func (l *leg) put(b []byte) {
	s := l.flow.port.s
	if !s.waiting.Take(len(b)) {
		return
	}
	select {
	case l.in <- slices.Clone(b):
	default:
		s.waiting.Give(len(b))
	}
}

// toLaptop sends what is put to the laptop, and brings what a laptop that answers
// instead of the app says.
func (l *leg) toLaptop() {
	err := l.converse()
	f := l.flow
	f.port.mu.Lock()
	l.endLocked()
	for left := true; left; { // nobody puts any more
		select {
		case b := <-l.in:
			f.port.s.waiting.Give(len(b))
			if l.rule.Mode == steer.Steal && l.rule.ToApp && !f.closed {
				f.toAppLocked(b, true)
			}
		default:
			left = false
		}
	}
	f.port.mu.Unlock()
	l.ended(err)
}

// converse returns nil when the leg is ended from outside.
func (l *leg) converse() error {
	s := l.flow.port.s
	conn, err := s.connectLaptop(l.ctx, l.rule)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(l.ctx, func() { conn.Close() })()

	room := 1 // what a mirror's laptop says is thrown away
	if l.rule.Mode == steer.Steal {
		room = maxDatagram
	}
	if !s.waiting.Take(room) {
		return fmt.Errorf("answers of the laptop of %s: too much waits already", l.rule.Owner)
	}
	defer s.waiting.Give(room)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for b := make([]byte, room); ; {
			n, err := conn.Read(b)
			if err != nil {
				l.cancel(err)
				return
			}
			if l.rule.Mode == steer.Steal {
				l.reply(b[:n])
			}
		}
	}()
	defer func() { <-read }()
	defer conn.Close() // before it is waited for
	for {
		select {
		case b := <-l.in:
			s.waiting.Give(len(b))
			if _, err := conn.Write(b); err != nil {
				l.cancel(err)
			}
			l.sent.Add(int64(len(b)))
		case <-l.ctx.Done():
			if err := context.Cause(l.ctx); err != context.Canceled {
				return err
			}
			return nil
		}
	}
}

// ended tells what went this way.
func (l *leg) ended(err error) {
	if !l.tell {
		return
	}
	l.flow.port.see.Seen(steer.Seen{
		Rule: l.rule, Mirror: l.rule != nil && l.rule.Mode == steer.Mirror,
		Began: l.began, Took: time.Since(l.began),
		In: l.sent.Load(), Out: l.replied.Load(), Err: err,
	})
}
