// Package front is the way through a gateway to the pods of a steered Service:
// the ports to which the Service's clients are sent, and the connections on to
// whichever pod is ready. What becomes of a connection in between is the matter of
// gateway/agent's Front.
package front

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// FirstPort to LastPort are the TCP ports at which fronts listen. The manifests
// keep connections that go out off them.
const (
	FirstPort = 19000
	LastPort  = 19999
)

// Listen opens a listener at any of those ports.
func Listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // nobody behind it has asked for it
	const ports = LastPort - FirstPort + 1
	for i, first := 0, rand.IntN(ports); i < ports; i++ {
		port := FirstPort + (first+i)%ports
		l, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("the ports %d to %d are all taken", FirstPort, LastPort)
}

// tryTime is how long one pod may take to accept a connection while there are
// others to try: the kernel has tried twice by then.
const tryTime = 3500 * time.Millisecond

// patience is how long the last one may take.
const patience = 10 * time.Second

// Pods connects to the pods behind a Service. The zero Pods knows none.
type Pods struct {
	// Allow says whether there may be a connection to an address. It is asked for
	// each, as what is at an address changes. Nil: it may.
	Allow func(netip.AddrPort) bool

	mu    sync.Mutex
	ready map[uint16][]netip.AddrPort
	turn  map[uint16]int
}

// Set says where the pods that are ready take what comes for each port of the
// Service.
func (p *Pods) Set(ready map[uint16][]netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = ready
	if p.turn == nil {
		p.turn = map[uint16]int{}
	}
}

// Dial connects to the next pod for a port of the Service, or to the one after it
// where that refuses or is silent. The error is that of the last one.
func (p *Pods) Dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	all := p.next(port)
	err := fmt.Errorf("no pod is ready for port %d", port)
	for i, at := range all {
		if p.Allow != nil && !p.Allow(at) {
			err = fmt.Errorf("%s is no address of a pod of the Service", at)
			continue
		}
		d := net.Dialer{Timeout: tryTime}
		if i == len(all)-1 {
			d.Timeout = patience
		}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", at.String()); err == nil {
			return c.(*net.TCPConn), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// next are the pods in the order to try them, which is another one each time.
func (p *Pods) next(port uint16) []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.ready[port]
	if len(all) == 0 {
		return nil
	}
	first := p.turn[port] % len(all)
	p.turn[port] = first + 1
	order := make([]netip.AddrPort, 0, len(all))
	return append(append(order, all[first:]...), all[:first]...)
}
