package steering

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

const (
	// maxSessions is how many agents are served at once.
	maxSessions = 1024
	// countsEvery is how often changed counts are news.
	countsEvery = 5 * time.Second
	// An agent may come, or have another error, so often in a row, and then again
	// every newsEvery: for each time the status of all rules of its pod is written, and
	// an agent is in a pod that somebody may have broken into.
	newsInARow = 20
	newsEvery  = 2 * time.Second
)

// Server tells agents their rules, and hears how they are. An agent dials
// control.Port inside the tunnel; its key is known by the address it comes from,
// which WireGuard vouches for, and its pod by what it says first.
type Server struct {
	log      *slog.Logger
	gateways func() []control.Gateway
	changed  chan struct{}

	mu         sync.Mutex
	here       func(laptop netip.Addr) bool
	agents     map[netip.Addr]known
	sessions   map[key.Public]*session
	news       map[key.Public]*rate.Limiter // of agents
	generation int64
	counted    bool // counts have changed since this was last news
	tally      tally
}

// known is an agent's key, and what it is to be told by the UID of its pod.
type known struct {
	key  key.Public
	pods map[string]Agent
}

// Report is what a connected agent says.
type Report struct {
	// Connected is since when.
	Connected time.Time
	PodUID    string
	// Generation is of the Set that is in force, Sent of the last one that was
	// sent.
	Generation, Sent int64
	// InForce tells of each rule of the agent, by its name, whether it is in a
	// Set that is in force. The rules need not be those of the last SetAgents
	// for a moment.
	InForce map[string]bool
	// Error is what keeps the agent from it; one line of at most 512 bytes.
	Error string
	// Counts are by the names of rules; they begin anew with the agent.
	Counts map[string]control.Counts
}

// NewServer makes a Server that knows no agents. The function gateways lists all
// there are, this one included; it must be quick and safe for concurrent use.
func NewServer(log *slog.Logger, gateways func() []control.Gateway) *Server {
	return &Server{
		log: log, gateways: gateways, changed: make(chan struct{}, 1), sessions: map[key.Public]*session{}, news: map[key.Public]*rate.Limiter{}, tally: newTally(),
		// An agent outlives a gateway, so the generations go on growing when it
		// starts again.
		generation: time.Now().UnixMilli(),
	}
}

// SetAgents says who the agents are and what they are to be told. Those whose Set
// is another one now are told at once; who is no agent any more is cut off. The
// function here says of a laptop's relay address whether the laptop is with this
// gateway; it must be quick and safe for concurrent use.
func (s *Server) SetAgents(agents []Agent, here func(laptop netip.Addr) bool) {
	all := make(map[netip.Addr]known, len(agents))
	for _, a := range agents {
		at := a.Key.Address6()
		if all[at].pods == nil {
			all[at] = known{a.Key, map[string]Agent{}}
		}
		if _, twice := all[at].pods[a.PodUID]; all[at].key == a.Key && (a.Chosen || !twice) {
			all[at].pods[a.PodUID] = a
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents, s.here = all, here
	s.tally.keep(all)
	maps.DeleteFunc(s.news, func(k key.Public, _ *rate.Limiter) bool { return all[k.Address6()].key != k })
	for k, c := range s.sessions {
		if s.toldLocked(c) == nil {
			s.dropLocked(k, c)
			continue
		}
		wake.Up(c.wake)
	}
}

// Rehere says that what here or gateways say may have changed.
func (s *Server) Rehere() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		wake.Up(c.wake)
	}
}

// Changed holds a token when some report may be another one: an agent came or
// went, has another generation in force or another error. Counts alone are news
// every 5 s at most.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// Report tells what an agent says. It is false when the agent is not connected or
// has said nothing yet.
func (s *Server) Report(k key.Public) (Report, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.sessions[k]
	if c == nil || !c.greeted {
		return Report{}, false
	}
	r := c.report
	r.Counts = maps.Clone(r.Counts)
	r.InForce = make(map[string]bool, len(c.since))
	for name, since := range c.since {
		r.InForce[name] = r.Generation >= since
	}
	return r, true
}

// Totals are the counts of all agents since the start. They do not fall when an
// agent or a rule goes.
func (s *Server) Totals() control.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally.sum
}

