package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

const (
	// exportTick is how often it is looked whether an export is to be renewed. By
	// the wall clock, which goes on while the machine sleeps.
	exportTick = 10 * time.Second
	// exportRetry is when a renewal that failed is tried again.
	exportRetry = time.Minute
	// exportTime is for one renewal.
	exportTime = 30 * time.Second
)

// exported is a device without podnet that was let in, as far as it takes to renew
// that: names. Its private key is the device's alone.
type exported struct {
	grant
	User          string    `json:"user"`
	Device        string    `json:"device"`
	AllNamespaces bool      `json:"allNamespaces,omitempty"`
	Lease         int32     `json:"leaseSeconds"`
	Gateway       string    `json:"gateway"` // pod
	GatewayKey    string    `json:"gatewayKey"`
	Made          time.Time `json:"made"`
	Renewed       time.Time `json:"renewed"`

	// cluster is nil until somebody comes with credentials for it: they are not
	// noted, and may not be in a daemon that was started anew.
	cluster    Cluster
	next       time.Time // when to renew it
	refused    bool      // the last renewal was; the next no is believed
	text, hint string
}

func (e *exported) lease() time.Duration { return time.Duration(e.Lease) * time.Second }

// objects writes what there is of e in the cluster. Who keeps book is Exports.
func (e *exported) objects(log *slog.Logger) *membership {
	return &membership{cluster: e.cluster, id: e.cluster.Whoami(), device: e.Device, log: log, request: localapi.ConnectRequest{
		Namespaces: e.Accesses, AllNamespaces: e.AllNamespaces, GatewayNamespace: e.Namespace, LeaseSeconds: e.Lease,
	}}
}

func (e *exported) describe() localapi.Export {
	d := localapi.Export{
		Name: e.Peer, Device: e.Device, User: e.User, Server: e.Server, Namespaces: slices.Clone(e.Accesses), AllNamespaces: e.AllNamespaces,
		Gateway: e.Gateway, LeaseSeconds: e.Lease, Made: e.Made, ExpiresAt: e.Renewed.Add(e.lease()), Renewed: e.cluster != nil, Text: e.text, Hint: e.hint,
	}
	if e.AllNamespaces {
		d.Namespaces = []string{}
	}
	if e.cluster == nil && e.text == "" {
		d.Text, d.Hint = "it is not renewed: nobody has come with credentials for its cluster since the daemon started", "podnet export list, or podnet connect, to that cluster"
	}
	return d
}

// ExportsConfig is what Exports stand on.
type ExportsConfig struct {
	OpenCluster func(localapi.Kube) (Cluster, error)
	// StateDir is where the names of exports are kept for the next daemon. Empty:
	// nowhere.
	StateDir string
	Log      *slog.Logger
}

// Exports lets devices without podnet in, and renews them while it runs. Nobody may
// list Peers, so it keeps a note of its own. Its methods may be called from any
// goroutine.
type Exports struct {
	ExportsConfig
	wishes chan localapi.Kube

	mu   sync.Mutex
	held []*exported
}

// NewExports reads the note of former exports. Run must be called to renew any.
func NewExports(c ExportsConfig) *Exports {
	x := &Exports{ExportsConfig: c, wishes: make(chan localapi.Kube, 1)}
	if c.StateDir == "" {
		return x
	}
	var err error
	if x.held, err = readNote[*exported](x.noteFile()); err != nil {
		c.Log.Warn("cannot read the note of exports: those from before are not renewed", "err", err)
	}
	return x
}

func (x *Exports) noteFile() string { return filepath.Join(x.StateDir, "exports.json") }

func (x *Exports) noteLocked() {
	if x.StateDir == "" {
		return
	}
	if err := writeNote(x.noteFile(), x.held); err != nil {
		x.Log.Warn("cannot note the exports: the next daemon will not renew them", "err", err)
	}
}

// Run renews until ctx is done.
func (x *Exports) Run(ctx context.Context) {
	tick := time.NewTicker(exportTick)
	defer tick.Stop()
	defer x.hangUp()
	for {
		select {
		case <-ctx.Done():
			return
		case kube := <-x.wishes:
			if _, err := x.open(ctx, kube); err != nil && ctx.Err() == nil {
				x.Log.Info("exports are not renewed", "err", err)
			}
		case <-tick.C:
		}
		for _, e := range x.due(time.Now()) {
			x.renew(ctx, e)
		}
	}
}

func (x *Exports) hangUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.held {
		if e.cluster != nil {
			e.cluster.Redial()
		}
	}
}

// Use renews, from soon on, what was exported to the cluster that kube leads to.
func (x *Exports) Use(kube localapi.Kube) {
	x.mu.Lock()
	wanted := slices.ContainsFunc(x.held, func(e *exported) bool { return e.cluster == nil })
	x.mu.Unlock()
	if !wanted {
		return
	}
	select {
	case x.wishes <- kube:
	default: // another is on its way
	}
}

// Renewing says whether there is anything to renew.
func (x *Exports) Renewing() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.held, func(e *exported) bool { return e.cluster != nil })
}

// Exports says what there is to know without asking anybody.
func (x *Exports) Exports() []localapi.Export {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []localapi.Export
	for _, e := range x.held {
		all = append(all, e.describe())
	}
	return all
}

