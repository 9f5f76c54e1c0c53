package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"podnet.dev/gateway/agent/redirect"
)

// tcpPort listens for a steered TCP port in those families of IP in which the app
// does: in another one the kernel refuses, as it does without us, so that a client
// that knows both, as of localhost, goes on to the one that there is. Guarded by
// Server.mu.
type tcpPort struct {
	s    *Server
	key  PortKey
	to   uint16 // 0: any
	open map[families]net.Listener
}

// listenTCP listens at a port; 0: any.
func (s *Server) listenTCP(k PortKey, at uint16, in families) (*port, error) {
	p := &tcpPort{s: s, key: k, to: at, open: map[families]net.Listener{}}
	follow := p.follow
	if s.Listen != nil {
		follow = p.listen
	}
	if err := follow(in); err != nil {
		p.close()
		return nil, err
	}
	return &port{key: k, to: p.to, follow: follow, close: p.close}, nil
}

// listen uses the Server's own way to listen, whatever the family.
func (p *tcpPort) listen(families) error {
	if len(p.open) > 0 {
		return nil
	}
	l, err := p.s.Listen(p.s.ctx)
	if err != nil {
		return err
	}
	p.add(inetBoth, l)
	return nil
}

// follow listens in exactly these families; none: as before, as nobody is sent here.
func (p *tcpPort) follow(in families) error {
	if in == 0 {
		if len(p.open) > 0 {
			return nil
		}
		in = inet4
	}
	for _, one := range []struct {
		family  families
		network string
	}{{inet4, "tcp4"}, {inet6, "tcp6"}} {
		switch l := p.open[one.family]; {
		case in&one.family == 0 && l != nil:
			l.Close()
			delete(p.open, one.family)
		case in&one.family != 0 && l == nil:
			l, err := listenAt(p.s.ctx, one.network, p.to)
			if errors.Is(err, syscall.EAFNOSUPPORT) && len(p.open) > 0 {
				continue // the kernel has no IPv6
			}
			if err != nil {
				return err
			}
			p.add(one.family, l)
		}
	}
	return nil
}

func (p *tcpPort) add(f families, l net.Listener) {
	p.open[f], p.to = l, l.Addr().(*net.TCPAddr).AddrPort().Port()
	p.s.wg.Go(func() { p.s.accept(l, p.key) })
}

func (p *tcpPort) close() {
	for _, l := range p.open {
		l.Close()
	}
}

func listenAt(ctx context.Context, network string, port uint16) (net.Listener, error) {
	lc := net.ListenConfig{Control: redirect.ControlListener}
	lc.SetMultipathTCP(false) // the pod's own program has not asked for it
	return lc.Listen(ctx, network, fmt.Sprintf(":%d", port))
}
