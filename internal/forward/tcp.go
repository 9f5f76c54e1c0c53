package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/splice"
)

// keepAlive finds targets that vanished, as netstack's finds peers: half-open
// connections are gone after two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// tcpKey names a connection by what the peer sends.
type tcpKey struct{ src, dst netip.AddrPort }

// tcpFlow is one connection. Its life:
//
//	asked --> dialling --target accepted--> accepting --peer answered--> open --both done--> gone
//	  |          |                             |                          |
//	  +--stale   +--refused, silent, cancel----+--peer gone---------------+--error--> reset, gone
//
// It is asked for where packets are received and dialled in a goroutine that
// the stack starts; when the stack knows the connection already, it starts
// none, and what was asked goes stale.
type tcpFlow struct {
	key   tcpKey
	to    netip.AddrPort // the target, where key.dst may stand for it
	since time.Time
	syn   []byte // what an ICMP error has to quote
	acct  *account
	gone  chan struct{} // closed by interrupt; nil where nothing waits for it

	mu          sync.Mutex
	dialling    bool
	cancel      context.CancelFunc // ends the dial
	conn        *netstack.TCPConn  // nil before the peer has answered
	sock        net.Conn           // a *net.TCPConn, or an Exit's
	interrupted bool
}

// interrupt makes whoever serves the flow reset it.
func (fl *tcpFlow) interrupt() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if !fl.interrupted && fl.gone != nil {
		close(fl.gone)
	}
	fl.interrupted = true
	if fl.cancel != nil {
		fl.cancel()
	}
	if fl.conn != nil {
		fl.conn.Interrupt()
		fl.sock.SetDeadline(time.Unix(1, 0))
	}
}

// attach gives the flow its two ends. It reports false when it was
// interrupted before.
func (fl *tcpFlow) attach(conn *netstack.TCPConn, sock net.Conn) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.conn, fl.sock, fl.cancel = conn, sock, nil
	return !fl.interrupted
}

// tcpTable knows the flows.
type tcpTable struct {
	mu    sync.Mutex
	flows map[tcpKey]*tcpFlow
}

func (t *tcpTable) init() { t.flows = map[tcpKey]*tcpFlow{} }

func (t *tcpTable) all() []*tcpFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*tcpFlow, 0, len(t.flows))
	for _, fl := range t.flows {
		all = append(all, fl)
	}
	return all
}

// ask notes that a peer wants to open a connection to a target. Known ones are
// asked for again when the peer repeats itself. It returns why there is no room
// for it, if there is none.
func (t *tcpTable) ask(k tcpKey, to netip.AddrPort, syn []byte, a *account, l Limits) (*tcpFlow, Refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if fl := t.flows[k]; fl != nil {
		return fl, admitted
	}
	if why := a.connect(l); why != admitted {
		return nil, why
	}
	fl := &tcpFlow{key: k, to: to, since: time.Now(), syn: append([]byte(nil), syn...), acct: a}
	if l.Bytes > 0 {
		fl.gone = make(chan struct{})
	}
	t.flows[k] = fl
	return fl, admitted
}

// newest are up to n flows of an account that were asked for last.
func (t *tcpTable) newest(a *account, n int) []*tcpFlow {
	var own []*tcpFlow
	for _, fl := range t.all() {
		if fl.acct == a {
			own = append(own, fl)
		}
	}
	slices.SortFunc(own, func(a, b *tcpFlow) int { return b.since.Compare(a.since) })
	return own[:min(n, len(own))]
}

func (t *tcpTable) known(k tcpKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flows[k] != nil
}

// take gives what was asked for to the goroutine that dials it.
func (t *tcpTable) take(k tcpKey, cancel context.CancelFunc) *tcpFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	fl := t.flows[k]
	if fl == nil {
		return nil // gone stale, or over the limit: the peer will repeat it
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.dialling || fl.interrupted {
		return nil
	}
	fl.dialling, fl.cancel = true, cancel
	return fl
}

// sweep forgets what was asked for and never dialled.
func (t *tcpTable) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, fl := range t.flows {
		fl.mu.Lock()
		stale := !fl.dialling && (fl.interrupted || now.Sub(fl.since) > time.Second)
		fl.mu.Unlock()
		if stale {
			delete(t.flows, k)
			fl.acct.tcp.Add(-1)
			fl.dialled()
		}
	}
}

// dialled ends the flow's share of what its owner is opening.
func (fl *tcpFlow) dialled() { fl.acct.opening.Add(-1) }

func (t *tcpTable) remove(fl *tcpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flows, fl.key)
	fl.acct.tcp.Add(-1)
}