// open logs in to a cluster, and takes up what was exported there by the same user.
func (x *Exports) open(ctx context.Context, kube localapi.Kube) (Cluster, error) {
	c, err := x.OpenCluster(kube)
	if err != nil {
		return nil, err
	}
	if err := c.Check(ctx); err != nil {
		c.Redial()
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.heldAtLocked(c) {
		e.cluster = c
	}
	return c, nil
}

// heldAtLocked are the exports of c's user in c's cluster.
func (x *Exports) heldAtLocked(c Cluster) []*exported {
	id := c.Whoami()
	return slices.DeleteFunc(slices.Clone(x.held), func(e *exported) bool { return e.Server != id.Server || e.User != id.User })
}

// Export lets a device in. The answer has its private key, which is forgotten here.
func (x *Exports) Export(ctx context.Context, req localapi.ExportRequest) (_ localapi.Exported, err error) {
	if err := req.Check(); err != nil {
		return localapi.Exported{}, err
	}
	c, err := x.open(ctx, req.Kube)
	if err != nil {
		return localapi.Exported{}, err
	}
	id := c.Whoami()
	if len(req.Namespaces) == 0 {
		req.Namespaces = []string{id.Namespace}
	}
	now := time.Now()
	e := &exported{
		User: id.User, Device: req.Device, AllNamespaces: req.AllNamespaces, Lease: req.LeaseSeconds, Made: now, Renewed: now, cluster: c,
		grant: grant{Server: id.Server, Namespace: req.GatewayNamespace, Accesses: req.Namespaces},
	}
	objects := e.objects(x.Log)
	defer func() {
		if err == nil {
			return
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTime)
		defer cancel()
		why := unlessAlone(undo, c, err, req.GatewayNamespace, req.Namespaces[0], "let in a device without podnet")
		if !turnedAway(err) { // else nothing was made, and who may not make it may not delete it either
			why = errors.Join(why, objects.leaveAll(undo))
		}
		err = why
	}()
	ctx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	m, refused, err := objects.apply(ctx, objects.accesses())
	if err != nil {
		return localapi.Exported{}, err
	}
	for _, ns := range objects.accesses() {
		if refused[ns] != nil {
			return localapi.Exported{}, refused[ns]
		}
	}
	if err := objects.await(ctx, m); err != nil {
		return localapi.Exported{}, err
	}
	config, gw, err := exportConfig(m, req.Namespaces[0], req.Resolvers)
	if err != nil {
		return localapi.Exported{}, err
	}
	e.grant, e.Gateway, e.GatewayKey = m.grant, gw.Pod, gw.PublicKey
	e.next = now.Add(exportRenewal(e.lease()))
	x.mu.Lock()
	x.held = append(x.held, e)
	x.noteLocked()
	told := e.describe()
	x.mu.Unlock()
	x.Log.Info("device let in", "peer", e.Peer, "user", e.User, "namespaces", req.Namespaces, "lease", e.lease())
	return localapi.Exported{Export: told, Config: exportText(config, told)}, nil
}

// List says what there is, and looks at what is in kube's cluster, which is renewed
// from now on. A cluster that does not answer is told with its exports.
func (x *Exports) List(ctx context.Context, req localapi.ExportListRequest) ([]localapi.Export, error) {
	x.mu.Lock()
	none := len(x.held) == 0
	x.mu.Unlock()
	if none { // who has no cluster may ask as well
		return nil, nil
	}
	c, err := x.open(ctx, req.Kube)
	if err != nil {
		x.Log.Info("exports are listed as they were", "err", err)
		return x.Exports(), nil
	}
	x.mu.Lock()
	here := x.heldAtLocked(c)
	x.mu.Unlock()
	for _, e := range here {
		x.look(ctx, e)
	}
	return x.Exports(), nil
}

// Revoke ends exports in kube's cluster.
func (x *Exports) Revoke(ctx context.Context, req localapi.ExportRevokeRequest) ([]string, error) {
	c, err := x.open(ctx, req.Kube)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	here := x.heldAtLocked(c)
	x.mu.Unlock()
	chosen := here
	if !req.All {
		if chosen, err = chooseExports(here, req.Names, c.Whoami()); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, e := range chosen {
		if err := e.objects(x.Log).leave(ctx, e.grant); err != nil {
			return names, err
		}
		x.drop(e, "it was revoked")
		names = append(names, e.Peer)
	}
	return names, nil
}

// chooseExports finds exports by the names of their Peers or devices.
func chooseExports(here []*exported, names []string, id cluster.Identity) ([]*exported, error) {
	var chosen []*exported
	for _, name := range names {
		found := slices.DeleteFunc(slices.Clone(here), func(e *exported) bool { return e.Peer != name && e.Device != name })
		switch {
		case len(found) == 0:
			return nil, &localapi.Error{Code: localapi.CodeNotFound, Status: http.StatusNotFound,
				Message: fmt.Sprintf("nothing named %s was exported by %s from this machine to %s", name, id.User, id.Server),
				Hint:    "podnet export list; one of another machine: kubectl delete peer"}
		case len(found) > 1:
			return nil, &localapi.Error{Code: localapi.CodeUsage, Status: http.StatusConflict,
				Message: fmt.Sprintf("%d exports are named %s", len(found), name), Hint: "podnet export list has the Peers' names, which are unique"}
		}
		if !slices.Contains(chosen, found[0]) {
			chosen = append(chosen, found[0])
		}
	}
	return chosen, nil
}

// drop forgets an export that is over.
func (x *Exports) drop(e *exported, why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held = slices.DeleteFunc(x.held, func(o *exported) bool { return o == e })
	x.noteLocked()
	x.Log.Info("device let go", "peer", e.Peer, "user", e.User, "reason", why)
}
