package exposing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/upkeep"
	"podnet.dev/internal/httpjson"
)

// Expose makes an exposure and returns when the name leads to this machine, or with
// the reason why it cannot; then nothing of it is left. One that is held goes when
// ctx is done, and until then Expose says what becomes of it and which connections
// it took. Any other stays until Stop, or the end of the session.
func (m *Manager) Expose(ctx context.Context, req localapi.ExposeRequest, say func(localapi.ExposeEvent)) error {
	e, ours, err := m.begin(req)
	if err != nil {
		return err
	}
	tell := func(v localapi.ExposeEvent) {
		v.Time = time.Now()
		say(v)
	}
	err = m.await(ctx, e, tell)
	if err == nil && req.Hold {
		err = m.hold(ctx, e, tell)
		if ctx.Err() != nil {
			err = nil
		}
	}
	if ours && (err != nil || req.Hold) {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), upkeep.LeaveTime)
		defer cancel()
		m.remove(leaving, e)
	}
	return err
}

// begin makes an exposure, or finds the one that is the same; ours says that it was
// made.
func (m *Manager) begin(req localapi.ExposeRequest) (e *exposure, ours bool, err error) {
	if err := req.Check(); err != nil {
		return nil, false, err
	}
	local, protocol, ports, err := req.Place()
	if err != nil {
		return nil, false, err
	}
	if req.Namespace == "" {
		req.Namespace = m.Namespace
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running || m.st.member.Peer == "" {
		return nil, false, &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready", Hint: "podnet status", Status: http.StatusConflict}
	}
	of := id{req.Namespace, req.Name}
	if have := m.st.all[of]; have != nil {
		if have.req.SameAs(req) && !have.req.Hold && !req.Hold && !have.stopping {
			return have, false, nil
		}
		return nil, false, &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("this machine exposes %s in namespace %s already", of.name, of.namespace),
			Hint: "podnet expose stop " + of.name + ", or choose another name by --as", Status: http.StatusConflict}
	}
	e = &exposure{id: of, req: req, local: local, protocol: protocol, ports: ports, relayPort: m.Relay.Port(), began: time.Now()}
	m.st.all[of] = e
	m.loop.Kick()
	return e, true, nil
}

// await returns when an exposure is ready, and tells the steps to that.
func (m *Manager) await(ctx context.Context, e *exposure, tell func(localapi.ExposeEvent)) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	told := false
	for {
		m.mu.Lock()
		admitted, ready, stopping, failed, changed := e.admitted(), e.ready() && !e.stopping, e.stopping, e.failed, m.changed
		e.settled = e.settled || ready
		now := m.describeLocked(e)
		m.mu.Unlock()
		if admitted && !told {
			told = true
			tell(localapi.ExposeEvent{Type: localapi.ExposeAdmitted, Text: "the gateway leads from " + now.Host + " to this machine"})
		}
		switch {
		case failed != nil:
			return failed
		case stopping:
			return stopped()
		case ready:
			tell(localapi.ExposeEvent{Type: localapi.ExposeReady, Text: now.Name + " in namespace " + now.Namespace + " leads to this machine", Exposure: &now})
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("the exposure did not become ready within %v: %s", readyTime, now.Text),
					Hint: "kubectl -n " + now.Namespace + " describe exposure " + now.Name, Status: http.StatusGatewayTimeout}
			}
			return ctx.Err()
		}
	}
}

func stopped() error {
	return &localapi.Error{Code: localapi.CodeCanceled, Message: "the exposure was stopped"}
}

