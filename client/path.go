package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// Paths that may be asked for.
const (
	PathAuto      = "auto"
	PathUDP       = "udp"
	PathAPIServer = "apiserver"
)

// MTUs of the TUN, in bytes. WireGuard over UDP has to fit into Ethernet's 1500;
// a stream has no such limit, and large packets spare work at both ends
// (design/performance.md: three times the throughput).
const (
	mtuUDP    = 1420
	mtuStream = 16384
)

const (
	// udpBudget is how long auto tries UDP in all, udpLeast for each endpoint.
	udpBudget = time.Second
	udpLeast  = 350 * time.Millisecond
	// pathTime is how long a path that was asked for may take.
	pathTime = 8 * time.Second
	// keepalive keeps NAT mappings open and tells a dead gateway from a silent
	// one; WireGuard's usual value.
	keepalive = 25 * time.Second
)

// handshake makes the TUN and the tunnel and finds a path that answers.
func (s *Session) handshake(ctx context.Context) (string, error) {
	dev, err := s.host.TUN(mtuUDP)
	if err != nil {
		return "", err
	}
	name, err := dev.Name()
	if err != nil {
		return "", errors.Join(err, dev.Close())
	}
	bind := transport.NewBind(transport.Options{Log: s.Log})
	t, err := tunnel.New(dev, bind, tunnel.Config{PrivateKey: s.private, Log: s.Log})
	if err != nil {
		return "", err
	}
	gateway := bind.NewGateway(transport.GatewayConfig{})
	s.mu.Lock()
	s.tunnel, s.gateway = t, gateway
	s.status.Tunnel.Interface, s.status.Tunnel.MTU = name, mtuUDP
	s.mu.Unlock()
	s.undo.add("the tunnel", func(context.Context) error { return errors.Join(gateway.Close(), t.Close()) })

	why, err := s.choosePath(ctx, s.granted.Status.Gateways[0])
	if err != nil {
		return "", err
	}
	st := gateway.Status().Active
	s.set(func(c *localapi.Connection) { c.Path.Reason = why })
	text := string(st.Kind) + " " + st.Remote
	if why != "" {
		text += " (" + why + ")"
	}
	return text, nil
}

// choosePath makes a handshake over UDP where that answers quickly, else over
// the API server. why says what made it so, when it was not the first choice.
func (s *Session) choosePath(ctx context.Context, gw v1alpha1.Gateway) (why string, err error) {
	endpoints := udpEndpoints(gw)
	if s.Request.Path != PathAPIServer {
		why = "the gateway has no UDP endpoint"
		budget := udpBudget
		if s.Request.Path == PathUDP {
			budget = pathTime
		}
		if len(endpoints) > 0 {
			each := max(budget/time.Duration(len(endpoints)), udpLeast)
			for _, e := range endpoints {
				s.gateway.UseUDP(e)
				if err := s.greet(ctx, gw, each); err == nil {
					return "", nil
				} else if ctx.Err() != nil {
					return "", ctx.Err()
				}
			}
			why = fmt.Sprintf("UDP to %s not answered", endpoints[0])
		}
		if s.Request.Path == PathUDP {
			return "", &localapi.Error{Code: localapi.CodeTimeout, Message: "no UDP path to the gateway: " + why,
				Hint: "--path auto goes through the API server; podnet install --node-port opens a UDP port", Status: http.StatusGatewayTimeout}
		}
	} else {
		why = ""
	}
	return why, s.overAPIServer(ctx, gw)
}

func udpEndpoints(gw v1alpha1.Gateway) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range gw.Endpoints {
		if a, err := netip.ParseAddrPort(e); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// overAPIServer waits until the stream stands before it makes WireGuard speak:
// a handshake that is lost is tried again only after 5 s.
func (s *Session) overAPIServer(ctx context.Context, gw v1alpha1.Gateway) error {
	ctx, cancel := context.WithTimeout(ctx, pathTime)
	defer cancel()
	if err := s.tunnel.SetPeers(nil); err != nil {
		return err
	}
	refused := make(chan error, 1)
	s.gateway.UseStream(func(ctx context.Context) (net.Conn, error) {
		conn, err := s.cluster.DialPod(ctx, s.Request.GatewayNamespace, gw.Pod, uint16(gw.StreamPort))
		var forbidden *cluster.ForbiddenError
		if errors.As(err, &forbidden) {
			select {
			case refused <- err:
			default:
			}
		}
		return conn, err
	})
	for !s.gateway.Status().Active.Live {
		select {
		case err := <-refused:
			return err
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return s.noStream(ctx)
		}
		var version transport.VersionError
		if err := s.gateway.Status().Active.LastError; errors.As(err, &version) {
			return &localapi.Error{Code: localapi.CodeTooOld, Message: "the gateway speaks another version of the protocol: " + err.Error(),
				Hint: "install the same version on both sides: podnet version, podnet install"}
		}
	}
	if err := s.greet(ctx, gw, pathTime); err != nil {
		return s.noStream(ctx)
	}
	return nil
}

func (s *Session) noStream(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	e := &localapi.Error{Code: localapi.CodeTimeout, Message: "no handshake with the gateway through the API server",
		Hint: "kubectl -n " + s.Request.GatewayNamespace + " get pods; kubectl port-forward must work, too"}
	if last := s.gateway.Status().Active.LastError; last != nil {
		e.Message += ": " + last.Error()
	}
	return e
}

// greet makes the gateway a fresh peer, so that a handshake goes out at once,
// and waits for the answer.
func (s *Session) greet(ctx context.Context, gw v1alpha1.Gateway, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p, err := s.gatewayPeer(gw)
	if err != nil {
		return err
	}
	if err := s.tunnel.SetPeers(nil); err != nil {
		return err
	}
	if err := s.tunnel.SetPeers([]tunnel.Peer{p}); err != nil {
		return err
	}
	return s.tunnel.WaitHandshake(ctx, p.PublicKey)
}

func (s *Session) gatewayPeer(gw v1alpha1.Gateway) (tunnel.Peer, error) {
	pub, err := key.ParsePublic(gw.PublicKey)
	if err != nil {
		return tunnel.Peer{}, fmt.Errorf("the key of gateway %s: %w", gw.Pod, err)
	}
	n, err := parseNetwork(s.granted)
	if err != nil {
		return tunnel.Peer{}, err
	}
	return tunnel.Peer{PublicKey: pub, Endpoint: s.gateway.Endpoint(), AllowedIPs: n.inside(), Keepalive: keepalive}, nil
}
