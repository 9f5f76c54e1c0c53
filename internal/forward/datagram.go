package forward

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

const (
	sweepEvery = 5 * time.Second
	// A flow nobody has answered is forgotten sooner (RFC 4787 wants two
	// minutes of a NAT for strangers; pods behind Services come with conntrack's
	// 30 s and 120 s).
	idleOneWay = 30 * time.Second
	idleTwoWay = 60 * time.Second
	// evictIdle is how long the idlest flow of a peer at its limit must have
	// been silent to make room for a new one.
	evictIdle = 5 * time.Second
)

// dgramKey names a UDP flow or a ping by what the peer sends. A ping has its
// identifier as source port and no destination port.
type dgramKey struct {
	src, dst netip.AddrPort
	proto    Proto
}

// dgramFlow is one kernel socket, connected to the target, or what stands for it
// when the flow leaves by an Exit, and what is needed to build the packets of its
// answers.
type dgramFlow struct {
	key  dgramKey
	to   netip.AddrPort // the target, where key.dst may stand for it
	raw  syscall.RawConn
	acct *account

	file     *os.File
	far      *far         // instead of raw and file
	last     atomic.Int64 // seconds of clock at the last packet
	answered atomic.Bool
}

func (fl *dgramFlow) close() {
	if fl.far != nil {
		fl.far.cancel()
		return
	}
	fl.file.Close()
}

// heard notes that the target has answered.
func (fl *dgramFlow) heard() {
	fl.last.Store(clock(time.Now()))
	fl.answered.Store(true)
}

func (fl *dgramFlow) idle(now time.Time) time.Duration {
	return time.Duration(clock(now)-fl.last.Load()) * time.Second
}

var started = time.Now()

// clock is a moment in seconds since the process began, which nobody sets back.
func clock(now time.Time) int64 { return int64(now.Sub(started) / time.Second) }

// dgramTable knows the flows.
type dgramTable struct {
	mu    sync.RWMutex
	flows map[dgramKey]*dgramFlow
}

func (t *dgramTable) init() { t.flows = map[dgramKey]*dgramFlow{} }

func (t *dgramTable) get(k dgramKey) *dgramFlow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.flows[k]
}

func (t *dgramTable) all() []*dgramFlow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*dgramFlow, 0, len(t.flows))
	for _, fl := range t.flows {
		all = append(all, fl)
	}
	return all
}

