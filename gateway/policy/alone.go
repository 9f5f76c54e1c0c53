package policy

import (
	"net/netip"
	"sync/atomic"
)

// Alone is the policy of a gateway that serves one namespace, and may watch nothing
// of the cluster: every peer may reach what belongs to the namespace, on all ports but
// Kubernetes' own, and nothing else. Whose an address is somebody else finds out.
type Alone struct {
	config  Config
	belongs func(peer, a netip.Addr) (belongs, known bool)
	peers   atomic.Pointer[map[netip.Addr]struct{}]
}

// NewAlone makes an Alone that admits nobody yet. Of c it takes Tunnel and Self, to
// which the node's own addresses should be added. belongs says what is known of an
// address; it must not block.
func NewAlone(c Config, belongs func(peer, a netip.Addr) (belongs, known bool)) *Alone {
	p := &Alone{config: c, belongs: belongs}
	p.SetPeers(nil)
	return p
}

// SetPeers says which tunnel addresses are peers'.
func (p *Alone) SetPeers(all []netip.Addr) {
	next := make(map[netip.Addr]struct{}, len(all))
	for _, a := range all {
		next[a] = struct{}{}
	}
	p.peers.Store(&next)
}

// Allow reports whether the peer at a tunnel address may open a flow to dst. What is
// not known yet is not allowed.
func (p *Alone) Allow(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	if !p.mayAsk(peer, proto, dst) {
		return false
	}
	belongs, _ := p.belongs(peer, dst.Addr().Unmap())
	return belongs
}

// Undecided reports whether Allow said no only because nothing is known yet.
func (p *Alone) Undecided(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	if !p.mayAsk(peer, proto, dst) {
		return false
	}
	_, known := p.belongs(peer, dst.Addr().Unmap())
	return !known
}

// mayAsk reports whether it matters whose an address is.
func (p *Alone) mayAsk(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	_, is := (*p.peers.Load())[peer.Unmap()]
	return is && !p.config.never(dst.Addr().Unmap()) && !nodePort(proto, dst.Port())
}
