// Package egress connects gateways to targets from the network that this process
// is in, a pod's: what a laptop sends so leaves as the pod's own traffic. It needs
// no privilege.
//
// Whether a flow is allowed the gateway has decided, all but this: nothing here
// reaches the pod's own loopback, nor what no router forwards.
package egress

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

const (
	// maxFlows bounds all flows together: what they take is the pod's.
	maxFlows = 512
	// askTime is how long a gateway may take to say what it wants.
	askTime = control.Silence
	// dialTime is how long a target may take.
	dialTime = 10 * time.Second
)

// keepAlive finds targets that vanished, as the gateway's.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// Server opens flows for gateways.
type Server struct {
	// Control, if there is one, is that of a net.Dialer. It is set before Serve.
	Control func(network, address string, c syscall.RawConn) error

	log  *slog.Logger
	seen func(rule string, err error)

	// Tests redirect targets, which are never the loopback, to there.
	rewrite func(netip.AddrPort) netip.AddrPort

	mu       sync.Mutex
	gateways map[netip.Addr]bool
	flows    map[*flow]struct{}
}

// flow is a connection of a gateway, and what ends it.
type flow struct {
	gateway netip.Addr
	end     context.CancelFunc
}

// New makes a Server that serves nobody. seen hears of each flow by which rule it was
// asked for, as its gateway says, and why it was not opened; nil: it was.
func New(log *slog.Logger, seen func(rule string, err error)) *Server {
	return &Server{log: log, seen: seen, flows: map[*flow]struct{}{}, rewrite: func(a netip.AddrPort) netip.AddrPort { return a }}
}

// Set says which gateways, by their tunnel addresses, may have flows opened from
// now on. What is open for others is reset.
func (s *Server) Set(gateways []netip.Addr) {
	may := make(map[netip.Addr]bool, len(gateways))
	for _, a := range gateways {
		may[a] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateways = may
	for f := range s.flows {
		if !may[f.gateway] {
			f.end()
		}
	}
}

// Serve serves at l until ctx ends or l fails; it closes l, and resets what is
// open. It is called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		<-ctx.Done()
		_ = l.Close()
	})
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		running.Go(func() { s.serve(ctx, c) })
	}
}

// begin takes note of a flow of a gateway that may have it. full says that there
// is no room for it. The flow ends when its ctx does.
func (s *Server) begin(ctx context.Context, gateway netip.Addr) (_ context.Context, f *flow, full bool) {
	ctx, end := context.WithCancel(ctx)
	f = &flow{gateway, end}
	s.mu.Lock()
	defer s.mu.Unlock()
	full = len(s.flows) >= maxFlows
	if !s.gateways[gateway] || full {
		end()
		return nil, nil, full && s.gateways[gateway]
	}
	s.flows[f] = struct{}{}
	return ctx, f, false
}

func (s *Server) forget(f *flow) {
	f.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flows, f)
}

// serve opens one flow and carries it.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		splice.Reset(c)
		return
	}
	ctx, f, full := s.begin(ctx, from.Addr())
	if f == nil {
		if full {
			s.refuse(c, fmt.Errorf("%d flows are open already: %w", maxFlows, syscall.EMFILE))
			return
		}
		s.log.Debug("flow refused", "addr", from)
		splice.Reset(c)
		return
	}
	defer s.forget(f)
	stop := context.AfterFunc(ctx, func() { splice.Reset(c) })
	defer stop()
	out, rule, err := s.open(ctx, c)
	s.seen(rule, err)
	if err != nil {
		if stop() {
			s.refuse(c, err)
		}
		return
	}
	defer context.AfterFunc(ctx, func() { splice.Reset(out) })()
	if socket, ok := out.(*net.UDPConn); ok {
		err = relay(c, socket)
	} else {
		err = splice.Join(c, out, nil, nil)
	}
	_, _ = c.Close(), out.Close()
	s.log.Debug("flow over", "gateway", from.Addr(), "addr", out.RemoteAddr(), "err", err)
}

// refuse answers what cannot be opened.
func (s *Server) refuse(c net.Conn, err error) {
	s.log.Debug("flow failed", "err", err)
	_ = c.SetDeadline(time.Now().Add(askTime))
	_ = control.Write(c, control.Outcome(err)) // or the gateway has gone
	_ = c.Close()
}

// open hears what is wanted and by which rule, connects to it and says so.
func (s *Server) open(ctx context.Context, c net.Conn) (out net.Conn, rule string, err error) {
	_ = c.SetDeadline(time.Now().Add(askTime))
	var want control.Open
	if err := control.ReadOpen(c, &want); err != nil {
		return nil, "", err
	}
	to, err := target(want)
	if err != nil {
		return nil, want.Rule, err
	}
	d := net.Dialer{Timeout: dialTime, KeepAliveConfig: keepAlive, Control: s.Control}
	if out, err = d.DialContext(ctx, string(want.Protocol), s.rewrite(to).String()); err != nil {
		return nil, want.Rule, err
	}
	_ = c.SetDeadline(time.Now().Add(askTime))
	if err := control.Write(c, control.Opened{}); err != nil {
		splice.Reset(out)
		return nil, want.Rule, err
	}
	_ = c.SetDeadline(time.Time{})
	return out, want.Rule, nil
}

// target is where a flow may go.
func target(want control.Open) (netip.AddrPort, error) {
	a := want.To.Addr().Unmap()
	to := netip.AddrPortFrom(a, want.To.Port())
	switch {
	case want.Protocol != steer.TCP && want.Protocol != steer.UDP:
		return to, fmt.Errorf("protocol %q: %w", want.Protocol, syscall.EACCES)
	case !a.IsValid() || to.Port() == 0:
		return to, fmt.Errorf("%v is no target: %w", want.To, syscall.EACCES)
	case a.IsLoopback(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Zone() != "", a == broadcast:
		return to, fmt.Errorf("nobody may reach %s from here: %w", a, syscall.EACCES)
	}
	return to, nil
}

// broadcast would have the pod ask all of its link.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
