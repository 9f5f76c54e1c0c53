// Package relay brings steered traffic from the tunnel to this machine's
// programs: what agents send to our relay address goes to the one local port of
// its rule, and nowhere else.
//
// It has a network stack of its own, so that nothing of this ever enters the
// host's. It knows neither Kubernetes nor sessions: rules and their agents are
// told to it.
package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

// mtu fits into the tunnel of an agent whose pod has an overlay network.
const mtu = 1280

// farewell is how long the last words to agents may take to get out.
const farewell = 50 * time.Millisecond

// keepAlive finds an agent that vanished in 30 s. Its live connection is over by
// then, but a request may have no end.
var keepAlive = net.KeepAliveConfig{Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Relay takes steered traffic. Its methods are safe for concurrent use.
type Relay struct {
	log   *slog.Logger
	stack *netstack.Stack
	state *state
	flows flows
	udp   udpTable
	table atomic.Pointer[table]

	setMu sync.Mutex // one change of the table at a time
	next  uint16     // what Port tries next
}

// firstPort and those above it are what Port gives.
const firstPort = 20000

// New makes a Relay without an address and without rules. It is deaf until Run,
// which also cleans up; who never calls Run calls Close.
func New(log *slog.Logger) (*Relay, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	stack, err := netstack.New(netstack.Config{MTU: mtu, KeepAlive: keepAlive, Log: log})
	if err != nil {
		return nil, fmt.Errorf("make relay: %w", err)
	}
	r := &Relay{log: log, stack: stack, state: newState(), next: firstPort}
	r.flows.all, r.flows.from = map[*flow]struct{}{}, map[netip.Addr]int{}
	r.udp.flows, r.udp.from = map[udpKey]*udpFlow{}, map[netip.Addr]int{}
	r.table.Store(newTable(netip.Addr{}, nil))
	return r, nil
}

// Device is where packets for the relay address are to be delivered, and where
// those from it come from.
func (r *Relay) Device() tun.Device { return r.stack.Device() }

// Port is a port for a new Rule or Exposure: none has it, and it is not given
// again before all others were.
func (r *Relay) Port() uint16 {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	t := r.table.Load()
	for {
		p := r.next
		r.next = max(r.next+1, firstPort) // also from 65535 on
		if !slices.ContainsFunc(t.rules, func(have Rule) bool { return have.Port == p }) {
			return p
		}
	}
}

// SetRules makes rules the only ones. What goes on under a rule or with an agent
// that is not among them ends at once; what goes on under one that stays keeps
// the Local that it has. Exposures are not touched.
func (r *Relay) SetRules(rules []Rule) {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	have := r.table.Load()
	exposed := slices.DeleteFunc(slices.Clone(have.rules), func(o Rule) bool { return o.gateways == nil })
	r.setLocked(newTable(have.addr, slices.Concat(rules, exposed)))
}

// SetExposures makes all the only ones, as SetRules does with rules, which are not
// touched.
func (r *Relay) SetExposures(all []Exposure) {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	have := r.table.Load()
	rules := slices.DeleteFunc(slices.Clone(have.rules), func(o Rule) bool { return o.gateways != nil })
	for _, e := range all {
		rules = append(rules, Rule{Name: e.Name, Port: e.Port, Protocol: e.Protocol, Local: e.Local, gateways: append([]netip.Addr{}, e.Gateways...)})
	}
	r.setLocked(newTable(have.addr, rules))
}

// SetAddr gives the relay its address; the zero Addr takes it away. What came
// to another one ends at once.
func (r *Relay) SetAddr(a netip.Addr) {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	r.setLocked(newTable(a, r.table.Load().rules))
}

func (r *Relay) setLocked(t *table) {
	r.table.Store(t)
	r.flows.sweep(t)
	r.state.keep(t)
}

// Live is what is known of each pod's agent, in the order of their addresses.
func (r *Relay) Live() []Live { return r.state.live(r.table.Load()) }

// Served is what the Exposure of a name took since it is there.
func (r *Relay) Served(name string) Served {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	s := r.state.served[name]
	s.Trouble = r.state.trouble[name]
	return s
}

// Requests are the last MaxRequests of a rule, newest last.
func (r *Relay) Requests(rule string) []Request {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	all := r.state.requests[rule]
	return slices.Clone(all[max(0, len(all)-MaxRequests):])
}

// Subscribe has fn called with each request of a rule and each connection of an
// Exposure that ends, in order for each pod, until cancel. It must not block. A call that is under way may end after
// cancel.
func (r *Relay) Subscribe(fn func(Request)) (cancel func()) { return r.state.subscribe(fn) }

// Changed says that Live may have. It is one channel for one reader.
func (r *Relay) Changed() <-chan struct{} { return r.state.changed }

// Run serves until ctx is done. A Relay runs once.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.Close()
	defer cancel()
	r.stack.Forward(&netstack.Hooks{
		SYN: func(p *packet.Packet) bool {
			src, dst, ok := p.Ports()
			t := r.table.Load()
			return ok && (t.live(src.Addr(), dst) || t.rule(packet.TCP, src.Addr(), dst) != nil)
		},
		TCP:       func(q *netstack.TCPRequest) { r.serveTCP(ctx, q) },
		Datagrams: func(batch []packet.Packet) { r.takeDatagrams(ctx, batch) },
	})
	<-ctx.Done()
	r.flows.close()
	r.stack.Flush(farewell)
	return nil
}

// Close ends the relay where Run has not: the device is closed.
func (r *Relay) Close() error {
	r.flows.close()
	return r.stack.Close()
}