// syn decides about a packet that opens a connection, on the receive path.
func (f *Forwarder) syn(p *packet.Packet) bool {
	src, dst, ok := p.Ports()
	if !ok {
		return false
	}
	k := tcpKey{src, dst}
	if f.tcp.known(k) {
		return true // repeated: the stack knows what to do
	}
	a := f.accounts.of(src.Addr())
	if why := f.mayBegin(a); why != admitted {
		f.refused(a, why) // without a word: the peer repeats it in a second
		return false
	}
	to := f.real(src.Addr(), dst)
	if !f.allow(src.Addr(), TCP, to) {
		f.deny(p.Data, src.Addr(), to)
		return false
	}
	fl, why := f.tcp.ask(k, to, p.Data[:p.L4+20], a, f.accounts.limits)
	if why != admitted {
		f.refused(a, why)
		if why == OverConnections { // which a second does not mend
			f.answer(p.Data, packet.Prohibited)
		}
		return false
	}
	if f.real(src.Addr(), dst) != fl.to || !f.allow(src.Addr(), TCP, fl.to) {
		fl.interrupt() // SetMaps or Recheck came between: the peer will repeat it
		return false
	}
	return true
}

// mayBegin reports whether a flow may begin at all, before anybody has looked at
// where it leads.
func (f *Forwarder) mayBegin(a *account) Refusal {
	switch {
	case f.full.Load():
		return OverMemory
	case !a.begin(time.Now()):
		return OverRate
	}
	return admitted
}

// request opens a connection: target first, then peer. Its goroutine ends
// there, because dialling has grown its stack more than serving ever needs,
// and a flow may live for days.
func (f *Forwarder) request(r *netstack.TCPRequest) {
	if !f.begin() {
		r.Reset()
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout+acceptTimeout)
	defer cancel()
	fl := f.tcp.take(tcpKey{r.Src, r.Dst}, cancel)
	if fl == nil {
		r.Drop()
		f.wg.Done()
		return
	}
	sock, err := f.dial(ctx, fl)
	if err != nil {
		fl.dialled()
		f.refuse(r, fl, err)
		f.tcp.remove(fl)
		f.wg.Done()
		return
	}
	f.counters.tcp.Add(1)
	fl.syn = nil
	conn, err := r.Accept(ctx)
	fl.dialled()
	switch {
	case err != nil: // the peer went away meanwhile
		splice.Reset(sock)
		f.done(fl)
	case !fl.attach(conn, sock):
		conn.Reset()
		splice.Reset(sock)
		f.done(fl)
	default:
		f.serve(fl, conn, sock)
	}
}

// done forgets a flow whose ends are closed.
func (f *Forwarder) done(fl *tcpFlow) {
	f.tcp.remove(fl)
	f.free()
	f.wg.Done()
}

// errFull is why no socket was opened.
var errFull = errors.New("too many flows")

// dial connects to a target, from here or from where the peer's flows leave.
func (f *Forwarder) dial(ctx context.Context, fl *tcpFlow) (c net.Conn, err error) {
	if !f.reserve(fl.acct) {
		return nil, errFull
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	exit, elsewhere := f.exit(fl.key.src.Addr())
	switch {
	case !elsewhere:
		d := net.Dialer{KeepAliveConfig: keepAlive}
		c, err = d.DialContext(ctx, "tcp", f.rewrite(TCP, fl.to).String())
	case exit == nil:
		err = errNoExit
	default:
		c, err = exit.DialTCP(ctx, fl.to)
	}
	if err != nil {
		f.free()
		return nil, err
	}
	return c, nil
}

// refuse tells the peer what came of the dial.
func (f *Forwarder) refuse(r *netstack.TCPRequest, fl *tcpFlow, err error) {
	f.log.Debug("flow failed", "peer", r.Src.Addr(), "addr", fl.to, "err", err)
	if why, ok := unreachable(err); ok {
		f.counters.failed.Add(1)
		f.answer(fl.syn, why)
		r.Drop()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		f.counters.refused.Add(1)
		r.Reset()
		return
	}
	if !errors.Is(err, errFull) { // which is counted as that
		f.counters.failed.Add(1)
	}
	r.Drop()
}

// unreachable translates what the kernel says about a target.
func unreachable(err error) (packet.Unreachable, bool) {
	switch {
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return packet.NoHost, true
	case errors.Is(err, syscall.ENETUNREACH):
		return packet.NoNetwork, true
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return packet.Prohibited, true
	case errors.Is(err, syscall.ENOPROTOOPT):
		return packet.NoProtocol, true
	}
	return 0, false
}
