package relay

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"podnet.dev/internal/steer/control"
)

// state is what is known of agents and requests. A rule's part goes with the
// rule, an agent's with its last rule.
type state struct {
	changed chan struct{}

	mu       sync.Mutex
	agents   map[netip.Addr]*agentState
	requests map[string][]Request // by rule
	trouble  map[string]string    // by rule
	served   map[string]Served    // by Exposure; Trouble is in trouble
	subs     map[*func(Request)]struct{}

	inspections map[string][]*inspection // by rule
}

type agentState struct {
	conn            net.Conn // nil: not connected
	since, lastBeat time.Time
	lost            int64
	trouble         string
	inForce         []string
	counts          map[string]control.Counts
}

func newState() *state {
	return &state{
		changed:  make(chan struct{}, 1),
		agents:   map[netip.Addr]*agentState{},
		requests: map[string][]Request{},
		trouble:  map[string]string{},
		served:   map[string]Served{},
		subs:     map[*func(Request)]struct{}{},

		inspections: map[string][]*inspection{},
	}
}

func (s *state) announce() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// keep forgets what is not in t.
func (s *state) keep(t *table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.agents, func(a netip.Addr, _ *agentState) bool { return !t.known(a) })
	names := map[string]bool{}
	for _, r := range t.rules {
		names[r.Name] = true
	}
	maps.DeleteFunc(s.requests, func(name string, _ []Request) bool { return !names[name] })
	maps.DeleteFunc(s.trouble, func(name, _ string) bool { return !names[name] })
	maps.DeleteFunc(s.served, func(name string, _ Served) bool { return !names[name] })
	maps.DeleteFunc(s.inspections, func(name string, _ []*inspection) bool { return !names[name] })
	s.announce()
}

// agent changes what is known of an agent, and returns what change does.
func (s *state) agent(a netip.Addr, change func(*agentState) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.agents[a]
	if have == nil {
		have = &agentState{}
		s.agents[a] = have
	}
	return change(have)
}

// refuse notes why an agent was sent away. It reports whether that is new.
func (s *state) refuse(a netip.Addr, why string) bool {
	fresh := s.agent(a, func(have *agentState) bool {
		fresh := have.trouble != why
		have.trouble = why
		return fresh
	})
	if fresh {
		s.announce()
	}
	return fresh
}

// disconnect notes that an agent's connection is over. It reports false when
// the agent was not, or has long been on another one.
func (s *state) disconnect(a netip.Addr, conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.agents[a]
	if have == nil || have.conn != conn {
		return false
	}
	have.conn = nil
	s.announce()
	return true
}

// local notes what became of a rule's last attempt to reach its local program.
func (s *state) local(rule, trouble string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble[rule] == trouble {
		return
	}
	if trouble == "" {
		delete(s.trouble, rule)
	} else {
		s.trouble[rule] = trouble
	}
	s.announce()
}

// event makes a request of an agent's event and tells those who subscribed.
func (s *state) event(r *Rule, p Pod, e *control.Event) {
	q := Request{
		Rule: r.Name, Namespace: p.Namespace, Pod: p.Name, By: ByLaptop, Mirror: e.Mirror,
		Began: e.Began, Took: e.Took, Method: text(e.Method), Target: text(e.Target), Host: text(e.Host), Status: e.Status,
		In: e.In, Out: e.Out, Error: text(e.Error),
	}
	if e.ByApp {
		q.By = ByApp
	}
	s.mu.Lock()
	if why := s.trouble[r.Name]; why != "" && (e.ByApp || e.Error != "") {
		q.Error = why
	}
	list := append(s.requests[r.Name], q)
	if len(list) > 2*MaxRequests { // or each would move all
		list = slices.Delete(list, 0, len(list)-MaxRequests)
	}
	s.requests[r.Name] = list
	subs := slices.Collect(maps.Keys(s.subs))
	s.mu.Unlock()
	for _, fn := range subs {
		(*fn)(q)
	}
}

// serve notes that a connection of an Exposure is over, and tells those who
// subscribed. failed says that the local program was not there. t is asked for
// while nobody can forget the Exposure.
func (s *state) serve(q Request, failed bool, t func() *table) {
	q.By = ByLaptop
	s.mu.Lock()
	if t().has(q.Rule) {
		n := s.served[q.Rule]
		n.Connections++
		if failed {
			n.Failed++
		}
		s.served[q.Rule] = n
	}
	subs := slices.Collect(maps.Keys(s.subs))
	s.mu.Unlock()
	for _, fn := range subs {
		(*fn)(q)
	}
}

func (s *state) subscribe(fn func(Request)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs[&fn] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, &fn)
	}
}

func (s *state) live(t *table) []Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Live, 0, len(t.agents))
	for _, a := range t.agents {
		l := Live{Agent: a}
		have := s.agents[a]
		if have == nil {
			have = &agentState{}
		}
		l.Connected, l.Since, l.LastBeat, l.Lost, l.Trouble = have.conn != nil, have.since, have.lastBeat, have.lost, have.trouble
		for _, r := range t.rules {
			p, ok := r.Agents[a]
			if !ok {
				continue
			}
			l.Namespace, l.Pod, l.PodUID = p.Namespace, p.Name, p.UID
			l.Rules = append(l.Rules, LiveRule{
				Rule: r.Name, Object: p.Object, Counts: have.counts[p.Object], Trouble: s.trouble[r.Name],
				InForce: l.Connected && slices.Contains(have.inForce, p.Object),
			})
		}
		out = append(out, l)
	}
	return out
}
