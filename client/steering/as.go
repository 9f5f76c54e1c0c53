package steering

import (
	"cmp"
	"context"
	"net/http"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

// As has what this machine sends into the cluster leave from a pod of a target, until
// ctx is done, and says how far it is. It returns why that is not so, or not any
// more. Several may ask for the same target at once, for another one not.
func (m *Manager) As(ctx context.Context, req localapi.AsRequest, say func(localapi.SteerEvent)) error {
	if err := req.Check(); err != nil {
		return err
	}
	target, err := cluster.ParseTarget(req.Target, "")
	if err != nil {
		return err
	}
	r, err := m.send(target, cmp.Or(req.Namespace, m.Namespace))
	if err != nil {
		return err
	}
	return m.keep(ctx, r, true, say)
}

// send makes a rule by which our traffic leaves from a pod of a target.
func (m *Manager) send(target cluster.Target, namespace string) (*rule, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.st.member.Peer == "" {
		return nil, notReady()
	}
	for _, o := range m.st.rules {
		if o.does == sends && !o.stopping && (o.req.Target != target.String() || o.namespace != namespace) {
			return nil, &localapi.Error{Code: localapi.CodeConflict, Message: "what this machine sends leaves from " + o.req.Target + " in namespace " + o.namespace + " already",
				Hint: "podnet status; one machine sends from one pod at a time", Status: http.StatusConflict}
		}
	}
	name := unique("as-"+plain(target.Name), func(n string) bool { return m.st.rules[n] != nil })
	return m.addLocked(&rule{name: name, req: localapi.SteerRequest{Target: target.String(), Namespace: namespace, Hold: true}, does: sends, namespace: namespace}, target), nil
}

func notReady() error {
	return &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready", Hint: "podnet status", Status: http.StatusConflict}
}

// Identity is the pod from which what this machine sends leaves; nil: the gateway's.
func (m *Manager) Identity() *localapi.Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.st.identity()
	if r == nil {
		return nil
	}
	out := &localapi.Identity{Target: r.req.Target, Namespace: r.namespace}
	for _, p := range m.st.describe(r).Pods {
		if p.State == localapi.SteerPodReady {
			out.Pod = p.Name
			return out
		}
		out.Text, out.Hint = "pod "+p.Name+": "+p.Text, p.Hint
	}
	if len(r.objects) == 0 {
		out.Text = r.req.Target + " has no pod that is ready"
	}
	return out
}

// Sending says how what this machine sends into the cluster fares. It may be called
// for each packet.
func (m *Manager) Sending() Sending { return Sending(m.sending.Load()) }

// Sending is from where what this machine sends into the cluster leaves.
type Sending int32

const (
	// FromGateway: nobody asked for anything else, or it was not ready once.
	FromGateway Sending = iota
	// FromPod: from a pod that is ready for it.
	FromPod
	// FromNowhere: from a pod, of which there is none that is ready.
	FromNowhere
)

// identity is the oldest rule by which our traffic leaves from a pod; nil: none. One
// that stops counts until it is gone.
func (s *state) identity() *rule {
	var out *rule
	for _, r := range s.rules {
		if r.does == sends && (out == nil || r.began.Before(out.began)) {
			out = r
		}
	}
	return out
}

// sending is what follows from the rules.
func (s *state) sending() Sending {
	out := FromGateway
	for _, r := range s.rules {
		if r.does != sends || !r.settled {
			continue
		}
		if out == FromGateway {
			out = FromNowhere
		}
		for _, o := range r.objects {
			if !r.stopping && o.ready() && o.peer == s.member.Peer {
				out = FromPod
			}
		}
	}
	return out
}

// pick is the one of a target's pods that a rule sends from, "" if there is none: the
// one that it has as long as that lasts, and then the oldest that is ready.
func pick(has map[string]uint16, pods []cluster.Pod) string {
	best := cluster.Pod{}
	for _, p := range pods {
		_, kept := has[p.UID]
		switch {
		case p.Terminating:
		case kept:
			return p.UID
		case p.Ready && (best.UID == "" || p.Created.Before(best.Created)):
			best = p
		}
	}
	return best.UID
}
