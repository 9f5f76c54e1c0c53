package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
)

const (
	// mtu fits into any tunnel within an overlay network, whose own is 1450 and
	// sometimes less: IPv6's minimum.
	mtu = 1280
	// keepalive tells the gateway that the agent is there.
	keepalive = 10 * time.Second
	// tunBatch is how many packets WireGuard takes at once, each in a buffer of
	// 64 KiB: as many as the largest datagram has fragments.
	tunBatch = 64
)

// greetTimes are how long handshakes may take, one after another and then from
// the first again. The gateway learns the agent's key only after the agent has
// begun, and does not answer before; WireGuard itself would try again after 5 s
// only. The last is for a gateway that is slow.
var greetTimes = [...]time.Duration{300 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// wire is the agent's end of the tunnels: a TCP/IP stack, the WireGuard device,
// and the gateways that are its peers.
type wire struct {
	stack  *netstack.Stack
	tunnel *tunnel.Tunnel

	mu    sync.Mutex
	peers map[key.Public]*peer
}

// peer is a gateway.
type peer struct {
	endpoints []netip.AddrPort
	at        int          // of endpoints, the one to try
	laptops   []netip.Addr // that are reached through it
}

// slim is a tun.Device of which WireGuard takes less at once.
type slim struct{ tun.Device }

func (slim) BatchSize() int { return tunBatch }

func newWire(private key.Private, log *slog.Logger) (*wire, error) {
	stack, err := netstack.New(netstack.Config{MTU: mtu, Log: log})
	if err != nil {
		return nil, err
	}
	if err := stack.AddAddress(private.Public().Address6()); err != nil {
		return nil, errors.Join(err, stack.Close())
	}
	t, err := tunnel.New(slim{stack.Device()}, &bind{}, tunnel.Config{PrivateKey: private, Log: log})
	if err != nil {
		return nil, errors.Join(err, stack.Close())
	}
	return &wire{stack: stack, tunnel: t, peers: map[key.Public]*peer{}}, nil
}

// set makes the gateways the tunnel's peers, and reaches each laptop through the
// gateway that ways says. Sessions with those that stay go on.
func (w *wire) set(gateways []control.Gateway, ways map[netip.Addr]key.Public) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	peers := map[key.Public]*peer{}
	for _, g := range gateways {
		p := &peer{endpoints: g.Endpoints}
		if have := w.peers[g.PublicKey]; have != nil && slices.Equal(have.endpoints, g.Endpoints) {
			p.at = have.at
		}
		peers[g.PublicKey] = p
	}
	for laptop, k := range ways {
		if p := peers[k]; p != nil {
			p.laptops = append(p.laptops, laptop)
		}
	}
	w.peers = peers
	return w.applyLocked(key.Public{})
}

// applyLocked tells the device of all peers but one.
func (w *wire) applyLocked(without key.Public) error {
	var want []tunnel.Peer
	for k, p := range w.peers {
		if k == without {
			continue
		}
		t := tunnel.Peer{
			PublicKey: k, Endpoint: p.endpoints[p.at%len(p.endpoints)].String(), Keepalive: keepalive,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(k.Address6(), 128)},
		}
		for _, a := range p.laptops {
			t.AllowedIPs = append(t.AllowedIPs, netip.PrefixFrom(a, 128))
		}
		want = append(want, t)
	}
	return w.tunnel.SetPeers(want)
}

// again begins a new handshake with a gateway, at its next endpoint.
func (w *wire) again(k key.Public) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.peers[k]
	if p == nil {
		return tunnel.ErrUnknownPeer
	}
	p.at++
	if err := w.applyLocked(k); err != nil {
		return err
	}
	return w.applyLocked(key.Public{})
}

// greet waits for a handshake with a gateway, and asks again and again when none
// comes. fresh asks for a new one, as the last one leads nowhere any more.
func (w *wire) greet(ctx context.Context, k key.Public, fresh bool) error {
	for i := 0; ; i++ {
		if i > 0 || fresh {
			if err := w.again(k); err != nil {
				return err
			}
		}
		wait, cancel := context.WithTimeout(ctx, greetTimes[i%len(greetTimes)])
		err := w.tunnel.WaitHandshake(wait, k)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, tunnel.ErrUnknownPeer) {
			return err
		}
	}
}

// dial opens a TCP connection through the tunnel within d.
func (w *wire) dial(ctx context.Context, to netip.AddrPort, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return w.stack.DialTCP(ctx, to)
}

func (w *wire) Close() error {
	w.stack.Flush(100 * time.Millisecond)
	return errors.Join(w.tunnel.Close(), w.stack.Close())
}
