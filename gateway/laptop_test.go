package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/gateway/ground"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

// laptop is a peer in this process.
type laptop struct {
	*stage
	name   string
	secret key.Private
	peer   podnet.Peer
	stack  *netstack.Stack
}

// enrol writes a Peer and its Accesses as a client would, and waits for Ready.
func (s *stage) enrol(name string, lease int32, namespaces ...string) *laptop {
	s.Helper()
	return s.enrolWith(name, podnet.PeerSpec{LeaseSeconds: lease}, namespaces...)
}

// enrolWith is enrol with a spec of the caller's.
func (s *stage) enrolWith(name string, spec podnet.PeerSpec, namespaces ...string) *laptop {
	s.Helper()
	secret, err := key.NewPrivate()
	if err != nil {
		s.Fatal(err)
	}
	l := &laptop{stage: s, name: name, secret: secret}
	spec.User, spec.Device, spec.PublicKey, spec.Renew = s.user, name, secret.Public().String(), 1
	p := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: name}, Spec: spec}
	if err := s.alice.Create(s.Context(), p); err != nil {
		s.Fatal(err)
	}
	for _, ns := range namespaces {
		a := access(ns, name, 1)
		a.Spec.User = s.user
		if err := s.alice.Create(s.Context(), a); err != nil {
			s.Fatal(err)
		}
	}
	l.await("is ready", func(p *podnet.Peer) bool {
		return meta.IsStatusConditionTrue(p.Status.Conditions, podnet.ConditionReady)
	})
	for _, ns := range namespaces {
		apiserver.Eventually(s.T, 30*time.Second, ns+" is open", func() error {
			var a podnet.Access
			if err := s.alice.Get(s.Context(), types.NamespacedName{Namespace: ns, Name: name}, &a); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(a.Status.Conditions, podnet.ConditionReady) {
				return fmt.Errorf("status %+v", a.Status)
			}
			return nil
		})
	}
	return l
}

func (l *laptop) await(what string, f func(*podnet.Peer) bool) {
	l.Helper()
	apiserver.Eventually(l.T, 30*time.Second, l.name+" "+what, func() error {
		if err := l.alice.Get(l.Context(), types.NamespacedName{Namespace: deploy.DefaultNamespace, Name: l.name}, &l.peer); err != nil {
			return err
		}
		if !f(&l.peer) {
			return fmt.Errorf("status %+v", l.peer.Status)
		}
		return nil
	})
}

// connect brings up the laptop's end of the tunnel.
func (l *laptop) connect(g *Gateway, routes ...netip.Prefix) {
	l.Helper()
	l.connectAt(g.ground.Tunnel.ListenPort(), routes...)
}

// connectAt is connect to a gateway whose UDP port is known.
func (l *laptop) connectAt(port uint16, routes ...netip.Prefix) {
	l.Helper()
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		l.Fatal(err)
	}
	l.stack = stack
	for _, a := range []string{l.peer.Status.Address4, l.peer.Status.Address6} {
		if err := stack.AddAddress(netip.MustParseAddr(a)); err != nil {
			l.Fatal(err)
		}
	}
	tun, err := tunnel.New(stack.Device(), transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: l.secret, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = tun.Close(); _ = stack.Close() })
	gatewayKey, err := key.ParsePublic(l.peer.Status.Gateways[0].PublicKey)
	if err != nil {
		l.Fatal(err)
	}
	routes = append(routes, netip.PrefixFrom(ground.Service4, 32), key.Prefix6)
	if err := tun.SetPeers([]tunnel.Peer{{PublicKey: gatewayKey, Endpoint: fmt.Sprintf("127.0.0.1:%d", port), AllowedIPs: routes}}); err != nil {
		l.Fatal(err)
	}
}

// dial connects through the tunnel.
func (l *laptop) dial(to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.Context(), limit)
	defer cancel()
	return l.stack.DialTCP(ctx, to)
}

// resolve asks the gateway's DNS through the tunnel.
func (l *laptop) resolve(name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(l.Context(), 5*time.Second)
	defer cancel()
	return l.resolver().LookupHost(ctx, name)
}

// resolver asks the gateway's DNS through the tunnel.
func (l *laptop) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		at := netip.AddrPortFrom(ground.Service4, 53)
		if strings.HasPrefix(network, "udp") {
			return l.stack.DialUDP(at)
		}
		return l.stack.DialTCP(ctx, at)
	}}
}
