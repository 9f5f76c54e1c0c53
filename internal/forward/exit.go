package forward

import (
	"context"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// farBuffer bounds the bytes that wait until an Exit has taken them, for each
// flow of UDP; what does not fit is lost. farQueue bounds their number.
const (
	farBuffer = 256 << 10
	farQueue  = 256
)

// Exit is another place for flows to leave from than the network that this
// process is in. It is comparable: equal ones are the same place.
//
// What its methods return as errors has the values of the net package, by which
// peers are told what a target is like.
type Exit interface {
	// DialTCP connects to a target. The connection has CloseWrite, and is reset by
	// splice.Reset.
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// DialUDP makes a socket that is connected to a target.
	DialUDP(ctx context.Context, to netip.AddrPort) (Datagrams, error)
}

// Datagrams are those of one flow. One may send while another receives.
type Datagrams interface {
	// Next waits for a datagram and returns its length. io.EOF says that the
	// target does not take what was sent to it.
	Next() (int, error)
	// Receive fills b, which is as long as Next has said.
	Receive(b []byte) error
	// Send sends one, and may wait. It does not keep it.
	Send([]byte) error
	// Close ends Next and Send.
	Close() error
}

// SetExits says which peers' flows, by their tunnel addresses, leave by which
// Exit: of a peer with nil none leave at all. The flows of other peers leave from
// here. Whoever gets another exit loses its open flows, as no two of its flows may
// seem to come from different places without its knowing. Pings leave by no Exit.
// One call at a time.
func (f *Forwarder) SetExits(exits map[netip.Addr]Exit) {
	var old map[netip.Addr]Exit
	if p := f.exits.Load(); p != nil {
		old = *p
	}
	if maps.Equal(old, exits) {
		return
	}
	next := maps.Clone(exits)
	f.exits.Store(&next)
	f.closeFlows(func(peer netip.Addr, _ Proto, _ netip.AddrPort) bool {
		was, had := old[peer]
		is, has := next[peer]
		return had != has || was != is
	})
}

// exit is where a peer's flows leave from, if not from here.
func (f *Forwarder) exit(peer netip.Addr) (e Exit, elsewhere bool) {
	if p := f.exits.Load(); p != nil {
		e, elsewhere = (*p)[peer]
	}
	return e, elsewhere
}

// mayLeave reports whether a flow of that kind has a way out.
func (f *Forwarder) mayLeave(peer netip.Addr, proto Proto) bool {
	e, elsewhere := f.exit(peer)
	return !elsewhere || e != nil && proto != ICMP
}

// errNoExit says that a peer's flows may leave from nowhere at the moment.
var errNoExit = &net.OpError{Op: "dial", Err: syscall.EACCES}

// far is the end of a flow of UDP that leaves by an Exit.
type far struct {
	queue   chan []byte
	waiting atomic.Int64 // bytes
	cancel  context.CancelFunc

	mu   sync.Mutex
	last []byte // the last one sent, as far as an ICMP error quotes it
}

// offer queues a datagram, which it copies.
func (r *far) offer(b []byte) {
	if r.waiting.Add(int64(len(b))) > farBuffer {
		r.waiting.Add(-int64(len(b)))
		return
	}
	select {
	case r.queue <- append([]byte(nil), b...):
	default:
		r.waiting.Add(-int64(len(b)))
	}
}

// openFar makes a flow that leaves by an Exit, and what is to be run for it. It
// does not wait: what is sent before the flow is open waits in its queue.
func (f *Forwarder) openFar(k dgramKey, to netip.AddrPort, e Exit) (fl *dgramFlow, serve func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	fl = &dgramFlow{key: k, to: to, far: &far{queue: make(chan []byte, farQueue), cancel: cancel}}
	return fl, func() {
		defer cancel()
		f.serveFar(ctx, fl, e)
	}
}

// serveFar carries datagrams both ways until the flow ends, or its Exit says so.
func (f *Forwarder) serveFar(ctx context.Context, fl *dgramFlow, e Exit) {
	dialling, done := context.WithTimeout(ctx, dialTimeout)
	d, err := e.DialUDP(dialling, fl.to)
	done()
	if err != nil {
		if ctx.Err() == nil {
			f.tellFar(ctx, fl, err)
		}
		return
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case b := <-fl.far.queue:
				fl.far.waiting.Add(-int64(len(b)))
				fl.far.sent(b)
				if d.Send(b) != nil {
					return
				}
			}
		}
	})
	defer context.AfterFunc(ctx, func() { _ = d.Close() })()
	err = f.receiveFar(fl, d)
	refused := err == io.EOF && ctx.Err() == nil
	fl.far.cancel()
	_ = d.Close()
	sending.Wait()
	if refused {
		f.tellFar(ctx, fl, syscall.ECONNREFUSED)
	}
}

func (f *Forwarder) receiveFar(fl *dgramFlow, d Datagrams) error {
	for {
		n, err := d.Next()
		if err != nil {
			return err
		}
		if err := f.replyUDP(fl, n, d.Receive); err != nil {
			return err
		}
		fl.heard()
	}
}

func (r *far) sent(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = b[:min(len(b), 512)]
}

// tellFar tells the peer what became of the datagram that was sent last, or of the
// first one that waits. Whoever opened the flow may not have queued that one yet.
func (f *Forwarder) tellFar(ctx context.Context, fl *dgramFlow, err error) {
	f.log.Debug("flow failed", "peer", fl.key.src.Addr(), "addr", fl.to, "err", err)
	fl.far.mu.Lock()
	last := fl.far.last
	fl.far.mu.Unlock()
	if last == nil {
		select {
		case last = <-fl.far.queue:
		case <-ctx.Done():
			return // nothing was sent
		}
	}
	f.tell(fl, err, last)
}
