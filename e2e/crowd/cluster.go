package crowd

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client"
)

// wired is a cluster as it is seen over a Wire: the endpoints that the gateway
// publishes are those of the wire, and its streams run over it.
type wired struct {
	client.Cluster
	wire *Wire
	// gone makes the laptop leave without a goodbye: its objects stay behind.
	gone atomic.Bool
}

func (c *wired) Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.Peer(ctx, namespace, name)
	return c.rewrite(p, err)
}

func (c *wired) Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.Await(ctx, namespace, name, accesses)
	return c.rewrite(p, err)
}

func (c *wired) SetVirtual(ctx context.Context, namespace, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.SetVirtual(ctx, namespace, name, virtual)
	return c.rewrite(p, err)
}

// Over is c as it is seen over w.
func Over(w *Wire, c client.Cluster) client.Cluster { return &wired{Cluster: c, wire: w} }

// SetCandidates keeps them from the gateway: they would be a way around the wire.
func (c *wired) SetCandidates(context.Context, string, string, []string) error { return nil }

// rewrite leads UDP over the wire, and leaves out the gateway's candidates.
func (c *wired) rewrite(p *v1alpha1.Peer, err error) (*v1alpha1.Peer, error) {
	if err != nil {
		return nil, err
	}
	p = p.DeepCopy()
	for i := range p.Status.Gateways {
		g := &p.Status.Gateways[i]
		g.Candidates = nil
		for j, e := range g.Endpoints {
			to, err := netip.ParseAddrPort(e)
			if err != nil {
				continue
			}
			via, err := c.wire.Via(to)
			if err != nil {
				return nil, err
			}
			g.Endpoints[j] = via.String()
		}
	}
	return p, nil
}

func (c *wired) DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
	conn, err := c.Cluster.DialPod(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	return c.wire.Stream(conn), nil
}

func (c *wired) DeletePeer(ctx context.Context, namespace, name string) error {
	if c.gone.Load() {
		return nil
	}
	return c.Cluster.DeletePeer(ctx, namespace, name)
}

func (c *wired) DeleteAccess(ctx context.Context, namespace, peer string) error {
	if c.gone.Load() {
		return nil
	}
	return c.Cluster.DeleteAccess(ctx, namespace, peer)
}
