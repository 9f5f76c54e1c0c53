package steer

import (
	"fmt"
	"slices"
)

// Set is a pod's rules, compiled. It does not change and is safe for concurrent
// use.
type Set struct{ ports map[portKey]*Port }

type portKey struct {
	protocol Protocol
	port     uint16
}

// Compile makes a Set of a pod's rules, which it copies. It fails when a rule is
// not valid or two have the same name; rules that Clash it takes.
func Compile(rules []Rule) (*Set, error) {
	s := &Set{ports: map[portKey]*Port{}}
	names := map[string]bool{}
	for i := range rules {
		r := rules[i].clone()
		matchers, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		if names[r.Name] {
			return nil, fmt.Errorf("rule %q: name: another rule of the pod has it", r.Name)
		}
		names[r.Name] = true

		key := portKey{r.Protocol, r.Port}
		if s.ports[key] == nil {
			s.ports[key] = new(Port)
		}
		s.ports[key].add(r, matchers)
	}
	for _, p := range s.ports {
		p.finish()
	}
	return s, nil
}

// Port returns what is steered of a port; nil: nobody steers it.
func (s *Set) Port(p Protocol, port uint16) *Port { return s.ports[portKey{p, port}] }

// Rules tells the rules of a port as they are now; nil: nobody steers it any more.
// The engines ask for each request, so that a connection that stays open follows
// what comes and goes. It may be called by several goroutines at once.
type Rules func() *Port

// Port is the rules of one port. A nil Port leaves everything to the pod's own
// program.
type Port struct {
	http            bool
	whole           Decision
	steals, mirrors []candidate // in the order in which they are asked
}

func (p *Port) add(r *Rule, matchers []*matcher) {
	to := &p.steals
	if r.Mode == Mirror {
		to = &p.mirrors
	}
	for _, m := range matchers {
		*to = append(*to, candidate{r, m})
		p.http = true
	}
	if len(matchers) == 0 {
		*to = append(*to, candidate{rule: r})
	}
}

// finish puts the rules in order, and decides what can be decided without a
// request.
func (p *Port) finish() {
	sortCandidates(p.steals)
	sortCandidates(p.mirrors)
	for _, c := range p.steals {
		if c.matcher == nil && p.whole.Steal == nil {
			p.whole.Steal = c.rule
		}
	}
	for _, c := range p.mirrors {
		if c.matcher == nil {
			p.whole.Mirrors = append(p.whole.Mirrors, c.rule)
		}
	}
}

// HTTP reports whether some rule has matches, so that the connection must be
// sniffed.
func (p *Port) HTTP() bool { return p != nil && p.http }

// Whole decides a connection that is not decided by request: where no rule has
// matches, or where it is not HTTP. Only rules about the whole port take part.
func (p *Port) Whole() Decision {
	if p == nil {
		return Decision{}
	}
	return p.whole
}

// Decide decides a request. Of the rules that steal and match, the one gets it
// whose match is the most specific: the one
//
//  1. with more conditions (a whole port has none),
//  2. with more exact patterns,
//  3. with more globs (so that they go before regular expressions),
//  4. with more literal bytes in exact patterns and globs together,
//  5. of the older rule,
//  6. of the rule whose name comes first.
//
// Each mirror that matches gets a copy, also of what is stolen. A probe of the
// kubelet (User-Agent kube-probe/...) is the pod's own program's, and no mirror's.
func (p *Port) Decide(h *Head) Decision {
	if p == nil {
		return Decision{}
	}
	r := newRequest(h)
	if r.hasField("user-agent", "kube-probe/") {
		return Decision{}
	}
	var d Decision
	for i := range p.steals {
		if p.steals[i].match(&r) {
			d.Steal = p.steals[i].rule
			break
		}
	}
	for i := range p.mirrors {
		c := &p.mirrors[i]
		if !slices.Contains(d.Mirrors, c.rule) && c.match(&r) {
			d.Mirrors = append(d.Mirrors, c.rule)
		}
	}
	return d
}
