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
	"podnet.dev/internal/key"
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

// Call connects to a port of an exposed Service by TCP, as any pod does: by the name
// to the gateway's Service, and through one of the gateways to the laptop.
func (w *Town) Call(ctx context.Context, name string, port uint16) (net.Conn, error) {
	w.mu.Lock()
	var at netip.AddrPort
	if e := w.exposures[name]; e != nil && e.Status.Host == w.names[name] {
		for _, p := range e.Spec.Ports {
			if laptop := w.peers[e.Spec.Peer]; laptop != nil && p.Port == int32(port) && p.Protocol == v1alpha1.ExposureTCP {
				if k, err := key.ParsePublic(laptop.Spec.PublicKey); err == nil {
					at = netip.AddrPortFrom(k.RelayAddress6(), uint16(p.RelayPort))
				}
			}
		}
	}
	var gateways []*gateway
	for _, g := range w.gateways {
		gateways = append(gateways, g)
	}
	w.mu.Unlock()
	err := ErrNoService
	if !at.IsValid() {
		return nil, err
	}
	for _, g := range gateways {
		var c net.Conn
		if c, err = g.stack.DialTCP(ctx, at); err == nil {
			return c, nil
		}
	}
	return nil, err
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
	r.exposures[e.Name] = c
	return c.DeepCopy(), nil
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
	return nil
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
