package steering

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/internal/steer"
	spec "podnet.dev/internal/steer/object"
)

func sorted(names []string) []string { slices.Sort(names); return slices.Compact(names) }

// List is the session's rules that steer, by name.
func (m *Manager) List() []localapi.SteerRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []localapi.SteerRule{}
	for _, r := range m.st.rules {
		if !r.stopping && r.does != sends {
			out = append(out, m.st.describe(r))
		}
	}
	slices.SortFunc(out, func(a, b localapi.SteerRule) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Everybodys is all rules of a namespace, of the whole cluster if it is empty, as
// the API has them.
func (m *Manager) Everybodys(ctx context.Context, namespace string) ([]localapi.SteerRule, error) {
	list, err := m.Cluster.SteeringRules(ctx, namespace, "")
	if err != nil {
		return nil, err
	}
	return gather(list), nil
}

// gather makes one of the objects that belong together.
func gather(list []v1alpha1.SteeringRule) []localapi.SteerRule {
	type id struct{ namespace, user, peer, rule string }
	rules := map[id]*localapi.SteerRule{}
	for i := range list {
		o := &list[i]
		of := id{o.Namespace, o.Spec.User, o.Spec.Peer, o.Spec.Rule}
		r := rules[of]
		if r == nil {
			what, _ := spec.Rule(o) // one that is wrong is shown all the same
			since := o.CreationTimestamp.Time
			r = &localapi.SteerRule{Name: o.Spec.Rule, Namespace: o.Namespace, Owner: o.Spec.User, Target: o.Spec.Target, Via: o.Spec.Via, Port: strconv.Itoa(int(o.Spec.Port)),
				Number: uint16(o.Spec.Port), Protocol: string(o.Spec.Protocol), Mode: string(o.Spec.Mode), Matches: append([]steer.Match{}, what.Matches...),
				Local: o.Spec.Local, OnError: cmp.Or(o.Spec.OnError, localapi.OnErrorFail), ClientAddress: o.Spec.ClientAddress, Since: &since, Pods: []localapi.SteerPod{}}
			if o.Spec.Mode == v1alpha1.SteeringEgress {
				r.Port, r.Protocol = "", ""
			}
			rules[of] = r
		}
		r.Matched, r.Failed, r.Passed = r.Matched+o.Status.Matched, r.Failed+o.Status.Failed, r.Passed+o.Status.Passed
		if e := o.Status.ExpiresAt; e != nil && (r.ExpiresAt == nil || e.Time.Before(*r.ExpiresAt)) {
			t := e.Time
			r.ExpiresAt = &t
		}
		p := seen(o)
		if p.State == localapi.SteerPodReady {
			r.Ready++
		}
		r.Pods = append(r.Pods, p)
	}
	out := []localapi.SteerRule{}
	for _, r := range rules {
		slices.SortFunc(r.Pods, func(a, b localapi.SteerPod) int { return strings.Compare(a.Name, b.Name) })
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b localapi.SteerRule) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Name, b.Name), a.Since.Compare(*b.Since))
	})
	return out
}

// seen is an object as its status has it.
func seen(o *v1alpha1.SteeringRule) localapi.SteerPod {
	p := localapi.SteerPod{Name: cmp.Or(o.Spec.Pod, o.Spec.Service), Object: o.Name, Port: uint16(o.Spec.Port), State: localapi.SteerPodWaiting}
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionAgentReady} {
		switch c := meta.FindStatusCondition(o.Status.Conditions, kind); {
		case c == nil:
			p.Text = "the gateway has not seen it"
			return p
		case c.Status != metav1.ConditionTrue:
			p.Text = c.Message
			if kind == v1alpha1.ConditionAccepted {
				p.State = localapi.SteerPodRefused
			}
			return p
		}
	}
	p.State = localapi.SteerPodReady
	return p
}

// Revoke deletes a rule, whoever's it is, and returns its name. name is that of
// a rule or of one object.
func (m *Manager) Revoke(ctx context.Context, namespace, name string) ([]string, error) {
	list, err := m.Cluster.SteeringRules(ctx, namespace, "")
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, o := range list {
		if o.Spec.Rule != name && o.Name != name {
			continue
		}
		if err := m.Cluster.DeleteSteeringRule(ctx, namespace, o.Name); err != nil {
			return names, err
		}
		names = append(names, o.Spec.User+"/"+o.Spec.Rule)
	}
	if len(names) == 0 {
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + name + " in namespace " + namespace, Hint: "podnet steer list --all-owners", Status: http.StatusNotFound}
	}
	return sorted(names), nil
}

// Requests calls begin when there is that rule, and line with its last requests
// and, to follow, with those that come, until ctx is done, line fails or the rule
// is gone.
func (m *Manager) Requests(ctx context.Context, name string, follow bool, begin func(), line func(localapi.SteeredRequest) error) error {
	m.mu.Lock()
	r, err := m.find(name)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	begin()
	news := make(chan relay.Request, behind)
	if follow {
		defer m.Relay.Subscribe(func(q relay.Request) {
			if q.Rule == name {
				select {
				case news <- q:
				default: // he reads too slowly
				}
			}
		})()
	}
	was := m.Relay.Requests(name)
	told := map[relay.Request]bool{}
	for _, q := range was {
		told[q] = true
		if err := line(request(q)); err != nil {
			return err
		}
	}
	for follow {
		m.mu.Lock()
		gone, changed := m.st.rules[name] != r, m.changed
		m.mu.Unlock()
		if gone {
			return nil
		}
		select {
		case q := <-news:
			if told[q] { // it came between the two
				delete(told, q)
				continue
			}
			if err := line(request(q)); err != nil {
				return err
			}
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func request(q relay.Request) localapi.SteeredRequest {
	return localapi.SteeredRequest{Time: q.Began, Rule: q.Rule, Pod: q.Pod, By: q.By, Mirror: q.Mirror, Method: q.Method, Target: q.Target, Host: q.Host,
		Status: q.Status, TookMs: float64(q.Took.Microseconds()) / 1000, In: q.In, Out: q.Out, Error: q.Error}
}

var _ Cluster = (*cluster.Client)(nil)
