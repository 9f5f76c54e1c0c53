package agent

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

const (
	// maxEvents is how many events wait for a laptop; what does not fit is lost
	// and counted.
	maxEvents = 1000
	// maxText bounds each text of an event, in bytes: a request may have 64 KiB
	// of them.
	maxText = 1024
)

// observer counts what the rules took, and keeps it for the laptops that want to
// see it live.
type observer struct {
	mu     sync.Mutex
	rules  map[string]control.Rule
	counts map[string]*control.Counts          // by rule
	ports  map[serve.PortKey][]*control.Counts // those of the rules of a port
	queues map[netip.Addr]*events
}

// events wait for one laptop.
type events struct {
	waiting chan control.Event
	lost    atomic.Int64
}

func (e *events) takeLost() int64 { return e.lost.Swap(0) }

func newObserver() *observer {
	return &observer{counts: map[string]*control.Counts{}, queues: map[netip.Addr]*events{}}
}

// follow says which rules there are from now on, in force or not, and by which of
// egress flows leave, and forgets the others.
func (o *observer) follow(rules []control.Rule, leaving []string) {
	named, laptops := map[string]control.Rule{}, map[netip.Addr]bool{}
	for _, r := range rules {
		named[r.Name], laptops[r.Laptop] = r, true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules, o.ports = named, map[serve.PortKey][]*control.Counts{}
	maps.DeleteFunc(o.counts, func(name string, _ *control.Counts) bool {
		return named[name].Name == "" && !slices.Contains(leaving, name)
	})
	for _, name := range leaving {
		if o.counts[name] == nil {
			o.counts[name] = new(control.Counts)
		}
	}
	for name, r := range named {
		if o.counts[name] == nil {
			o.counts[name] = new(control.Counts)
		}
		k := serve.PortKey{Protocol: r.Protocol, Port: r.Port}
		o.ports[k] = append(o.ports[k], o.counts[name])
	}
	maps.DeleteFunc(o.queues, func(a netip.Addr, _ *events) bool { return !laptops[a] })
}

// queue is where the events for a laptop wait.
func (o *observer) queue(laptop netip.Addr) *events {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.queues[laptop]
	if e == nil {
		e = &events{waiting: make(chan control.Event, maxEvents)}
		o.queues[laptop] = e
	}
	return e
}

// changed returns the counts that are not as told says, and notes them there;
// with a laptop only those of its rules.
func (o *observer) changed(told map[string]control.Counts, laptop *netip.Addr) map[string]control.Counts {
	o.mu.Lock()
	defer o.mu.Unlock()
	var news map[string]control.Counts
	for name, c := range o.counts {
		if told[name] == *c || laptop != nil && o.rules[name].Laptop != *laptop {
			continue
		}
		if news == nil {
			news = map[string]control.Counts{}
		}
		news[name], told[name] = *c, *c
	}
	return news
}

// at observes a port.
func (o *observer) at(k serve.PortKey) steer.Observer { return portObserver{o, k} }

type portObserver struct {
	*observer
	port serve.PortKey
}

// Seen implements steer.Observer.
func (o portObserver) Seen(s steer.Seen) {
	if s.Rule == nil {
		o.passed(o.port)
		return
	}
	failed := unanswered(&s)
	rule, known := o.took(s.Rule, failed)
	if !known {
		return
	}
	e := control.Event{
		Rule: s.Rule.Name, Began: s.Began, Mirror: s.Mirror, ByApp: failed && s.Rule.ToApp && s.Status == 0 && !s.Mirror,
		Method: short(s.Method), Target: short(s.Target), Host: short(s.Host),
		Status: s.Status, Took: s.Took, In: s.In, Out: s.Out,
	}
	if s.Err != nil {
		e.Error = short(s.Err.Error())
	}
	q := o.queue(rule.Laptop)
	select {
	case q.waiting <- e:
	default:
		q.lost.Add(1)
	}
}

// took counts what a rule took, unless the rule is gone.
func (o *observer) took(rule *steer.Rule, failed bool) (r control.Rule, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r, known = o.rules[rule.Name]; !known || !r.Is(rule) {
		return r, false
	}
	c := o.counts[rule.Name]
	c.Matched++
	if failed {
		c.Failed++
	}
	return r, true
}

// passed counts a request of a port that no rule took.
func (o *observer) passed(k serve.PortKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.ports[k] {
		c.Passed++
	}
}

// left counts a flow that left by a rule of egress, or would have.
func (o *observer) left(rule string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.counts[rule]
	if c == nil {
		return
	}
	c.Matched++
	if err != nil {
		c.Failed++
	}
}

// unanswered reports whether the laptop did not answer: what the client got, if
// anything, is the engines' own 502.
func unanswered(s *steer.Seen) bool {
	return s.Err != nil && (s.Status == http.StatusBadGateway || s.Status == 0 && s.Out == 0)
}

// short cuts a text and lets go of the memory that it was a part of.
func short(s string) string { return strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxText)]), "") }
