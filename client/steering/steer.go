package steering

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/upkeep"
	"podnet.dev/internal/steer"
)

func metaUID(s string) types.UID { return types.UID(s) }

// Steer makes a rule and returns when it acts in all pods of the target that are
// ready, or with the reason why it cannot; then nothing of it is left. A rule that
// is held goes when ctx is done, and until then Steer says what becomes of it. Any
// other stays until Stop, or the end of the session.
func (m *Manager) Steer(ctx context.Context, req localapi.SteerRequest, say func(localapi.SteerEvent)) error {
	r, ours, err := m.begin(req)
	if err != nil {
		return err
	}
	return m.keep(ctx, r, ours, say)
}

// keep is Steer for a rule that there is. One that is not ours, but was there before,
// is left alone.
func (m *Manager) keep(ctx context.Context, r *rule, ours bool, say func(localapi.SteerEvent)) error {
	tell := func(e localapi.SteerEvent) {
		e.Time = time.Now()
		say(e)
	}
	err := m.await(ctx, r, tell)
	if e, ok := m.instead(ctx, r, err); ok {
		tell(e)
	}
	if err == nil && r.req.Hold {
		err = m.hold(ctx, r, tell)
		if ctx.Err() != nil {
			err = nil
		}
	}
	if ours && (err != nil || r.req.Hold) {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), upkeep.LeaveTime)
		defer cancel()
		m.remove(leaving, r)
	}
	return err
}

// instead names the Service that could be steered where no agent is let in.
func (m *Manager) instead(ctx context.Context, r *rule, err error) (localapi.SteerEvent, bool) {
	var refused *cluster.RefusedError
	if !errors.As(err, &refused) || !refused.ByNature || r.does != takes || r.protocol != steer.TCP {
		return localapi.SteerEvent{}, false
	}
	target, err := cluster.ParseTarget(r.req.Target, r.req.Selector)
	if err != nil {
		return localapi.SteerEvent{}, false
	}
	names, err := m.Cluster.Services(ctx, r.namespace, target)
	m.note(err, "cannot see the target's Services", "rule", r.name)
	if err != nil || len(names) != 1 {
		return localapi.SteerEvent{}, false
	}
	return localapi.SteerEvent{Type: localapi.SteerInstead, Text: "Service " + names[0] + " could be steered in place of its pods", Service: names[0]}, true
}

// begin makes a rule, or finds the one that is the same; ours says that it was
// made.
func (m *Manager) begin(req localapi.SteerRequest) (r *rule, ours bool, err error) {
	if err := req.Check(); err != nil {
		return nil, false, err
	}
	target, err := cluster.ParseTarget(req.Target, req.Selector)
	if err != nil {
		return nil, false, err
	}
	local, err := req.LocalAddress()
	if err != nil {
		return nil, false, err
	}
	if req.Namespace == "" {
		req.Namespace = m.Namespace
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.st.member.Peer == "" {
		return nil, false, notReady()
	}
	for _, o := range m.st.rules {
		if same := o.req.SameAs(req) && !o.req.Hold && !req.Hold && !o.stopping; same && (req.Name == "" || req.Name == o.name) {
			return o, false, nil
		}
	}
	name := req.Name
	taken := func(n string) bool { return m.st.rules[n] != nil }
	if name == "" {
		name = ruleName(req, taken)
	} else if taken(name) {
		return nil, false, &localapi.Error{Code: localapi.CodeConflict, Message: "there is a rule " + name + " already, and it is another one",
			Hint: "podnet steer stop " + name + ", or another --name", Status: http.StatusConflict}
	}
	_, protocol, _ := req.PodPort()
	what := takes
	if req.Via == localapi.ViaService {
		what = leads
	}
	return m.addLocked(&rule{name: name, req: req, does: what, namespace: req.Namespace, local: local, protocol: protocol, relayPort: m.Relay.Port()}, target), true, nil
}

// addLocked begins a rule.
func (m *Manager) addLocked(r *rule, target cluster.Target) *rule {
	r.began, r.ports, r.objects = time.Now(), map[string]uint16{}, map[string]*object{}
	m.st.rules[r.name] = r
	ctx, cancel := context.WithCancel(m.ctx)
	r.leave = cancel
	m.wg.Go(func() { m.watch(ctx, r, target) })
	m.loop.Kick()
	return r
}

// await returns when a rule is ready, and tells the steps to that.
func (m *Manager) await(ctx context.Context, r *rule, tell func(localapi.SteerEvent)) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var told progress
	for {
		m.mu.Lock()
		now := m.st.progress(r)
		if now.none {
			m.st.fail(r, m.st.nobody(r))
			m.loop.Kick()
		}
		stopping, failed, changed := r.stopping, r.failed, m.changed
		settled := now.settled && !stopping
		r.settled = r.settled || settled
		rule := m.st.describe(r)
		m.mu.Unlock()
		if settled {
			m.lookBeside(ctx, r, &rule)
		}
		for _, e := range now.since(told) {
			tell(e)
		}
		told = now
		switch {
		case failed != nil:
			return failed
		case stopping:
			return &localapi.Error{Code: localapi.CodeCanceled, Message: "the rule was stopped"}
		case settled:
			tell(localapi.SteerEvent{Type: localapi.SteerReady, Text: standing(rule), Rule: &rule})
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return late(rule)
			}
			return ctx.Err()
		}
	}
}

