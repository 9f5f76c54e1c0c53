package relay

import (
	"slices"
	"sync"
	"time"
)

// beginning is the first InspectBytes of one direction.
type beginning struct {
	mu sync.Mutex
	b  []byte
}

func (b *beginning) keep(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p[:min(len(p), InspectBytes-len(b.b))]...)
}

func (b *beginning) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.b)
}

// inspection is a connection that is being kept.
type inspection struct {
	pod     Pod
	began   time.Time
	in, out beginning
	over    chan struct{}
}

func (i *inspection) end() { close(i.over) }

// inspect begins to keep a connection of a rule; the oldest is forgotten.
func (s *state) inspect(rule string, p Pod) *inspection {
	i := &inspection{pod: p, began: time.Now(), over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(s.inspections[rule], i)
	if len(list) > InspectConns {
		list = slices.Delete(list, 0, len(list)-InspectConns)
	}
	s.inspections[rule] = list
	return i
}

// Inspected are the last InspectConns connections of a rule that asks for it,
// newest last.
func (r *Relay) Inspected(rule string) []Inspection {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	var out []Inspection
	for _, i := range r.state.inspections[rule] {
		q := Inspection{Namespace: i.pod.Namespace, Pod: i.pod.Name, Began: i.began, In: i.in.bytes(), Out: i.out.bytes()}
		select {
		case <-i.over:
			q.Over = true
		default:
		}
		out = append(out, q)
	}
	return out
}