// room makes sure that the owner may have one more flow. victim, if any, is
// the flow to end for it.
func (t *dgramTable) room(a *account, l Limits, now time.Time) (victim *dgramFlow, ok bool) {
	if a.datagrams.Load() < int64(l.Datagrams) {
		return nil, true
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, fl := range t.flows {
		if fl.acct == a && (victim == nil || fl.last.Load() < victim.last.Load()) {
			victim = fl
		}
	}
	return victim, victim != nil && victim.idle(now) >= evictIdle
}

func (t *dgramTable) add(fl *dgramFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[fl.key] = fl
	fl.acct.datagrams.Add(1)
}

// remove reports whether the flow was still there.
func (t *dgramTable) remove(fl *dgramFlow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[fl.key] != fl {
		return false
	}
	delete(t.flows, fl.key)
	fl.acct.datagrams.Add(-1)
	return true
}

// sweep ends flows that have been silent.
func (f *Forwarder) sweep(now time.Time) {
	for _, fl := range f.dgram.all() {
		limit := idleOneWay
		if fl.answered.Load() && fl.key.proto == UDP {
			limit = idleTwoWay
		}
		if fl.idle(now) > limit {
			f.end(fl)
		}
	}
}

// end closes the flow's socket, which ends its reader.
func (f *Forwarder) end(fl *dgramFlow) {
	if f.dgram.remove(fl) {
		fl.close()
		f.free()
	}
}

// datagrams takes a batch of packets from one peer that are not TCP. Runs of
// one flow, which is what bulk looks like, go to the kernel in one call.
func (f *Forwarder) datagrams(batch []packet.Packet) {
	s := senders.Get().(*sender)
	defer senders.Put(s)
	var fl *dgramFlow
	for i := range batch {
		p := &batch[i]
		k, payload, ok := classify(p)
		if !ok {
			if !p.Err() {
				f.answer(p.Data, packet.NoProtocol)
			}
			continue
		}
		if fl == nil || fl.key != k {
			f.flush(fl, s)
			if fl = f.flow(k, p); fl == nil {
				continue
			}
		} else if s.full() {
			f.flush(fl, s)
		}
		s.add(payload)
	}
	f.flush(fl, s)
}

// classify says which flow p belongs to and what of it the kernel is given:
// the payload of UDP, the whole ICMP message of a ping.
func classify(p *packet.Packet) (k dgramKey, payload []byte, ok bool) {
	if p.Proto == packet.UDP {
		src, dst, _ := p.Ports()
		payload, ok = p.UDP()
		return dgramKey{src, dst, UDP}, payload, ok && dst.Port() != 0
	}
	id, _, _, ok := p.Echo()
	return dgramKey{netip.AddrPortFrom(p.Src, id), netip.AddrPortFrom(p.Dst, 0), ICMP}, p.Payload(), ok
}

// flow finds the flow of p or opens it; nil means that p has been dealt with.
func (f *Forwarder) flow(k dgramKey, p *packet.Packet) *dgramFlow {
	if fl := f.dgram.get(k); fl != nil {
		return fl
	}
	a := f.accounts.of(k.src.Addr())
	if why := f.mayBegin(a); why != admitted {
		f.refused(a, why)
		return nil
	}
	to := f.real(k.src.Addr(), k.dst)
	if !f.allow(k.src.Addr(), k.proto, to) {
		f.deny(p.Data, k.src.Addr(), to)
		return nil
	}
	victim, ok := f.dgram.room(a, f.accounts.limits, time.Now())
	if !ok {
		f.refused(a, OverDatagrams)
		return nil
	}
	if victim != nil {
		f.end(victim)
	}
	if !f.reserve(a) {
		return nil
	}
	fl, err := f.openFlow(k, to, a)
	if err != nil {
		f.free()
		f.noFlow(k, to, p, err)
		return nil
	}
	return fl
}

// noFlow answers a packet whose socket could not be had.
func (f *Forwarder) noFlow(k dgramKey, to netip.AddrPort, p *packet.Packet, err error) {
	f.counters.failed.Add(1)
	f.log.Debug("flow failed", "peer", k.src.Addr(), "addr", to, "err", err)
	if k.proto == ICMP && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
		f.noPing.Do(func() {
			f.log.Warn("cannot ping: the sysctl net.ipv4.ping_group_range does not include this process's group", "err", err)
		})
		f.answer(p.Data, packet.Prohibited)
		return
	}
	if why, ok := unreachable(err); ok {
		f.answer(p.Data, why)
	}
}

func (f *Forwarder) openFlow(k dgramKey, to netip.AddrPort, a *account) (*dgramFlow, error) {
	if !f.begin() {
		return nil, os.ErrClosed
	}
	var fl *dgramFlow
	var serve func()
	var err error
	exit, elsewhere := f.exit(k.src.Addr())
	switch {
	case !elsewhere:
		fl, serve, err = f.openNear(k, to)
	case exit == nil:
		err = errNoExit
	default:
		fl, serve = f.openFar(k, to, exit)
	}
	if err != nil {
		f.wg.Done()
		return nil, err
	}
	fl.acct = a
	fl.last.Store(clock(time.Now()))
	f.dgram.add(fl)
	if k.proto == UDP {
		f.counters.udp.Add(1)
	} else {
		f.counters.icmp.Add(1)
	}
	if e, other := f.exit(k.src.Addr()); e != exit || other != elsewhere || f.real(k.src.Addr(), k.dst) != to || !f.allow(k.src.Addr(), k.proto, to) {
		f.end(fl) // SetExits, SetMaps or Recheck came between
	}
	go func() {
		defer f.wg.Done()
		serve()
		f.end(fl)
	}()
	return fl, nil
}

// openNear makes a flow that leaves from here, and what is to be run for it.
func (f *Forwarder) openNear(k dgramKey, to netip.AddrPort) (fl *dgramFlow, serve func(), err error) {
	file, raw, err := openSocket(k.proto, f.rewrite(k.proto, to))
	if err != nil {
		return nil, nil, err
	}
	fl = &dgramFlow{key: k, to: to, file: file, raw: raw}
	return fl, func() { f.receive(fl) }, nil
}

