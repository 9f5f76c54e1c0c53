// Package serve carries what comes to the ports that exposures have on a
// gateway's pod to the laptops. It refuses to know Kubernetes, and whose the
// exposures are.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"podnet.dev/internal/steer"
)

// What an exposure may have at the same time, of all its ports; and what all of
// them may have, since any pod of the cluster may connect to any of them.
const (
	MaxConns = 1024
	MaxFlows = 1024
	MaxAll   = 8192 // connections and flows
)

// Exposure is what is served.
type Exposure struct {
	UID  string
	Name string // for the log
	// Laptop is the relay address that it leads to, and to no other.
	Laptop netip.Addr
	Ports  []Port
}

// Port is one of its ports.
type Port struct {
	Protocol steer.Protocol
	Pod      uint16 // here
	Relay    uint16 // at the laptop
}

// Dialer reaches laptops.
type Dialer interface {
	DialTCP(context.Context, netip.AddrPort) (net.Conn, error)
	DialUDP(netip.AddrPort) (Datagrams, error)
}

// Datagrams is a connected socket that can wait for a datagram without having
// room for it.
type Datagrams interface {
	net.Conn
	ReadTo(io.Writer) (int, error)
}

// Server serves exposures on a pod's addresses.
type Server struct {
	log   *slog.Logger
	dial  Dialer
	addrs []netip.Addr
	open  atomic.Int64 // connections and flows
	full  atomic.Bool  // no memory for more

	mu     sync.Mutex
	closed bool
	served map[string]*served // by UID
	failed map[string]string  // what was said of those that could not be opened
}

// New makes a Server that listens at these addresses, and serves nothing yet.
func New(log *slog.Logger, d Dialer, addrs []netip.Addr) *Server {
	return &Server{log: log, dial: d, addrs: addrs, served: map[string]*served{}, failed: map[string]string{}}
}

// served is an exposure whose ports are open.
type served struct {
	Exposure
	s *Server
	// ctx ends with the exposure, and cancel waits for nobody.
	ctx    context.Context
	cancel context.CancelFunc
	ports  []io.Closer
	work   sync.WaitGroup

	mu    sync.Mutex
	conns []*carried // the oldest first
	flows flows
}

// carried is a connection, and what ends it.
type carried struct {
	ctx context.Context
	end context.CancelFunc
}

// Set serves these exposures and no others, and returns the UIDs of those whose
// ports are all open. The connections of the others have ended when it returns.
// Ports that cannot be opened are tried again by the next Set.
func (s *Server) Set(want []Exposure) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready := make(map[string]bool, len(want))
	if s.closed {
		return ready
	}
	index := make(map[string]Exposure, len(want))
	for _, e := range want {
		index[e.UID] = e
	}
	maps.DeleteFunc(s.failed, func(uid string, _ string) bool { _, wanted := index[uid]; return !wanted })
	for uid, have := range s.served {
		if e, wanted := index[uid]; !wanted || !same(e, have.Exposure) {
			have.end()
			delete(s.served, uid)
		}
	}
	for _, e := range want {
		if s.served[e.UID] == nil {
			x, err := s.serve(e)
			if err != nil {
				if text := err.Error(); s.failed[e.UID] != text {
					s.failed[e.UID] = text
					s.log.Warn("could not open an exposure's ports", "exposure", e.Name, "err", err)
				}
				continue
			}
			s.served[e.UID] = x
			delete(s.failed, e.UID)
			s.log.Debug("exposure opened", "exposure", e.Name, "addr", e.Laptop)
		}
		ready[e.UID] = true
	}
	return ready
}

func same(a, b Exposure) bool { return a.Laptop == b.Laptop && slices.Equal(a.Ports, b.Ports) }

// Close ends all, and is final.
func (s *Server) Close() {
	s.Set(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// serve opens an exposure's ports, all or none.
func (s *Server) serve(e Exposure) (_ *served, err error) {
	x := &served{Exposure: e, s: s}
	x.flows.init()
	x.ctx, x.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			x.end()
		}
	}()
	if len(e.Ports) == 0 || len(s.addrs) == 0 {
		return nil, errors.New("there is nothing to listen at")
	}
	for _, p := range e.Ports {
		for _, a := range s.addrs {
			if err := x.listen(p, netip.AddrPortFrom(a, p.Pod)); err != nil {
				return nil, fmt.Errorf("listen on %s %s: %w", p.Protocol, netip.AddrPortFrom(a, p.Pod), err)
			}
		}
	}
	return x, nil
}

func (x *served) listen(p Port, at netip.AddrPort) error {
	to := netip.AddrPortFrom(x.Laptop, p.Relay)
	if p.Protocol == steer.UDP {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		x.ports = append(x.ports, c)
		x.work.Go(func() { x.receive(c, to) })
		return nil
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	x.ports = append(x.ports, l)
	x.work.Go(func() { x.accept(l, to) })
	return nil
}

// take reports whether there may be one connection or flow more, which give gives
// back.
func (s *Server) take() bool {
	if s.open.Add(1) > MaxAll || s.full.Load() {
		s.give()
		return false
	}
	return true
}

func (s *Server) give() { s.open.Add(-1) }

// SetFull says whether there is no memory for further connections and flows: then none
// begins.
func (s *Server) SetFull(full bool) { s.full.Store(full) }

// Shed breaks off the newest connections of the exposure that has the most, one in so
// many, unless it has less than least. What a laptop does not take waits here, up to
// 1 MiB for each.
func (s *Server) Shed(oneIn, least int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var most []*carried
	for _, x := range s.served {
		x.mu.Lock()
		if len(x.conns) > len(most) {
			most = slices.Clone(x.conns)
		}
		x.mu.Unlock()
	}
	if len(most) < least {
		return
	}
	for _, c := range most[len(most)-len(most)/oneIn-1:] {
		c.end()
	}
}

// end closes the ports, breaks off what there is, and waits.
func (x *served) end() {
	x.cancel()
	for _, c := range x.ports {
		_ = c.Close()
	}
	x.work.Wait()
}
