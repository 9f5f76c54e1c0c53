package transport

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// udpPath sends by the Bind's own sockets to one address.
type udpPath struct {
	g      *Gateway
	ep     *udpEndpoint
	since  time.Time
	rx, tx atomic.Uint64
	wait   sync.WaitGroup
}

// newUDPPath registers the address as g's. It stays g's until g is closed:
// datagrams on their way when the path changes are still worth reading.
func newUDPPath(g *Gateway, addr netip.AddrPort) *udpPath {
	p := &udpPath{g: g, ep: g.b.newUDPEndpoint(addr, netip.Addr{}), since: time.Now()}
	g.b.mu.Lock()
	g.b.udpPaths[p.ep.dst] = p
	g.b.mu.Unlock()
	g.b.epoch.Add(1)
	p.wait.Go(func() { g.pathUp(p) })
	return p
}

func (p *udpPath) send(bufs [][]byte, _ <-chan struct{}) error {
	err := p.g.b.udp.send(bufs, p.ep)
	if err == nil {
		for _, m := range bufs {
			p.tx.Add(uint64(len(m)))
		}
	}
	return err
}

func (p *udpPath) status() PathStatus {
	return PathStatus{
		Kind: UDP, Remote: p.ep.DstToString(), Live: true, Since: p.since,
		RxBytes: p.rx.Load(), TxBytes: p.tx.Load(),
	}
}

func (p *udpPath) close() { p.wait.Wait() }
