package forward

import (
	"maps"
	"net/netip"

	"podnet.dev/internal/remap"
)

// SetMaps says at which virtual addresses peers, by their tunnel addresses, reach
// real ones. The policy is asked about real addresses, and flows lead to those; a
// peer sees the address that it sent to, in answers and in ICMP errors alike. What
// is mapped can be reached by its real address as well. An open flow that would lead
// elsewhere from now on ends. One call at a time.
func (f *Forwarder) SetMaps(peers map[netip.Addr]remap.Map) {
	var old map[netip.Addr]remap.Map
	if p := f.maps.Load(); p != nil {
		old = *p
	}
	if maps.EqualFunc(old, peers, remap.Map.Equal) {
		return
	}
	next := maps.Clone(peers)
	f.maps.Store(&next)
	f.endMoved()
}

// Map is at which addresses a peer reaches real ones.
func (f *Forwarder) Map(peer netip.Addr) remap.Map {
	if p := f.maps.Load(); p != nil {
		return (*p)[peer]
	}
	return remap.Map{}
}

// real is where a peer's packets to an address go.
func (f *Forwarder) real(peer netip.Addr, to netip.AddrPort) netip.AddrPort {
	if a, virtual := f.Map(peer).Real(to.Addr()); virtual {
		return netip.AddrPortFrom(a, to.Port())
	}
	return to
}

// endMoved ends the flows that lead elsewhere than their peers' maps say.
func (f *Forwarder) endMoved() {
	for _, fl := range f.tcp.all() {
		if f.real(fl.key.src.Addr(), fl.key.dst) != fl.to {
			fl.interrupt()
		}
	}
	for _, fl := range f.dgram.all() {
		if f.real(fl.key.src.Addr(), fl.key.dst) != fl.to {
			f.end(fl)
		}
	}
}
