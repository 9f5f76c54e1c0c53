// Package serve takes what was redirected to the agent and has it decided: each
// connection and each datagram of a steered port goes to the pod's own program,
// to a laptop, or to both.
//
// It listens, connects to the pod's own program, and carries bytes. What is
// decided is steer's matter, how the kernel sends it here redirect's, and how a
// laptop is reached its caller's. It must run in the agent's own group, or what it
// sends to the pod's program would come back to it.
//
// The pod's program sees connections from an address of the pod, as the client's
// cannot be kept. What it speaks is passed on byte for byte.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/backlog"
)

// What may be open and may wait, over all ports.
const (
	// MaxConns is how many TCP connections are decided at the same time. Those
	// beyond it are the pod's own program's, unread.
	MaxConns = 4096
	// MaxLaptop is how many connections, or UDP flows, a rule may have with its
	// laptop at the same time. To a connection beyond it the laptop is dead; of
	// flows, the one that was silent longest makes room.
	MaxLaptop = 256
	// MaxWaiting is how many bytes of copies and of datagrams may wait.
	MaxWaiting = 32 << 20
)

// PortKey is a port of the pod.
type PortKey struct {
	Protocol steer.Protocol
	Port     uint16
}

func (k PortKey) String() string { return fmt.Sprintf("%d/%s", k.Port, k.Protocol) }

// Config is what a Server needs of its agent. Its functions may be called by
// several goroutines at once.
type Config struct {
	// Rules are those of a port that are in force; nil: everything is the pod's
	// own program's. It is asked for each request and each datagram.
	Rules func(steer.Protocol, uint16) *steer.Port
	// Laptop connects to the laptop of a rule's owner, by TCP or UDP as the rule
	// says, or fails within 3 s. Closing such a connection from outside, as when
	// its rule is no longer in force, tells its client at once.
	Laptop func(context.Context, *steer.Rule) (net.Conn, error)
	// Observer gives who is told of what is over at a port.
	Observer func(PortKey) steer.Observer
	// NodeAddrs are the addresses from which the kubelet probes.
	NodeAddrs []netip.Addr
	// App connects to the program whose port it is, and Listen opens a TCP listener
	// for a port, where the Server is not in the program's pod. Nil: the program is
	// where the client wanted to go, and any port will do. Only for TCP.
	App    func(context.Context, PortKey) (*net.TCPConn, error)
	Listen func(context.Context) (net.Listener, error)
	Log    *slog.Logger
}

// Server listens at a port of its own for each steered one.
type Server struct {
	Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of all goroutines

	conns   atomic.Int64 // TCP connections, decided and not
	laptops limits
	pumps   pumps
	waiting *backlog.Budget // of copies and datagrams

	mu      sync.Mutex
	closed  bool
	ports   map[PortKey]*port
	retired map[*port]*time.Timer
}

// port is a listener for a steered port.
type port struct {
	key    PortKey
	to     uint16               // where it listens
	follow func(families) error // the app, whose families these are; nil: it listens in all
	close  func()
}

// New returns a Server that listens nowhere yet.
func New(c Config) *Server {
	s := &Server{
		Config: c, waiting: backlog.NewBudget(MaxWaiting),
		ports: map[PortKey]*port{}, retired: map[*port]*time.Timer{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Set listens for exactly ports, each named once, and returns what to redirect. A TCP port to which
// nobody in the pod listens is not among that, so that whoever tries it, as a probe
// of the kubelet does, is refused by the kernel: call Set every
// redirect.RefreshEvery. With App it is not looked who listens. The error says
// which ports have no listener.
//
// A port that is no longer among them is listened to while the kernel may still
// redirect to it, and what was open stays so: its rules are asked on.
func (s *Server) Set(ports []PortKey) ([]redirect.Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("listen for steered ports: %w", net.ErrClosed)
	}
	want := map[PortKey]bool{}
	for _, k := range ports {
		want[k] = true
	}
	for k, p := range s.ports {
		if !want[k] || want[PortKey{k.Protocol, p.to}] {
			s.retireLocked(p)
		}
	}

	var listening portSet
	if s.App == nil {
		listening = listeningPorts()
	}
	var redirects []redirect.Port
	var errs []error
	for _, k := range ports {
		p := s.ports[k]
		if p == nil {
			p = s.reviveLocked(k, want)
		}
		if p == nil {
			var err error
			if p, err = s.listen(k, want, listening.of(k.Port)); err != nil {
				errs = append(errs, fmt.Errorf("listen for port %s: %w", k, err))
				continue
			}
			s.ports[k] = p
		}
		switch r := (redirect.Port{Protocol: redirect.TCP, From: k.Port, To: p.to}); {
		case k.Protocol == steer.UDP:
			r.Protocol = redirect.UDP
			redirects = append(redirects, r)
		case listening.of(k.Port) != 0:
			if err := p.follow(listening.of(k.Port)); err != nil {
				errs = append(errs, fmt.Errorf("listen for port %s: %w", k, err))
			}
			redirects = append(redirects, r)
		}
	}
	return redirects, errors.Join(errs...)
}

// listen opens a listener for a port, to which the app listens in some families, at one
// that is not to be redirected itself.
func (s *Server) listen(k PortKey, steered map[PortKey]bool, in families) (*port, error) {
	open := func(k PortKey, at uint16) (*port, error) { return s.listenTCP(k, at, in) }
	if k.Protocol == steer.UDP {
		open = s.listenUDP
	}
	const attempts = 10 // an unlucky number is rare
	at := usual(k.Port)
	for range attempts {
		p, err := open(k, at)
		switch {
		case err == nil && !steered[PortKey{k.Protocol, p.to}]:
			return p, nil
		case err == nil:
			p.close()
		case at == 0:
			return nil, err
		}
		at = 0 // somebody has it; any other will do
	}
	return nil, errors.New("the system gives only ports that are steered")
}

// usual is where a steered port is listened to when that is free, by every agent
// that the pod ever has: the kernel remembers where it has redirected a flow to
// longer than an agent may live. A client that sends the next datagram of a flow, or
// that takes the port of a connection again that was reset 10 s ago or less
// (nf_conntrack_tcp_timeout_close), is redirected as before.
//
// It is a port from which connections begin, so that no program of the pod counts on
// it.
func usual(port uint16) uint16 { return 40000 + port%20000 }

// retireLocked closes a port when nothing can be on its way to it any more.
func (s *Server) retireLocked(p *port) {
	delete(s.ports, p.key)
	s.retired[p] = time.AfterFunc(redirect.Timeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.retired, p)
		p.close()
	})
}

// reviveLocked takes a port back that was retired, where it is not to be redirected
// itself; nil: there is none.
func (s *Server) reviveLocked(k PortKey, steered map[PortKey]bool) *port {
	for p, timer := range s.retired {
		if p.key == k && !steered[PortKey{k.Protocol, p.to}] && timer.Stop() {
			delete(s.retired, p)
			s.ports[k] = p
			return p
		}
	}
	return nil
}

// Conns is how many TCP connections are open.
func (s *Server) Conns() int { return int(s.conns.Load()) }

// Drain waits until no TCP connection is left, or ctx ends. Before it the ports
// are to be redirected no more.
func (s *Server) Drain(ctx context.Context) {
	const often = 10 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	for s.Conns() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close ends everything, also what is open, and waits for it. Further calls do
// nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.cancel()
		for _, p := range s.ports {
			p.close()
		}
		for p, timer := range s.retired {
			timer.Stop()
			p.close()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
