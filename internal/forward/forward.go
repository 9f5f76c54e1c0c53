// Package forward carries flows out of a netstack into the network that the
// process is in, without any privilege: TCP by connections of its own, UDP and
// ICMP echo by a socket per flow.
//
// A target looks to the peer as it is: a TCP connection is accepted only once
// the target has accepted ours, a refused one is reset, an unreachable host is
// answered with ICMP, and silence stays silence.
//
// The flows of chosen peers leave by an Exit instead, which is another place, and
// chosen peers reach targets at other addresses than theirs.
//
// The package knows neither Kubernetes nor WireGuard: a Policy decides, by
// addresses alone.
package forward

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/remap"
)

// Proto is what a flow speaks.
type Proto uint8

const (
	ICMP Proto = 1 + iota // echo, of either family
	TCP
	UDP
)

func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "unknown"
}

// Policy decides whether a peer, known by its tunnel address, may open a
// flow. It is asked before a flow begins, again once Recheck would find the flow,
// for each packet of a flow it has denied, and about every open flow by Recheck. dst
// is the real target, and has port 0 for ICMP. Allow is called where packets are
// received: it must be quick and must not block.
type Policy interface {
	Allow(peer netip.Addr, proto Proto, dst netip.AddrPort) bool
}

const (
	dialTimeout = 10 * time.Second
	// acceptTimeout lets a peer's answer be lost twice.
	acceptTimeout = 10 * time.Second
	// lastWords is how long the resets at the end may take to leave.
	lastWords = 200 * time.Millisecond
	// fdReserve is kept for everything else the process opens.
	fdReserve = 64
)

// Options shapes a Forwarder. The zero value works.
type Options struct {
	Log *slog.Logger
	// MaxFlows bounds all open flows together; 0 is what the limit on open
	// files allows.
	MaxFlows int
	// Limits bound what each owner of peers has.
	Limits Limits
	// Undecided says that the policy's no about a target only means that it does not
	// know yet: the packet is dropped without a word, and whoever sent it sends it
	// again. nil: it always knows. It must not block.
	Undecided func(peer netip.Addr, dst netip.AddrPort) bool
	// Rewrite says where a target is called instead, after the policy has seen it.
	// Peers notice nothing. nil: each where it is. It must not block.
	Rewrite func(Proto, netip.AddrPort) netip.AddrPort
}

// Forwarder forwards the flows of one stack.
type Forwarder struct {
	stack  *netstack.Stack
	policy Policy
	log    *slog.Logger
	max    int64

	rewrite   func(Proto, netip.AddrPort) netip.AddrPort
	undecided func(netip.Addr, netip.AddrPort) bool

	tcp      tcpTable
	dgram    dgramTable
	counters counters
	accounts *accounts
	open     atomic.Int64                  // flows that hold a socket
	full     atomic.Bool                   // no memory for more
	tick     atomic.Pointer[chan struct{}] // closed at the next sweep
	exits    atomic.Pointer[map[netip.Addr]Exit]
	maps     atomic.Pointer[map[netip.Addr]remap.Map]

	mu      sync.Mutex
	running bool
	ctx     context.Context
	wg      sync.WaitGroup

	noPing sync.Once
}

// counters are totals since New.
type counters struct {
	tcp, udp, icmp          atomic.Uint64
	up, down                atomic.Uint64
	refused, denied, failed atomic.Uint64
	overLimit               [refusals]atomic.Uint64
}

// Stats are gauges of open flows and totals since New.
type Stats struct {
	OpenTCP, OpenUDP, OpenICMP    int
	TotalTCP, TotalUDP, TotalICMP uint64 // flows opened
	BytesUp, BytesDown            uint64 // payload from and to peers
	Refused                       uint64 // by the target
	Denied                        uint64 // by the policy
	Failed                        uint64 // unreachable, timed out
	OverLimit                     uint64 // no room: the sum of RefusedFor
	RefusedFor                    map[Refusal]uint64
}

// New makes a Forwarder. It forwards nothing before Run.
func New(stack *netstack.Stack, policy Policy, o Options) *Forwarder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{
		stack: stack, policy: policy, log: o.Log,
		max:     int64(o.MaxFlows),
		rewrite: o.Rewrite, undecided: o.Undecided, accounts: newAccounts(o.Limits),
	}
	if f.undecided == nil {
		f.undecided = func(netip.Addr, netip.AddrPort) bool { return false }
	}
	if f.rewrite == nil {
		f.rewrite = func(_ Proto, a netip.AddrPort) netip.AddrPort { return a }
	}
	if f.max == 0 {
		f.max = maxFlows()
	}
	f.tcp.init()
	f.dgram.init()
	tick := make(chan struct{})
	f.tick.Store(&tick)
	return f
}

