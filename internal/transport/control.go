package transport

import (
	"net/netip"

	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport/fragment"
)

// Control messages begin with 'p', which no message of WireGuard's does, and
// say what they are with their second byte: probes (internal/probe), pieces of a
// datagram (fragment), and on streams acknowledgements (inflight).

// way is how a control message came, and how its answer goes back.
type way struct {
	c    *carrier       // nil: by UDP
	from netip.AddrPort // UDP: the other end
	to   netip.Addr     // UDP: the address of ours that it wrote to; invalid: any
}

func (w way) kind() Kind {
	if w.c != nil {
		return APIServer
	}
	return UDP
}

// tell sends a control message back by the way w, without ever waiting.
func (b *Bind) tell(w way, m []byte) error {
	if w.c != nil {
		w.c.sendControl(m)
		return nil
	}
	if b.closed.Load() == nil {
		return errDown
	}
	return b.udp.probe(m, b.newUDPEndpoint(w.from, w.to))
}

// probed acts on what may be a probe. It runs where datagrams are received. Of
// what strangers send nothing is left behind, and they get no answer.
func (b *Bind) probed(w way, m []byte) {
	id, _, ok := probe.Peek(m)
	if !ok {
		return
	}
	if p := b.answers.prober(id); p != nil {
		if msg, err := p.key.Open(m); err == nil && !msg.FromGateway {
			b.answers.heard(p, w, msg)
		}
		return
	}
	b.mu.RLock()
	gates := b.byKey[id]
	b.mu.RUnlock()
	if len(gates) == 0 {
		return
	}
	// The Gateways of one key differ in nothing that matters here but in the
	// pings that they have sent.
	if msg, err := gates[0].key.Open(m); err == nil && msg.FromGateway {
		for _, g := range gates {
			g.heard(w, msg)
		}
	}
}

// heedStream makes c act on the probes that come by it.
func (b *Bind) heedStream(c *carrier) {
	heed := func(m []byte) { b.probed(way{c: c}, m) }
	for _, k := range []probe.Kind{probe.Ping, probe.Pong, probe.Notice} {
		c.on[byte(k)] = heed
	}
}

// heedUDP acts on a datagram that is not WireGuard's. It reports whether it is a
// piece of one that may be.
func (b *Bind) heedUDP(k originKey, m []byte) (piece bool) {
	switch {
	case fragment.Is(m):
		return true
	case len(m) > 0 && m[0] == msgControl:
		b.probed(way{from: k.from, to: k.to}, m)
	default:
		b.stun.heard(k.from, m)
	}
	return false
}
