package town

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/gateway/exposure/serve"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer"
)

// ErrNoService says that nobody has a Service's name, or that it leads nowhere.
var ErrNoService = errors.New("no such Service, or nobody behind it")

// Exposed is where the Services lead that the user has written, by their names. All
// are in the namespace "shop".
func (w *Town) Exposed() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]string{}
	for name, host := range w.names {
		all[name] = host
	}
	return all
}

// Call connects to a port of an exposed Service, as any pod does: by the name to the
// gateway's Service, and through the gateway to the laptop.
func (w *Town) Call(ctx context.Context, network, name string, port uint16) (net.Conn, error) {
	w.mu.Lock()
	var at netip.AddrPort
	if e := w.exposures[name]; e != nil && e.Status.Host == w.names[name] {
		for _, g := range w.gateways {
			for i, p := range e.Spec.Ports {
				if p.Port == int32(port) && string(p.Protocol) == network {
					at = netip.AddrPortFrom(g.pod, e.pods[i])
				}
			}
		}
	}
	w.mu.Unlock()
	if !at.IsValid() {
		return nil, ErrNoService
	}
	var d net.Dialer
	return d.DialContext(ctx, network, at.String())
}

// exposed is an Exposure, and which port each of its own has on the gateways' pods.
type exposed struct {
	*v1alpha1.Exposure
	pods []uint16
}

// servedLocked is what gateways serve: the exposures whose Peer lives.
func (w *Town) servedLocked() (all []serve.Exposure) {
	for _, e := range w.exposures {
		laptop := w.peers[e.Spec.Peer]
		if laptop == nil {
			continue
		}
		k, err := key.ParsePublic(laptop.Spec.PublicKey)
		w.must(err)
		x := serve.Exposure{UID: string(e.UID), Name: e.Name, Laptop: k.RelayAddress6()}
		for i, p := range e.Spec.Ports {
			x.Ports = append(x.Ports, serve.Port{Protocol: steer.Protocol(p.Protocol), Pod: e.pods[i], Relay: uint16(p.RelayPort)})
		}
		all = append(all, x)
	}
	return all
}

// toLaptops reaches laptops from a gateway's own address.
type toLaptops struct {
	stack *netstack.Stack
	self  netip.Addr
}

func (d toLaptops) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return d.stack.DialTCPFrom(ctx, d.self, to)
}

func (d toLaptops) DialUDP(to netip.AddrPort) (serve.Datagrams, error) {
	return d.stack.DialUDPFrom(d.self, to)
}

// freePort is a port that nobody has on the address of a pod.
func (w *Town) freePort() uint16 {
	l, err := net.Listen("tcp", netip.AddrPortFrom(firstPod, 0).String())
	w.must(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (r resident) CreateExposure(_ context.Context, e *v1alpha1.Exposure) (*v1alpha1.Exposure, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return nil, err
	}
	if r.exposures[e.Name] != nil {
		return nil, cluster.ErrExists
	}
	r.uids++
	c := e.DeepCopy()
	c.UID, c.CreationTimestamp = types.UID(fmt.Sprintf("uid-%d", r.uids)), metav1.Now()
	x := &exposed{Exposure: c}
	for range c.Spec.Ports {
		x.pods = append(x.pods, r.freePort())
	}
	r.exposures[e.Name] = x
	return c.DeepCopy(), r.admitLocked()
}

// Exposure is what the gateway makes of it: it leads wherever the Peer lives.
func (r resident) Exposure(_ context.Context, _, name string) (*v1alpha1.Exposure, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return nil, err
	}
	e := r.exposures[name]
	if e == nil {
		return nil, cluster.ErrGone
	}
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonPeerMissing}
	if r.peers[e.Spec.Peer] != nil {
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonAdmitted
		e.Status.Host = "podnet-x-" + string(e.UID) + ".podnet-system.svc.cluster.local"
	}
	meta.SetStatusCondition(&e.Status.Conditions, ready)
	return e.DeepCopy(), nil
}

func (r resident) Exposures(context.Context, string) ([]v1alpha1.Exposure, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []v1alpha1.Exposure
	for _, e := range r.exposures {
		all = append(all, *e.DeepCopy())
	}
	return all, r.callLocked()
}

func (r resident) RenewExposure(_ context.Context, _, name string, renew int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	if r.exposures[name] == nil {
		return cluster.ErrGone
	}
	r.exposures[name].Spec.Renew = renew
	return nil
}

func (r resident) DeleteExposure(_ context.Context, _, name string, uid types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	if e := r.exposures[name]; e != nil && e.UID == uid {
		delete(r.exposures, name)
	}
	return r.admitLocked()
}

func (r resident) NameFree(context.Context, string, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.callLocked()
}

func (r resident) PointService(_ context.Context, e *v1alpha1.Exposure) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.callLocked(); err != nil {
		return err
	}
	r.names[e.Name] = e.Status.Host
	return nil
}

func (r resident) DropService(_ context.Context, e *v1alpha1.Exposure) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, e.Name)
	return r.callLocked()
}