// flush sends what s holds on the flow. Datagrams for which the kernel has no
// room are lost, as on any wire.
func (f *Forwarder) flush(fl *dgramFlow, s *sender) {
	if s.n == 0 {
		return
	}
	fl.last.Store(clock(time.Now()))
	if !fits(&fl.acct.up, fl.acct.upward, s.bytes) {
		s.clear()
		return
	}
	f.counters.up.Add(uint64(s.bytes))
	if fl.far != nil {
		s.hand(fl.far.offer)
		return
	}
	if s.send(fl.raw) {
		f.fail(fl)
	}
}

// receive carries answers back until the flow ends.
func (f *Forwarder) receive(fl *dgramFlow) {
	for {
		r, err := awaitBatch(fl.raw)
		if r == nil {
			return // closed
		}
		for i := range r.n {
			f.reply(fl, r.message(i))
		}
		if r.n > 0 {
			fl.heard()
		}
		receivers.Put(r)
		if err != nil {
			f.fail(fl)
		}
	}
}

// reply sends one message from the target to the peer.
func (f *Forwarder) reply(fl *dgramFlow, b []byte) {
	hl := packet.HeaderIP(fl.key.src.Addr())
	if fl.key.proto == UDP {
		_ = f.replyUDP(fl, len(b), func(to []byte) error {
			copy(to, b)
			return nil
		})
		return
	}
	if len(b) < packet.HeaderEcho || hl+len(b) > packet.MaxSize {
		return
	}
	if !fits(&fl.acct.down, fl.acct.downward, len(b)-packet.HeaderEcho) {
		return
	}
	out := netstack.NewBuffer(hl + len(b))
	copy(out.B[hl:], b)
	seq := uint16(b[6])<<8 | uint16(b[7])
	packet.PutEchoReply(out.B, fl.key.dst.Addr(), fl.key.src.Addr(), fl.key.src.Port(), seq)
	f.counters.down.Add(uint64(len(b) - packet.HeaderEcho))
	f.stack.Send(out, true)
}

// replyUDP sends a datagram of n bytes, which fill writes, from the target to the
// peer; one that is too large for a packet, or beyond what the owner may have, is
// lost. The error is fill's.
func (f *Forwarder) replyUDP(fl *dgramFlow, n int, fill func([]byte) error) error {
	head := packet.HeaderIP(fl.key.src.Addr()) + packet.HeaderUDP
	if head+n > packet.MaxSize || !fits(&fl.acct.down, fl.acct.downward, n) {
		return fill(make([]byte, n))
	}
	out := netstack.NewBuffer(head + n)
	if err := fill(out.B[head:]); err != nil {
		out.Free()
		return err
	}
	packet.PutUDP(out.B, fl.key.dst, fl.key.src)
	f.counters.down.Add(uint64(n))
	f.stack.Send(out, true)
	return nil
}

// fail tells the peer what the network said about its packets.
func (f *Forwarder) fail(fl *dgramFlow) {
	drainErrors(fl.raw, func(err syscall.Errno, sent []byte) { f.tell(fl, err, sent) })
}

// tell tells the peer what became of a message that it sent.
func (f *Forwarder) tell(fl *dgramFlow, err error, sent []byte) {
	why, ok := packet.NoPort, errors.Is(err, syscall.ECONNREFUSED)
	if ok {
		f.counters.refused.Add(1)
	} else if why, ok = unreachable(err); ok {
		f.counters.failed.Add(1)
	}
	if ok {
		f.answer(fl.quote(sent), why)
	}
}

// quote rebuilds the packet in which the peer sent this message.
func (fl *dgramFlow) quote(sent []byte) []byte {
	hl := packet.HeaderIP(fl.key.src.Addr())
	if fl.key.proto == UDP {
		sent = sent[:min(len(sent), 512)]
		b := make([]byte, hl+packet.HeaderUDP+len(sent))
		copy(b[hl+packet.HeaderUDP:], sent)
		packet.PutUDP(b, fl.key.src, fl.key.dst)
		return b
	}
	b := make([]byte, hl+max(packet.HeaderEcho, len(sent)))
	copy(b[hl:], sent)
	packet.PutEchoRequest(b, fl.key.src.Addr(), fl.key.dst.Addr(), fl.key.src.Port(), uint16(b[hl+6])<<8|uint16(b[hl+7]))
	return b
}