// Serve serves agents until ctx ends or the listener fails; it closes the
// listener. It is called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		<-ctx.Done()
		_ = l.Close()
	})
	running.Go(func() { s.tellCounts(ctx) })
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		c := s.welcome(conn)
		if c == nil {
			_ = conn.Close()
			continue
		}
		running.Go(func() { s.serve(ctx, c) })
	}
}

func (s *Server) tellCounts(ctx context.Context) {
	t := time.NewTicker(countsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.mu.Lock()
		if s.counted {
			s.counted = false
			wake.Up(s.changed)
		}
		s.mu.Unlock()
	}
}

// welcome makes a session for who is an agent; otherwise it is nil. An earlier
// session of the agent ends.
func (s *Server) welcome(conn net.Conn) *session {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.agents[from.Addr()]
	if !ok {
		s.log.Debug("not an agent", "addr", from)
		return nil
	}
	if !s.newsLocked(a.key) {
		s.log.Debug("agent comes too often", "addr", from)
		return nil
	}
	if old := s.sessions[a.key]; old != nil {
		s.dropLocked(a.key, old)
	}
	if len(s.sessions) >= maxSessions {
		s.log.Warn("too many agents", "addr", from, "limit", maxSessions)
		return nil
	}
	c := newSession(a.key, from.Addr(), conn)
	s.sessions[a.key] = c
	return c
}

// newsLocked reports whether an agent may be news again.
func (s *Server) newsLocked(k key.Public) bool {
	if s.news[k] == nil {
		s.news[k] = rate.NewLimiter(rate.Every(newsEvery), newsInARow)
	}
	return s.news[k].Allow()
}

// dropLocked ends a session. Its goroutines notice by its connection.
func (s *Server) dropLocked(k key.Public, c *session) {
	_ = c.conn.Close()
	if s.sessions[k] != c {
		return
	}
	delete(s.sessions, k)
	if c.greeted {
		wake.Up(s.changed)
	}
}

// toldLocked is what a session's agent is to be told. It is nil when it is no
// agent, or not of the pod that it says it is in.
func (s *Server) toldLocked(c *session) *Agent {
	a, ok := s.agents[c.addr]
	if !ok || a.key != c.key {
		return nil
	}
	if !c.greeted {
		return new(Agent) // it has yet to say where it is
	}
	if at, ok := a.pods[c.report.PodUID]; ok {
		return &at
	}
	return nil
}

// next makes the Set that an agent has to be sent; nil when it has it already.
func (s *Server) next(c *session) *control.Set {
	s.mu.Lock()
	a, here := s.toldLocked(c), s.here
	s.mu.Unlock()
	if a == nil {
		return nil // it is being cut off
	}
	set := &control.Set{Rules: make([]control.Rule, len(a.Rules)), Egress: a.Egress, Gateways: s.gateways()}
	copy(set.Rules, a.Rules)
	for i := range set.Rules {
		set.Rules[i].Here = here(set.Rules[i].Laptop)
	}
	if c.sent != nil && len(set.Rules) == len(c.sent.Rules) && reflect.DeepEqual(set.Rules, c.sent.Rules) &&
		slices.Equal(set.Egress, c.sent.Egress) && reflect.DeepEqual(set.Gateways, c.sent.Gateways) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	set.Generation = s.generation
	c.note(set)
	return set
}

// hear takes note of a line. It reports whether the session goes on.
func (s *Server) hear(c *session, m control.FromAgent) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.key] != c {
		return false
	}
	if !c.greeted {
		if m.Podnet != control.Version {
			s.log.Warn("agent refused", "addr", c.addr, "key", c.key, "err", fmt.Sprintf("it speaks %q, not %q", line(m.Podnet), control.Version))
			return false
		}
		c.greeted = true
		c.report = Report{Connected: time.Now(), PodUID: m.PodUID}
		a := s.toldLocked(c)
		if a == nil {
			c.greeted = false
			s.log.Warn("agent refused", "addr", c.addr, "key", c.key, "err", fmt.Sprintf("nobody says that it is in the pod %q", line(m.PodUID)))
			return false
		}
		s.log.Info("agent connected", "addr", c.addr, "key", c.key, "pod", a.Namespace+"/"+a.Pod)
		wake.Up(s.changed)
	}
	if line(m.Error) != c.report.Error && !s.newsLocked(c.key) {
		m.Error = c.report.Error // it says so again
	}
	news, counted := c.take(m)
	if counted {
		s.tally.add(c.key, c.report.Counts)
	}
	if news {
		wake.Up(s.changed)
	}
	s.counted = s.counted || counted
	return true
}
