package exposure

import (
	"cmp"
	"slices"

	"podnet.dev/internal/steer"
)

// way is a port of a Service.
type way struct {
	protocol steer.Protocol
	port     uint16
}

// ports gives the ports of the gateways' pods to exposures. What was given stands
// in the Services, where whoever leads next finds it, and the others read it.
type ports struct {
	given map[string]map[way]uint16 // by an exposure's UID: what it has, for the leader to remember
	// next is tried first. A port that is free again waits until all others had
	// their turn: somewhere a node may still send to it what was meant for its
	// former exposure.
	next uint16
}

// assign fills in the ports of the pods. Where two Services name the same port,
// as two leaders at a time may have it, the older one keeps it.
func (p *ports) assign(live []Live, services []Service, leader bool) {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b Service) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name)) })
	index := make(map[string]*Live, len(live))
	for i := range live {
		index[live[i].UID] = &live[i]
	}
	taken, lingering := map[uint16]bool{}, map[uint16]bool{}
	for _, s := range services {
		l := index[s.Exposure]
		if l == nil || l.Service != s.Name {
			for _, port := range s.Ports {
				lingering[port.Pod] = true
			}
			continue
		}
		l.Settled = l.take(s, taken)
	}
	if !leader {
		clear(p.given)
		return
	}
	p.remember(index, taken)
	for i := range live {
		p.give(&live[i], taken, lingering)
	}
}

// take has an exposure keep the ports that its Service names, unless an older one
// has them. It reports whether they are all there, and no others.
func (l *Live) take(s Service, taken map[uint16]bool) bool {
	named := make(map[way]uint16, len(s.Ports))
	for _, port := range s.Ports {
		named[way{port.Protocol, port.Port}] = port.Pod
	}
	settled := len(s.Ports) == len(l.Ports)
	for i := range l.Ports {
		port := &l.Ports[i]
		pod := named[way{port.Protocol, port.Port}]
		if pod < FirstPort || pod > LastPort || taken[pod] {
			settled = false
			continue
		}
		port.Pod, taken[pod] = pod, true
	}
	return settled
}

// remember has exposures keep what they had before where no Service says anything:
// it may not be there yet, or somebody has deleted it.
func (p *ports) remember(index map[string]*Live, taken map[uint16]bool) {
	for uid, given := range p.given {
		l := index[uid]
		if l == nil {
			delete(p.given, uid)
			continue
		}
		for i := range l.Ports {
			port := &l.Ports[i]
			if pod := given[way{port.Protocol, port.Port}]; port.Pod == 0 && pod != 0 && !taken[pod] {
				port.Pod, taken[pod] = pod, true
			}
		}
	}
}

// give finds ports for an exposure that lacks some.
func (p *ports) give(l *Live, taken, lingering map[uint16]bool) {
	for i := range l.Ports {
		port := &l.Ports[i]
		if port.Pod == 0 {
			port.Pod = p.free(taken, lingering)
			taken[port.Pod] = true
		}
	}
	given := make(map[way]uint16, len(l.Ports))
	for _, port := range l.Ports {
		given[way{port.Protocol, port.Port}] = port.Pod
	}
	p.given[l.UID] = given
}

// free finds a port that nobody has. There are many more than exposures may have.
func (p *ports) free(taken, lingering map[uint16]bool) uint16 {
	if p.next == 0 { // another gateway may have led before: begin behind its last one
		p.next = FirstPort
		for _, had := range []map[uint16]bool{taken, lingering} {
			for pod := range had {
				if pod >= p.next && pod <= LastPort {
					p.next = pod + 1
				}
			}
		}
	}
	for range LastPort - FirstPort + 1 {
		if p.next > LastPort {
			p.next = FirstPort
		}
		pod := p.next
		p.next++
		if !taken[pod] && !lingering[pod] {
			return pod
		}
	}
	return 0
}