// maxFlows raises the soft limit on open files to the hard one and leaves
// room for the process itself.
func maxFlows() int64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024 - fdReserve
	}
	if l.Cur < l.Max {
		raised := unix.Rlimit{Cur: l.Max, Max: l.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			l = raised
		}
	}
	return max(16, int64(min(l.Cur, 1<<30))-fdReserve)
}

// Run forwards until ctx ends, then resets every flow and waits for them.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.running, f.ctx = true, ctx
	f.mu.Unlock()
	f.stack.Forward(&netstack.Hooks{SYN: f.syn, TCP: f.request, Datagrams: f.datagrams})

	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case now := <-tick.C:
			f.tcp.sweep(now)
			f.sweep(now)
			f.accounts.sweep(now)
			next := make(chan struct{})
			close(*f.tick.Swap(&next))
		case <-ctx.Done():
		}
	}
	// The stack stays open for everybody until the last flow is gone: a peer
	// whose handshake was cut short learns of it by asking once more.
	f.mu.Lock()
	f.running = false
	f.mu.Unlock()
	f.closeFlows(func(netip.Addr, Proto, netip.AddrPort) bool { return true })
	f.wg.Wait()
	f.stack.Flush(lastWords)
	f.stack.Forward(nil)
	return nil
}

// begin accounts for one more goroutine of Run, unless Run is ending.
func (f *Forwarder) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running {
		f.wg.Add(1)
	}
	return f.running
}

// reserve takes the right to one socket; free gives it back.
func (f *Forwarder) reserve(a *account) bool {
	if f.open.Add(1) <= f.max {
		return true
	}
	f.open.Add(-1)
	f.refused(a, OverFlows)
	return false
}

func (f *Forwarder) free() { f.open.Add(-1) }

// allow is the policy behind what holds for every policy: nobody reaches the
// loopback of this host or what no router forwards, nor leaves by no exit.
func (f *Forwarder) allow(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	a := dst.Addr()
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() &&
		f.mayLeave(peer, proto) && f.policy.Allow(peer, proto, dst)
}

// deny deals with a packet whose flow the policy does not allow.
func (f *Forwarder) deny(original []byte, peer netip.Addr, to netip.AddrPort) {
	if f.undecided(peer, to) {
		return
	}
	f.counters.denied.Add(1)
	f.answer(original, packet.Prohibited)
}

// answer sends the peer an ICMP error about the whole packet original.
func (f *Forwarder) answer(original []byte, why packet.Unreachable) {
	b := netstack.NewBuffer(packet.UnreachableSize(original))
	packet.PutUnreachable(b.B, original, why)
	f.stack.Send(b, false)
}

// Recheck asks the policy again about every open flow and ends those that it
// does not allow any more: TCP by a reset on both sides, others silently.
func (f *Forwarder) Recheck() {
	f.closeFlows(func(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
		return !f.allow(peer, proto, dst)
	})
}

// ClosePeer ends every flow of the peer with this tunnel address.
func (f *Forwarder) ClosePeer(peer netip.Addr) {
	f.closeFlows(func(p netip.Addr, _ Proto, _ netip.AddrPort) bool { return p == peer })
}

func (f *Forwarder) closeFlows(end func(peer netip.Addr, proto Proto, dst netip.AddrPort) bool) {
	for _, fl := range f.tcp.all() {
		if end(fl.key.src.Addr(), TCP, fl.to) {
			fl.interrupt()
		}
	}
	for _, fl := range f.dgram.all() {
		if end(fl.key.src.Addr(), fl.key.proto, fl.to) {
			f.end(fl)
		}
	}
}

// Stats is a snapshot.
func (f *Forwarder) Stats() Stats {
	c := &f.counters
	s := Stats{
		OpenTCP:  len(f.tcp.all()),
		TotalTCP: c.tcp.Load(), TotalUDP: c.udp.Load(), TotalICMP: c.icmp.Load(),
		BytesUp: c.up.Load(), BytesDown: c.down.Load(),
		Refused: c.refused.Load(), Denied: c.denied.Load(), Failed: c.failed.Load(),
		RefusedFor: map[Refusal]uint64{},
	}
	for _, why := range Refusals() {
		n := c.overLimit[why].Load()
		s.OverLimit += n
		s.RefusedFor[why] = n
	}
	for _, fl := range f.dgram.all() {
		if fl.key.proto == UDP {
			s.OpenUDP++
		} else {
			s.OpenICMP++
		}
	}
	return s
}
