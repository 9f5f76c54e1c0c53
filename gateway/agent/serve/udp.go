package serve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"podnet.dev/internal/steer"
)

const (
	// maxFlows is how many clients of a UDP port are told apart at the same time.
	// The one that was silent longest makes room for another.
	maxFlows = 1024
	// flowTime is how long nothing may come of a flow, from either side.
	flowTime = 60 * time.Second
	// maxDatagram is larger than any.
	maxDatagram = 64 << 10
)

// udpPort is a steered UDP port.
type udpPort struct {
	s     *Server
	key   PortKey
	see   steer.Observer
	socks []*socket
	stop  chan struct{}

	mu    sync.Mutex
	flows map[flowKey]*flow // nil: the port is closed
	turn  uint64            // grows with each datagram of a client
	legs  map[legKey]int    // how many flows have it
}

// flowKey is a client and the address of the pod that it sends to.
type flowKey struct{ client, to netip.AddrPort }

// socket is a listener for one family, so that it can name the address that an
// answer comes from: a pod may have several.
type socket struct {
	*net.UDPConn
	v6 bool
}

// listenUDP listens at a port; 0: any.
func (s *Server) listenUDP(k PortKey, at uint16) (*port, error) {
	p := &udpPort{s: s, key: k, see: s.Observer(k), stop: make(chan struct{}), flows: map[flowKey]*flow{}, legs: map[legKey]int{}}
	to, err := p.open(at)
	if err != nil {
		return nil, err
	}
	for _, sock := range p.socks {
		s.wg.Go(func() { p.read(sock) })
	}
	s.wg.Go(p.expire)
	return &port{key: k, to: to, close: sync.OnceFunc(p.close)}, nil
}

// open opens a socket for each family, both at the same port; 0: any.
func (p *udpPort) open(at uint16) (uint16, error) {
	const attempts = 10 // what is free for one family may be taken for the other
	for range attempts {
		four, err := listenPackets("udp4", at)
		if err != nil {
			return 0, err
		}
		to := four.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		six, err := listenPackets("udp6", to)
		switch {
		case err == nil:
			p.socks = []*socket{four, six}
			return to, nil
		case errors.Is(err, syscall.EAFNOSUPPORT): // the kernel has no IPv6
			p.socks = []*socket{four}
			return to, nil
		}
		four.Close()
		at = 0
	}
	return 0, errors.New("no port is free for both IPv4 and IPv6")
}

func listenPackets(network string, port uint16) (*socket, error) {
	conn, err := net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	s := &socket{conn, network == "udp6"}
	if s.v6 {
		err = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	} else {
		err = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("learn where datagrams were sent to: %w", err)
	}
	return s, nil
}

// read gives each datagram to its flow.
func (p *udpPort) read(sock *socket) {
	b, oob := make([]byte, maxDatagram), make([]byte, 256)
	for {
		n, nOob, _, client, err := sock.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of a datagram that we sent
		}
		to, answer, ok := sock.addresses(oob[:nOob])
		if !ok {
			continue
		}
		p.deliver(flowKey{client, netip.AddrPortFrom(to, p.key.Port)}, sock, answer, b[:n])
	}
}

// deliver decides a datagram and sends it on. It does not keep b, and waits for no
// laptop.
func (p *udpPort) deliver(k flowKey, sock *socket, answer, b []byte) {
	rules := p.s.Rules(p.key.Protocol, p.key.Port)
	d := rules.Whole()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flows == nil {
		return
	}
	f := p.flowLocked(k, sock, answer)
	f.leaveLocked(d)
	for _, r := range d.Mirrors {
		f.legLocked(r).put(b)
	}
	if d.Steal != nil {
		f.legLocked(d.Steal).put(b)
		return
	}
	f.toAppLocked(b, rules != nil)
}

// addresses reads where a datagram was sent to, and returns that with the control
// message that sends an answer from there.
func (s *socket) addresses(oob []byte) (to netip.Addr, answer []byte, ok bool) {
	if !s.v6 {
		var m ipv4.ControlMessage
		if err := m.Parse(oob); err != nil {
			return to, nil, false
		}
		to, ok = netip.AddrFromSlice(m.Dst)
		return to, (&ipv4.ControlMessage{Src: m.Dst}).Marshal(), ok
	}
	var m ipv6.ControlMessage
	if err := m.Parse(oob); err != nil {
		return to, nil, false
	}
	from := ipv6.ControlMessage{Src: m.Dst}
	if to, ok = netip.AddrFromSlice(m.Dst); to.IsLinkLocalUnicast() {
		from.IfIndex = m.IfIndex
		to = to.WithZone(fmt.Sprint(m.IfIndex))
	}
	return to, from.Marshal(), ok
}

// flowLocked returns a client's flow, a new one if there is none.
func (p *udpPort) flowLocked(k flowKey, sock *socket, answer []byte) *flow {
	f := p.flows[k]
	if f == nil {
		if len(p.flows) >= maxFlows {
			p.silentLocked(func(*flow) bool { return true }).closeLocked()
		}
		f = &flow{port: p, sock: sock, key: k, answer: answer, legs: map[legKey]*leg{}}
		p.flows[k] = f
	}
	p.turn++
	f.turn = p.turn
	f.touch()
	return f
}

// silentLocked returns the flow whose client was silent longest of those that ok
// names; there is one.
func (p *udpPort) silentLocked(ok func(*flow) bool) *flow {
	var oldest *flow
	for _, f := range p.flows {
		if ok(f) && (oldest == nil || f.turn < oldest.turn) {
			oldest = f
		}
	}
	return oldest
}

// expire ends flows of which nothing comes.
func (p *udpPort) expire() {
	tick := time.NewTicker(flowTime / 10)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.mu.Lock()
			for _, f := range p.flows {
				if now.Sub(f.touched()) >= flowTime {
					f.closeLocked()
				}
			}
			p.mu.Unlock()
		}
	}
}

func (p *udpPort) close() {
	close(p.stop)
	for _, s := range p.socks {
		s.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flows {
		f.closeLocked()
	}
	p.flows = nil
}
