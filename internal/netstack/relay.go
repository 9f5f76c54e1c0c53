package netstack

import "podnet.dev/internal/packet"

// Relay makes the stack a router for the packets that f claims: they go back
// into the tunnel as they are, at once or, when the queue has no room for their
// flow, never. Neither the stack nor the Hooks see them, and fragments stay
// fragments. f may also claim what is for an address of the stack's own.
//
// f runs where WireGuard delivers, for several peers at once: it must not block.
// It is asked once for a run of bulk TCP segments that differ in nothing but
// their place in the stream. The packet lives until f returns. nil ends it.
func (s *Stack) Relay(f func(*packet.Packet) bool) {
	if f == nil {
		s.relay.Store(nil)
		return
	}
	s.relay.Store(&f)
}

// passOn sends packets, the first of which stands for all, back into the tunnel
// if relay claims it.
func (d *device) passOn(run [][]byte, offset int, relay func(*packet.Packet) bool) bool {
	p, ok := packet.Parse(run[0][offset:])
	if !ok || !relay(&p) {
		return false
	}
	for i, b := range run {
		data := b[offset:]
		if i == 0 {
			data = p.Data // without padding
		}
		o := NewBuffer(len(data))
		copy(o.B, data)
		if !d.s.link.out.offer(outbound{raw: o}, len(data)) {
			o.Free()
		}
	}
	return true
}