// hold tells what becomes of a rule, until it ends or ctx is done.
func (m *Manager) hold(ctx context.Context, r *rule, tell func(localapi.SteerEvent)) error {
	var last string
	for {
		m.mu.Lock()
		stopping, failed, changed := r.stopping, r.failed, m.changed
		rule := m.st.describe(r)
		m.mu.Unlock()
		if failed != nil {
			return failed
		}
		if stopping {
			return &localapi.Error{Code: localapi.CodeCanceled, Message: "the rule was stopped"}
		}
		text := standing(rule)
		for _, p := range rule.Pods {
			if p.State == localapi.SteerPodRefused || p.State == localapi.SteerPodTrouble || p.State == localapi.SteerPodReady && p.Text != "" {
				text += "; " + p.Name + ": " + p.Text
			}
		}
		if last != "" && text != last {
			tell(localapi.SteerEvent{Type: localapi.SteerChanged, Text: text, Rule: &rule})
		}
		last = text
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// standing is how a rule stands, in short.
func standing(r localapi.SteerRule) string {
	switch {
	case r.Mode == localapi.ModeEgress && r.Ready > 0:
		return "what this machine sends leaves from pod " + r.Pods[0].Name
	case r.Mode == localapi.ModeEgress:
		return "nothing that this machine sends gets through"
	case r.Via == "":
		return fmt.Sprintf("%d/%d agents ready", r.Ready, len(r.Pods))
	case r.Ready > 0:
		return "the Service leads here"
	}
	return "the Service does not lead here"
}

// remove has a rule deleted and waits for that.
func (m *Manager) remove(ctx context.Context, r *rule) {
	for {
		m.mu.Lock()
		r.stopping = true
		r.leave()
		gone, changed := m.st.rules[r.name] != r, m.changed
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

// lookBeside finds out who else steers the port, as far as we may see them.
func (m *Manager) lookBeside(ctx context.Context, r *rule, rule *localapi.SteerRule) {
	list, err := m.Cluster.SteeringRules(ctx, r.namespace, "")
	if err != nil {
		m.Log.Debug("cannot see who else steers", "rule", r.name, "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.others = m.st.beside(r, list)
	rule.Others = r.others
}

// late is the error of a rule that did not become ready in time.
func late(rule localapi.SteerRule) error {
	e := &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("the rule did not become ready within %v", readyTime),
		Hint: "kubectl -n " + rule.Namespace + " get steeringrules", Status: http.StatusGatewayTimeout}
	what := "pod "
	if rule.Via != "" {
		what = "service "
	}
	for _, p := range rule.Pods {
		if p.State != localapi.SteerPodReady {
			e.Message += ": " + what + p.Name + ": " + p.Text
			if p.Hint != "" {
				e.Hint = p.Hint
			}
			break
		}
	}
	return e
}

// Stop ends a rule, or with the name "" all that steer, and returns the names when nothing
// is left of them.
func (m *Manager) Stop(ctx context.Context, name string) ([]string, error) {
	m.mu.Lock()
	var rules []*rule
	if name != "" {
		r, err := m.find(name)
		if err != nil {
			m.mu.Unlock()
			return nil, err
		}
		rules = []*rule{r}
	} else {
		for _, r := range m.st.rules {
			if r.does != sends {
				rules = append(rules, r)
			}
		}
	}
	for _, r := range rules {
		r.stopping = true
	}
	m.mu.Unlock()
	names := []string{}
	for _, r := range rules {
		m.remove(ctx, r)
		names = append(names, r.name)
	}
	return sorted(names), ctx.Err()
}
