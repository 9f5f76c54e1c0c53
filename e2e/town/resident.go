package town

import (
	"context"
	"errors"
	"net"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

// server is the API server's name.
const server = "https://town"

// resident is the town as a laptop sees it.
type resident struct{ *Town }

// Cluster is the town as alice's laptop sees it.
func (w *Town) Cluster() client.Cluster { return resident{w} }

func (r resident) Check(context.Context) error { return nil }
func (r resident) Whoami() cluster.Identity {
	return cluster.Identity{Context: "town", Namespace: "shop", Server: server, User: "alice"}
}
func (r resident) Remotes() []netip.Addr { return nil }
func (r resident) Redial()               {}

func (r resident) Namespaces(context.Context) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []string{"shop"}, r.callLocked()
}

// ServicesIn has one Service, which says below which domain it was asked for.
func (r resident) ServicesIn(_ context.Context, namespace, domain string) ([]localapi.Service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return nil, err
	}
	return []localapi.Service{{Namespace: namespace, Name: "web", Type: "ClusterIP", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 80, URL: "http://web." + domain}}}}, nil
}

// callLocked is what every call to the API meets first. mu is held.
func (r resident) callLocked() error {
	switch {
	case r.trouble.Away:
		return &cluster.UnreachableError{Server: server, Err: errors.New("connection refused")}
	case r.trouble.Forbidden:
		r.refused++
		return &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Group: v1alpha1.GroupVersion.Group, Resource: "peers", Namespace: "podnet-system"}}
	}
	return nil
}

func (r resident) CreatePeer(_ context.Context, _, name string, spec v1alpha1.PeerSpec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	r.last = r.last.Next()
	r.peers[name] = &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec, Status: v1alpha1.PeerStatus{
		Address4: r.last.String(),
		Network: &v1alpha1.Network{PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"}, DNSDomain: "cluster.local",
			DNSAddresses: []string{NameServer.String()}},
	}}
	return r.admitLocked()
}

// edit calls f with the Peer of that name.
func (r resident) edit(name string, f func(*v1alpha1.Peer) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	p := r.peers[name]
	if p == nil {
		return cluster.ErrGone
	}
	return f(p)
}

func (r resident) RenewPeer(_ context.Context, _, name string, renew int64) error {
	return r.edit(name, func(p *v1alpha1.Peer) error {
		p.Spec.Renew = renew
		r.trouble.Cut = r.trouble.Cut && !r.trouble.Revive
		return r.admitLocked()
	})
}

func (r resident) SetCandidates(_ context.Context, _, name string, list []string) error {
	return r.edit(name, func(p *v1alpha1.Peer) error {
		p.Spec.Candidates = list
		return nil
	})
}

// SetVirtual maps for a Peer at once.
func (r resident) SetVirtual(_ context.Context, _, name string, virtual []v1alpha1.VirtualPrefix) (copied *v1alpha1.Peer, err error) {
	err = r.edit(name, func(p *v1alpha1.Peer) error {
		p.Spec.Virtual, p.Status.Virtual = virtual, virtual
		copied = p.DeepCopy()
		return r.mapLocked()
	})
	return copied, err
}

func (r resident) Peer(_ context.Context, _, name string) (copied *v1alpha1.Peer, err error) {
	err = r.edit(name, func(p *v1alpha1.Peer) error {
		copied = p.DeepCopy()
		return nil
	})
	return copied, err
}

func (r resident) Await(ctx context.Context, namespace, name string, _ []string) (*v1alpha1.Peer, error) {
	return r.Peer(ctx, namespace, name)
}

func (r resident) DeletePeer(_ context.Context, _, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peers, name)
	return r.admitLocked()
}

func (r resident) CreateAccess(context.Context, string, string, v1alpha1.AccessScope) error {
	return nil
}
func (r resident) RenewAccess(context.Context, string, string, v1alpha1.AccessScope, int64) error {
	return nil
}
func (r resident) DeleteAccess(context.Context, string, string) error { return nil }

func (r resident) DialPod(ctx context.Context, _, pod string, _ uint16) (net.Conn, error) {
	r.mu.Lock()
	g, err := r.gateways[pod], r.callLocked()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errors.New("pod " + pod + " does not exist")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", g.streams.Addr().String())
}
