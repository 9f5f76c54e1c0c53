package relay

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

const (
	// udpIdle is how long a flow of datagrams may be silent.
	udpIdle = 60 * time.Second
	// udpQueue is how many datagrams of a flow may wait for their socket.
	udpQueue = 64
	// maxUDP bounds the flows of datagrams: each has a buffer of 64 KiB. maxUDPFromOne
	// are those of one agent.
	maxUDP        = 1024
	maxUDPFromOne = maxUDP / 2
)

type udpKey struct{ src, dst netip.AddrPort }

// udpTable finds the flow of a datagram.
type udpTable struct {
	mu    sync.Mutex
	flows map[udpKey]*udpFlow
	from  map[netip.Addr]int // how many are whose
}

// udpFlow is a client of the pod, as its agent has it at one port. Each has a
// socket of its own to the local program.
type udpFlow struct {
	r       *Relay
	key     udpKey
	rule    string
	targets []string
	queue   chan []byte
	last    []byte // sent to a target that has not answered yet, perhaps
	in, out int64  // bytes from and to the client
}

// takeDatagrams gives datagrams to their flows. It does not block.
func (r *Relay) takeDatagrams(ctx context.Context, batch []packet.Packet) {
	for i := range batch {
		p := &batch[i]
		payload, ok := p.UDP()
		if !ok {
			continue
		}
		src, dst, _ := p.Ports()
		rule := r.table.Load().rule(packet.UDP, src.Addr(), dst)
		if rule == nil {
			continue
		}
		if fl := r.udpFlow(ctx, udpKey{src, dst}, rule); fl != nil {
			select {
			case fl.queue <- slices.Clone(payload):
			default: // lost, as on any wire
			}
		}
	}
}

// udpFlow returns a flow, a new one if need be. Nil: there are too many.
func (r *Relay) udpFlow(ctx context.Context, k udpKey, rule *Rule) *udpFlow {
	r.udp.mu.Lock()
	defer r.udp.mu.Unlock()
	if fl := r.udp.flows[k]; fl != nil {
		return fl
	}
	from := k.src.Addr()
	if len(r.udp.flows) >= maxUDP || r.udp.from[from] >= maxUDPFromOne || !r.flows.begin(from) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	fl := &udpFlow{r: r, key: k, rule: rule.Name, targets: targets(rule.Local), queue: make(chan []byte, udpQueue)}
	f := &flow{proto: packet.UDP, src: k.src, dst: k.dst, rule: rule.Name, end: cancel}
	if !r.flows.add(f, r.table.Load) {
		cancel()
		r.flows.done(from)
		return nil
	}
	r.udp.flows[k] = fl
	r.udp.from[from]++
	go func() {
		defer r.flows.done(from)
		defer r.flows.remove(f)
		began := time.Now()
		err := fl.run(ctx)
		cancel()
		r.over(rule, began, fl.in, fl.out, err)
		r.udp.mu.Lock()
		defer r.udp.mu.Unlock()
		delete(r.udp.flows, k)
		if r.udp.from[from]--; r.udp.from[from] == 0 {
			delete(r.udp.from, from)
		}
	}()
	return fl
}

// run tries the targets in turn: the next one when one is not there and has never
// answered. The error is that none is.
func (fl *udpFlow) run(ctx context.Context) error {
	var first error
	for _, at := range fl.targets {
		heard, err := fl.serve(ctx, at)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if first == nil {
			first = &localError{at, err}
		}
		if heard {
			break
		}
	}
	fl.r.log.Debug("local program not reached", "rule", fl.rule, "err", first)
	fl.r.state.local(fl.rule, first.Error())
	return first
}

// serve carries datagrams between the agent and the program at at. It returns
// nil when the flow is idle or ended, an error when the program is not there.
// heard says whether it ever answered.
func (fl *udpFlow) serve(ctx context.Context, at string) (heard bool, err error) {
	d := net.Dialer{Timeout: dialTime}
	sock, err := d.DialContext(ctx, "udp", at)
	if err != nil {
		return false, err
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer sock.Close()
	var used atomic.Int64 // UnixNano of the last answer
	failed := make(chan error, 1)
	reader.Go(func() { failed <- fl.answer(sock, &used) })

	send := func(b []byte) error {
		fl.last = b
		_, err := sock.Write(b)
		return err
	}
	if fl.last != nil {
		err = send(fl.last)
	}
	began := time.Now()
	idle := time.NewTimer(udpIdle)
	defer idle.Stop()
	for err == nil {
		select {
		case b := <-fl.queue:
			fl.in += int64(len(b))
			err = send(b)
			began = time.Now()
			idle.Reset(udpIdle)
		case err = <-failed:
		case <-idle.C:
			if time.Since(began) >= udpIdle && time.Since(time.Unix(0, used.Load())) >= udpIdle {
				return true, nil
			}
			idle.Reset(udpIdle)
		case <-ctx.Done():
			return true, nil
		}
	}
	return used.Load() != 0, err
}

// answer carries what comes from sock into the tunnel, until sock fails.
func (fl *udpFlow) answer(sock net.Conn, used *atomic.Int64) error {
	header := packet.HeaderIP(fl.key.dst.Addr()) + packet.HeaderUDP
	buf := make([]byte, packet.MaxSize)
	for {
		n, err := sock.Read(buf)
		if err != nil {
			return err
		}
		if used.Swap(time.Now().UnixNano()) == 0 {
			fl.r.state.local(fl.rule, "")
		}
		if header+n > packet.MaxSize {
			continue // more than a packet holds
		}
		fl.out += int64(n)
		b := netstack.NewBuffer(header + n)
		copy(b.B[header:], buf[:n])
		packet.PutUDP(b.B, fl.key.dst, fl.key.src)
		fl.r.stack.Send(b, true)
	}
}
