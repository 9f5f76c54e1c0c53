package transport

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// maxUDP is how many UDP addresses of a gateway are tried.
	maxUDP = 32
	// maxFound is how many more may be learned from the gateway's own pings.
	maxFound = 8
	// foundFor is how long one of these is kept that does not work.
	foundFor = 30 * time.Second
)

// SetUDP tells all UDP addresses at which the gateway may be: published
// endpoints and candidates alike, the first 32 of them. Paths to addresses that
// were told before go on as they are.
func (g *Gateway) SetUDP(addrs []netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.only == APIServer {
		return
	}
	want := make(map[netip.AddrPort]bool, len(addrs))
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if a.Addr().IsValid() && !a.Addr().IsUnspecified() && a.Port() != 0 && len(want) < maxUDP {
			want[a] = true
		}
	}
	for a, p := range g.udp {
		if !want[a] && !p.found {
			g.removeLocked(a, p)
		}
	}
	for a := range want {
		if p := g.udp[a]; p != nil {
			p.found = false
		} else {
			g.udpLocked(a)
		}
	}
	signal(g.wake)
}

// udpLocked adds a path by UDP.
func (g *Gateway) udpLocked(a netip.AddrPort) *udpPath {
	p := &udpPath{g: g, id: g.addLocked(UDP), ep: g.b.newUDPEndpoint(a, netip.Addr{})}
	g.udp[a], g.paths[p.id] = p, p
	g.b.addUDP(p)
	return p
}

func (g *Gateway) removeLocked(a netip.AddrPort, p *udpPath) {
	delete(g.udp, a)
	delete(g.paths, p.id)
	g.set.Remove(time.Now(), p.id)
	g.b.removeUDP(p)
}

// addUDP makes what comes from p's address p's.
func (b *Bind) addUDP(p *udpPath) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ps := append(slices.Clone(b.udpPaths[p.ep.dst]), p)
	slices.SortStableFunc(ps, func(x, y *udpPath) int { return int(x.g.number) - int(y.g.number) })
	b.udpPaths[p.ep.dst] = ps
	b.epoch.Add(1)
}

func (b *Bind) removeUDP(p *udpPath) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ps := slices.DeleteFunc(slices.Clone(b.udpPaths[p.ep.dst]), func(q *udpPath) bool { return q == p })
	if b.udpPaths[p.ep.dst] = ps; len(ps) == 0 {
		delete(b.udpPaths, p.ep.dst)
	}
	b.epoch.Add(1)
}

// knockedLocked is for a ping of the gateway from address a, which it may have
// sent before we have heard of a.
func (g *Gateway) knockedLocked(now time.Time, a netip.AddrPort) {
	if g.only == APIServer {
		return
	}
	p := g.udp[a]
	if p == nil {
		found := 0
		for _, q := range g.udp {
			if q.found {
				found++
			}
		}
		if found == maxFound {
			return
		}
		p = g.udpLocked(a)
		p.found = true
	}
	p.knocked = now
	g.set.Knock(now, p.id)
}
