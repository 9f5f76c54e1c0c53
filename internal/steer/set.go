package steer

// Set is a pod's rules, compiled. It does not change and is safe for concurrent
// use.
type Set struct{ ports map[portKey]*Port }

type portKey struct {
	protocol Protocol
	port     uint16
}

// Compile makes a Set of a pod's rules, which it copies.
func Compile(rules []Rule) (*Set, error) {
	s := &Set{ports: map[portKey]*Port{}}
	for _, r := range rules {
		key := portKey{r.Protocol, r.Port}
		p := s.ports[key]
		if p == nil {
			p = new(Port)
			s.ports[key] = p
		}
		switch {
		case len(r.Matches) > 0:
			p.http = true
		case r.Mode == Mirror:
			p.whole.Mirrors = append(p.whole.Mirrors, &r)
		case p.whole.Steal == nil:
			p.whole.Steal = &r
		}
	}
	return s, nil
}

// Port returns what is steered of a port; nil: nobody steers it.
func (s *Set) Port(p Protocol, port uint16) *Port { return s.ports[portKey{p, port}] }

// Port is the rules of one port.
type Port struct {
	http  bool
	whole Decision
}

// HTTP reports whether some rule has matches, so that the connection must be
// sniffed.
func (p *Port) HTTP() bool { return p.http }

// Whole decides a connection that is not decided by request: where there is no
// rule with matches, or where it is not HTTP.
func (p *Port) Whole() Decision { return p.whole }

// Decide decides a request.
func (p *Port) Decide(h *Head) Decision { return p.whole }
