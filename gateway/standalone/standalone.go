// Package standalone is a gateway without Kubernetes: it takes an ordinary
// WireGuard configuration and forwards its peers' flows to what its host can
// reach. Any WireGuard client can use it, and it needs no privilege.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	clouds "podnet.dev/gateway/policy"
	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/resident"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/wgconf"
)

const (
	// mtu is what the gateway's TCP offers; segments follow the peer's own MTU.
	mtu = 16384
	// defaultPort is used when the file names none: a server must be found.
	defaultPort = 51820
	// hostAddressesEvery is how often the host's own addresses are looked up.
	hostAddressesEvery = 30 * time.Second
)

// Options of Run.
type Options struct {
	ConfigFile string // as for wg-quick(8); keys that would change the host are ignored
	Log        *slog.Logger
}

// Run serves until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	cfg, err := readConfig(o.ConfigFile)
	if err != nil {
		return err
	}
	g, err := newGateway(ctx, cfg, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	o.Log.Info("gateway ready", "port", g.tunnel.ListenPort(), "key", cfg.PrivateKey.Public().String(), "peers", len(cfg.Peers))
	resident.Shed() // what starting took
	return g.run(ctx)
}

func readConfig(name string) (wgconf.Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return wgconf.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	cfg, err := wgconf.Parse(f)
	if err != nil {
		return cfg, fmt.Errorf("read configuration %s: %w", name, err)
	}
	if cfg.ListenPort == 0 {
		cfg.ListenPort = defaultPort
	}
	return cfg, nil
}

type gateway struct {
	stack   *netstack.Stack
	tunnel  *tunnel.Tunnel
	forward *forward.Forwarder
	policy  *policy
}

func newGateway(ctx context.Context, cfg wgconf.Config, log *slog.Logger) (*gateway, error) {
	peers, err := resolve(ctx, cfg.Peers)
	if err != nil {
		return nil, err
	}
	stack, err := netstack.New(netstack.Config{MTU: mtu, Log: log})
	if err != nil {
		return nil, err
	}
	for _, a := range cfg.Addresses {
		if err := stack.AddAddress(a.Addr()); err != nil {
			return nil, errors.Join(err, stack.Close())
		}
	}
	g := &gateway{stack: stack, policy: newPolicy(cfg.Peers)}
	g.forward = forward.New(stack, g.policy, forward.Options{Log: log})
	bind := transport.NewBind(transport.Options{Log: log})
	g.tunnel, err = tunnel.New(stack.Device(), bind, tunnel.Config{
		PrivateKey: cfg.PrivateKey, ListenPort: cfg.ListenPort, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, stack.Close())
	}
	if err := g.tunnel.SetPeers(peers); err != nil {
		return nil, errors.Join(err, g.close())
	}
	keys, err := probeKeys(cfg)
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	bind.Answer(keys)
	return g, nil
}

// probeKeys are those of the peers that probe, as podnet's own clients do.
func probeKeys(cfg wgconf.Config) ([]probe.Key, error) {
	keys := make([]probe.Key, len(cfg.Peers))
	for i, p := range cfg.Peers {
		k, err := probe.NewKey(cfg.PrivateKey, p.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("peer %s: %w", p.PublicKey.Short(), err)
		}
		keys[i] = k
	}
	return keys, nil
}

// resolve turns peers into those of a tunnel, whose endpoints are addresses.
func resolve(ctx context.Context, peers []wgconf.Peer) ([]tunnel.Peer, error) {
	out := make([]tunnel.Peer, len(peers))
	for i, p := range peers {
		out[i] = tunnel.Peer{PublicKey: p.PublicKey, PresharedKey: p.PresharedKey, Endpoint: p.Endpoint, AllowedIPs: p.AllowedIPs, Keepalive: p.Keepalive}
		if p.Endpoint == "" {
			continue
		}
		host, port, err := net.SplitHostPort(p.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("endpoint of peer %s: %w", p.PublicKey.Short(), err)
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("endpoint of peer %s: %w", p.PublicKey.Short(), err)
		}
		out[i].Endpoint = net.JoinHostPort(addrs[0].Unmap().String(), port)
	}
	return out, nil
}

func (g *gateway) run(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return g.forward.Run(ctx) })
	eg.Go(func() error {
		g.policy.watchHost(ctx)
		return nil
	})
	eg.Go(func() error {
		select {
		case <-g.tunnel.Done():
			return errors.New("the tunnel has closed by itself")
		case <-ctx.Done():
			return nil
		}
	})
	return eg.Wait()
}

func (g *gateway) close() error {
	return errors.Join(g.tunnel.Close(), g.stack.Close())
}

// policy allows what an ordinary router would forward, and nothing of the
// gateway's own host, of other peers, or that gives away the host's credentials.
type policy struct {
	peers []netip.Prefix
	host  atomic.Pointer[map[netip.Addr]bool]
}

func newPolicy(peers []wgconf.Peer) *policy {
	p := &policy{}
	for _, peer := range peers {
		for _, a := range peer.AllowedIPs {
			if a.Bits() > 0 {
				p.peers = append(p.peers, a.Masked())
			}
		}
	}
	p.host.Store(hostAddresses())
	return p
}

// Allow implements forward.Policy, which itself refuses loopback, link-local
// and multicast addresses.
func (p *policy) Allow(_ netip.Addr, _ forward.Proto, dst netip.AddrPort) bool {
	a := dst.Addr()
	if clouds.Metadata(a) || (*p.host.Load())[a] {
		return false
	}
	for _, peer := range p.peers {
		if peer.Contains(a) {
			return false
		}
	}
	return true
}

func (p *policy) watchHost(ctx context.Context) {
	tick := time.NewTicker(hostAddressesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.host.Store(hostAddresses())
		}
	}
}

func hostAddresses() *map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return &own
}