// hold tells what becomes of an exposure, until it ends or ctx is done.
func (m *Manager) hold(ctx context.Context, e *exposure, tell func(localapi.ExposeEvent)) error {
	over := make(chan relay.Request, behind)
	defer m.Relay.Subscribe(func(q relay.Request) {
		if q.Rule == e.String() {
			select {
			case over <- q:
			default: // he reads too slowly
			}
		}
	})()
	last := localapi.ExposeStateReady
	for {
		m.mu.Lock()
		stopping, failed, changed := e.stopping, e.failed, m.changed
		now := m.describeLocked(e)
		m.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case stopping:
			return stopped()
		case now.State != last:
			last = now.State
			text := now.Text
			if last == localapi.ExposeStateReady {
				text = "it leads to this machine again"
			}
			tell(localapi.ExposeEvent{Type: localapi.ExposeChanged, Text: text, Exposure: &now})
		}
		select {
		case q := <-over:
			tell(localapi.ExposeEvent{Type: localapi.ExposeConnection, Connection: &localapi.ExposedConnection{Time: q.Began, Name: e.name, Namespace: e.namespace,
				TookMs: float64(q.Took.Microseconds()) / 1000, In: q.In, Out: q.Out, Error: q.Error}})
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// remove has an exposure deleted and waits for that.
func (m *Manager) remove(ctx context.Context, e *exposure) {
	for {
		m.mu.Lock()
		e.stop()
		gone, changed := m.st.all[e.id] != e, m.changed
		m.loop.Kick()
		m.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Stop ends an exposure, or all with the name "", and returns them as NAMESPACE/NAME
// when nothing is left of them. Without a namespace the name must be in one only.
func (m *Manager) Stop(ctx context.Context, namespace, name string) ([]string, error) {
	m.mu.Lock()
	var all []*exposure
	for _, e := range m.st.sorted() {
		if (name == "" || e.name == name) && (namespace == "" || e.namespace == namespace) {
			all = append(all, e)
		}
	}
	m.mu.Unlock()
	switch {
	case name != "" && len(all) == 0:
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no exposure " + name + " of this session", Hint: "podnet expose list", Status: http.StatusNotFound}
	case name != "" && len(all) > 1:
		return nil, &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("%s is exposed in %d namespaces", name, len(all)), Hint: "-n says in which it is to end", Status: http.StatusConflict}
	}
	m.mu.Lock()
	for _, e := range all {
		e.stop()
	}
	m.mu.Unlock()
	names := []string{}
	for _, e := range all {
		m.remove(ctx, e)
		names = append(names, e.String())
	}
	return names, ctx.Err()
}

// List is the session's exposures, by namespace and name.
func (m *Manager) List() []localapi.Exposure {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []localapi.Exposure{}
	for _, e := range m.st.sorted() {
		if !e.stopping {
			out = append(out, m.describeLocked(e))
		}
	}
	return out
}

// Everybodys is all exposures of a namespace, of the whole cluster if it is empty, as
// the API has them.
func (m *Manager) Everybodys(ctx context.Context, namespace string) ([]localapi.Exposure, error) {
	list, err := m.Cluster.Exposures(ctx, namespace)
	out := []localapi.Exposure{}
	for i := range list {
		out = append(out, describeObject(&list[i]))
	}
	slices.SortFunc(out, func(a, b localapi.Exposure) int { return id{a.Namespace, a.Name}.compare(id{b.Namespace, b.Name}) })
	return out, err
}

// describeObject is an exposure as the API has it.
func describeObject(o *v1alpha1.Exposure) localapi.Exposure {
	since := o.CreationTimestamp.Time
	out := localapi.Exposure{Name: o.Name, Namespace: o.Namespace, Owner: o.Spec.User, Local: o.Spec.Local, Host: o.Status.Host, State: localapi.ExposeStateWaiting, Since: &since, Ports: []uint16{}}
	for _, p := range o.Spec.Ports {
		out.Ports, out.Protocol = append(out.Ports, uint16(p.Port)), string(p.Protocol)
	}
	if t := o.Status.ExpiresAt; t != nil {
		out.ExpiresAt = &t.Time
	}
	switch ready := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady); {
	case ready == nil:
		out.Text = "the gateway has not seen the exposure yet"
	case ready.Status == metav1.ConditionTrue:
		out.State = localapi.ExposeStateReady
	default:
		out.State, out.Text = localapi.ExposeStateTrouble, strings.TrimSuffix("the gateway does not admit the exposure: "+ready.Message, ": ")
	}
	return out
}

// describeLocked is how an exposure of ours stands.
func (m *Manager) describeLocked(e *exposure) localapi.Exposure {
	object := e.object
	if object == nil {
		object = m.st.write(e)
	}
	out := describeObject(object)
	began := e.began
	out.Held, out.Since = e.req.Hold, &began
	served := m.Relay.Served(e.String())
	out.Connections, out.Failed = served.Connections, served.Failed
	switch {
	case e.err != nil:
		known := httpjson.FromError(e.err)
		out.State, out.Text, out.Hint = localapi.ExposeStateTrouble, known.Message, known.Hint
	case e.object == nil:
		out.Text = "the exposure is being written"
	case e.ready():
		out.Text = served.Trouble
	case e.admitted():
		out.State, out.Text = localapi.ExposeStateWaiting, "the Service is being written"
	}
	return out
}
