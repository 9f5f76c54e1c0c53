package fakemachine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

// Exposing makes every exposure that it is asked for; each takes a connection.
type Exposing struct {
	mu     sync.Mutex
	Asked  []localapi.ExposeRequest
	all    map[string]localapi.Exposure // by NAMESPACE/NAME
	held   map[string]context.CancelFunc
	Refuse error
}

func (f *Exposing) Expose(ctx context.Context, req localapi.ExposeRequest, say func(localapi.ExposeEvent)) error {
	local, protocol, ports, err := req.Place()
	if err != nil {
		return err
	}
	now, later := time.Now(), time.Now().Add(5*time.Minute)
	e := localapi.Exposure{Name: req.Name, Namespace: req.Namespace, Owner: "alice", Local: local, Protocol: string(protocol), Ports: ports, Host: "podnet-x-1.podnet-system.svc.cluster.local",
		State: localapi.ExposeStateReady, Held: req.Hold, Since: &now, ExpiresAt: &later, Connections: 3, Failed: 1}
	if e.Namespace == "" {
		e.Namespace = "shop"
	}
	at := e.Namespace + "/" + e.Name
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.Asked = append(f.Asked, req)
	if f.Refuse != nil {
		f.mu.Unlock()
		return f.Refuse
	}
	if f.all == nil {
		f.all, f.held = map[string]localapi.Exposure{}, map[string]context.CancelFunc{}
	}
	f.all[at], f.held[at] = e, cancel
	f.mu.Unlock()
	say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeAdmitted, Text: "the gateway leads here"})
	say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeReady, Exposure: &e})
	if !req.Hold {
		return nil
	}
	for _, why := range []string{"", "connection refused at 127.0.0.1:3000"} {
		say(localapi.ExposeEvent{Time: now, Type: localapi.ExposeConnection, Connection: &localapi.ExposedConnection{Time: now, Name: e.Name, Namespace: e.Namespace, TookMs: 12.3, In: 77, Out: 2048, Error: why}})
	}
	<-ctx.Done()
	f.remove(at)
	return nil
}

func (f *Exposing) remove(at string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.all[at]
	if ok {
		f.held[at]()
		delete(f.all, at)
	}
	return ok
}

func (f *Exposing) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.all))
}

func (f *Exposing) Exposed(_ context.Context, all bool, namespace string) (out []localapi.Exposure, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range slices.Sorted(maps.Keys(f.all)) {
		out = append(out, f.all[at])
	}
	if all {
		out = append(out, localapi.Exposure{Name: "bobs", Owner: "bob", Namespace: namespace, State: localapi.ExposeStateTrouble, Text: "its Peer is gone"})
	}
	return out, nil
}

func (f *Exposing) StopExposing(_ context.Context, namespace, name string) ([]string, error) {
	out := []string{}
	for _, at := range f.Names() {
		ns, n, _ := strings.Cut(at, "/")
		if (name == "" || n == name) && (namespace == "" || ns == namespace) && f.remove(at) {
			out = append(out, at)
		}
	}
	if name != "" && len(out) == 0 {
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no exposure " + name, Hint: "podnet expose list", Status: 404}
	}
	return out, nil
}
